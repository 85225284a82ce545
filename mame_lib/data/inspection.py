"""Look at a manifest: counts in plain text, the paper's Table 1 for this data, and a contact sheet."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from mame_lib.data.case import VENDORS, VOCABULARY, Case
from mame_lib.data.manifest import SPLITS, Manifest
from mame_lib.errors import InputError

SHEET_COLUMNS, SHEET_CASES = 8, 48
THUMBNAIL = 128  # side of an image on the sheet, pixels
BREAST, LESION = (70, 130, 180), (230, 120, 20)  # colors of the outlines


def table(
    rows: Sequence[str], columns: Sequence[str], count: Callable[[str, str], int], corner: str = ""
) -> str:
    """Whole numbers as aligned text with a header line."""
    wide = max(map(len, (corner, *rows)), default=0)
    cells = [max(len(name), 7) for name in columns]
    lines = [f"{corner:<{wide}}" + "".join(f"  {name:>{w}}" for name, w in zip(columns, cells, strict=True))]
    for row in rows:
        numbers = (f"  {count(row, name):>{w},}" for name, w in zip(columns, cells, strict=True))
        lines.append(f"{row:<{wide}}" + "".join(numbers))
    return "\n".join(lines)


def table_1(manifest: Manifest) -> str:
    """Images with and without a lesion, for each vendor: Table 1 of the paper for this data."""

    def count(row: str, column: str) -> int:
        return sum(
            (row == "total" or (row == "lesion") == (case.attributes.finding is not None))
            and (column == "total" or column == (case.attributes.vendor or "other"))
            for case in manifest.cases
        )

    return table(("no lesion", "lesion", "total"), (*VENDORS, "other", "total"), count, "images")


def summary(manifest: Manifest) -> str:
    """Counts by source, by attribute and split, and of what was refused, as plain text."""
    info, cases = manifest.info, manifest.cases
    splits = [name for name in SPLITS if any(case.split == name for case in cases)]
    sources = ", ".join(f"{n} {name}" for name, n in sorted(Counter(case.source for case in cases).items()))
    patients = len({case.patient for case in cases})
    parts = [f"{len(cases):,} images of {patients:,} patients ({sources})", table_1(manifest)]
    by_split = Counter((case.split, value) for case in cases for value in _values(case))
    for name, words in VOCABULARY.items():
        rows = [word for word in (*words, "not said") if any(by_split[s, f"{name}={word}"] for s in splits)]

        def count(row: str, column: str, name: str = name) -> int:
            chosen = splits if column == "total" else [column]
            return sum(by_split[split, f"{name}={row}"] for split in chosen)

        parts.append(table(rows, (*splits, "total"), count, name))
    for key, title in (("quarantined", "files refused"), ("dropped_boxes", "lesion boxes lost in the frame")):
        reasons = Counter(entry["reason"] for entry in info.get(key, ()))
        if reasons:
            lines = [f"  {n:>6,}  {reason}" for reason, n in reasons.most_common()]
            parts.append("\n".join([f"{reasons.total():,} {title}", *lines]))
    return "\n\n".join(parts)


def _values(case: Case) -> list[str]:
    return [f"{name}={getattr(case.attributes, name) or 'not said'}" for name in VOCABULARY]


def contact_sheet(manifest: Manifest, path: str | Path, *, count: int = SHEET_CASES) -> Path:
    """Write a PNG with up to `count` images, spread over the data set; breast and lesions are outlined.

    Raises
    ------
    InputError
        If `path` does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} must end in .png; a contact sheet is a PNG.")
    places = np.unique(np.linspace(0, len(manifest.cases) - 1, min(count, len(manifest.cases))).round().astype(int))
    columns = min(SHEET_COLUMNS, len(places))
    rows = -(-len(places) // columns)
    cell, gap, label = THUMBNAIL, 6, 26
    sheet = Image.new("RGB", (gap + columns * (cell + gap), gap + rows * (cell + label + gap)), (32, 33, 36))
    draw = ImageDraw.Draw(sheet)
    for number, place in enumerate(places):
        case = manifest.cases[int(place)]
        x, y = gap + (number % columns) * (cell + gap), gap + (number // columns) * (cell + label + gap)
        sheet.paste(_outlined(manifest, case), (x, y))
        said = case.attributes
        first = " ".join(filter(None, (said.vendor, said.view, said.laterality, case.split)))
        second = " ".join(filter(None, (f"area {said.area}" if said.area else "", said.density, said.finding)))
        draw.multiline_text((x, y + cell + 1), f"{first}\n{second}", fill=(210, 212, 215), font_size=9, spacing=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    sheet.save(partial, format="PNG")
    os.replace(partial, path)
    return path


def _outlined(manifest: Manifest, case: Case) -> Image.Image:
    """A thumbnail of the case with thin outlines."""
    size = (THUMBNAIL, THUMBNAIL)
    gray = np.asarray(Image.fromarray(manifest.image(case)).resize(size, Image.Resampling.BILINEAR))
    color = np.repeat(gray[..., None], 3, axis=2)  # [n, n, 3]
    for name, ink in ((case.mask, BREAST), (case.lesion, LESION)):
        if name:
            with Image.open(manifest.root / name) as picture:
                mask = np.asarray(picture.convert("L").resize(size, Image.Resampling.NEAREST)) > 127
            color[_outline(mask)] = ink
    return Image.fromarray(color)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(mask) & ~mask)
