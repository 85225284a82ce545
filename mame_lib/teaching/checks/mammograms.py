"""Checks of chapter 01, from DICOM to training pair.

Each check builds its own truth from the rule in the text, never from the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mame_lib.teaching.checks import Hint, exercise


@exercise("01-window")
def window(answer: Any) -> None:
    stored, center, width = np.array([0, 1000, 1500, 2000, 2499, 4095]), 2000.0, 1000.0
    truth = np.clip((stored - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    value = np.asarray(answer(stored, center, width, False), float)
    if value.shape != truth.shape:
        raise Hint(f"six stored values must give six grays, not an array of shape {value.shape}.")
    if value.min() < 0 or value.max() > 1:
        raise Hint("stored values outside the window must become 0 or 1: clip, or bright pixels will wrap later.")
    if not np.allclose(value, truth, atol=2e-3):
        raise Hint("half of the window lies below the center: the center itself becomes 0.5, center - width / 2 is 0.")
    inverted = np.asarray(answer(stored, center, width, True), float)
    if np.allclose(inverted, value):
        raise Hint("MONOCHROME1 says that low values are bright, and your answer does not change.")
    dark = np.asarray(answer(stored[1:4], center, width, True), float)
    if not np.allclose(dark, 1 - truth[1:4], atol=2e-3):
        raise Hint("invert about the range 0 to 1, not about the brightest pixel: two images must stay comparable.")


@exercise("01-flip")
def mirrored_box(answer: Any) -> None:
    value = tuple(float(edge) for edge in answer((2320, 803, 2817, 1156), 2800))
    if len(value) != 4:
        raise Hint("a box has four edges, x0, y0, x1, y1.")
    if value[0] > value[2]:
        raise Hint("x0 is now larger than x1: the left edge of the mirror image was the right edge of the box.")
    if (value[1], value[3]) != (803, 1156):
        raise Hint("a mirror exchanges left and right only; the rows stay.")
    if value[0] < 0 or value[2] > 2800:
        raise Hint("this box reaches 17 pixels beyond its image; clip it to the image, 0 to width.")
    if value != (0, 803, 480, 1156):
        raise Hint("pixel k covers k to k + 1, so an edge at x goes to width - x; the answer is 0, 803, 480, 1156.")
    if tuple(map(float, answer((300, 10, 375, 20), 2800))) != (2425, 10, 2500, 20):
        raise Hint("a box inside the image keeps its width: 300 to 375 becomes 2425 to 2500.")


@exercise("01-share")
def surviving_share(answer: Any) -> None:
    cases = {  # box rows y0, y1 of a 3328-row image of which rows 380 to 2943 are kept
        (1000, 1200): 1.0, (280, 480): 0.5, (100, 200): 0.0, (2900, 3100): 0.215, (0, 3328): 2563 / 3328,
    }  # fmt: skip
    for (top, bottom), truth in cases.items():
        value = float(answer(top, bottom, 380, 2943))
        if value < 0:
            raise Hint(f"rows {top} to {bottom} lie outside the frame; a share is never negative, it ends at 0.")
        if value > 1:
            raise Hint("a share of the box is at most 1: divide by the height of the box, not of what is left.")
        if truth == 0.5 and np.isclose(value, 1.0):
            raise Hint("rows 280 to 480 lose the 100 above row 380: half of the box is left, not all.")
        if not np.isclose(value, truth, atol=1e-3):
            raise Hint(f"rows {top} to {bottom}: {truth:.1%} of the box are left, your answer says {value:.1%}.")


@exercise("01-split")
def patient_split(answer: Any) -> None:
    patients = [f"p{number // 4}" for number in range(4000)]
    value = list(answer(patients))
    if len(value) != len(patients) or not set(value) <= {"train", "validation"}:
        raise Hint('return one word an image, "train" or "validation".')
    seen: dict[str, set[str]] = {}
    for patient, split in zip(patients, value, strict=True):
        seen.setdefault(patient, set()).add(split)
    if any(len(splits) > 1 for splits in seen.values()):
        raise Hint("a patient has images in both splits, so validation will reward remembering her; decide by patient.")
    held = np.mean([split == "validation" for split in value])
    if not 0.06 < held < 0.14:
        raise Hint(f"about one patient in ten belongs to validation; yours holds {held:.0%} of the images.")
    fewer = dict(zip(patients[2000:][::-1], answer(patients[2000:][::-1]), strict=True))
    if any(fewer[patient] != split for patient, split in zip(patients[2000:], value[2000:], strict=True)):
        raise Hint("a patient changes sides when other patients join or the order changes: use nothing but her name.")


@exercise("01-area")
def robust_area(answer: Any) -> None:
    y, x = np.mgrid[0:128, 0:128]
    breast = (x / 80) ** 2 + ((y - 64) / 50) ** 2 < 1
    clean = np.where(breast, 120, 0).astype(np.uint8)
    truth = float(breast.mean())
    if abs(float(answer(clean)) - truth) > 0.01:
        raise Hint(f"on a clean image with {truth:.3f} of breast your answer is {float(answer(clean)):.3f}.")
    rng = np.random.default_rng(0)
    gray = np.clip(clean + 14 + rng.normal(0, 2, clean.shape), 0, 255).astype(np.uint8)
    if float(answer(gray)) > 0.9:
        raise Hint("a background of gray 14, as generated images have, counts as breast: 'not zero' is no rule.")
    marked = gray.copy()
    marked[4:26, 96:124] = 230
    found = float(answer(marked))
    if found > truth + 0.02:
        raise Hint("the marker in the corner counts as breast; keep only the largest connected component.")
    if abs(found - truth) > 0.02:
        raise Hint(f"with a gray background and a marker {truth:.3f} is right, and your answer is {found:.3f}.")
