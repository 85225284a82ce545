"""Chapter 01: wrong answers that students really give, and a fragment of the hint each must earn."""

import random

import numpy as np
from scipy import ndimage


def _unclipped(stored, center, width, monochrome1):
    gray = (stored - (center - width / 2)) / width
    return 1 - gray if monochrome1 else gray


def _own_maximum(stored, center, width, monochrome1):
    gray = np.clip((stored - (center - width / 2)) / width, 0, 1)
    return gray.max() - gray if monochrome1 else gray


def _never_inverted(stored, center, width, monochrome1):
    return np.clip((stored - (center - width / 2)) / width, 0, 1)


def _from_center(stored, center, width, monochrome1):
    gray = np.clip((stored - center) / width, 0, 1)
    return 1 - gray if monochrome1 else gray


def _by_image(patients):
    rng = random.Random(0)
    return ["validation" if rng.random() < 0.1 else "train" for _ in patients]


def _by_order(patients):
    names = list(dict.fromkeys(patients))
    held = set(names[: len(names) // 10])
    return ["validation" if name in held else "train" for name in patients]


def _threshold(image):
    return float((image > np.median(np.r_[image[0], image[-1]]) + 20).mean())


def _largest_of_nonzero(image):
    labels, _ = ndimage.label(image > 0)
    return float((labels == 1).mean())


WRONG = {
    "01-window": [
        (_unclipped, "clip"),
        (_own_maximum, "brightest pixel"),
        (_never_inverted, "does not change"),
        (_from_center, "the center itself becomes 0.5"),
    ],
    "01-flip": [
        (lambda box, width: (width - box[0], box[1], width - box[2], box[3]), "x0 is now larger"),
        (lambda box, width: (width - box[2], box[1], width - box[0], box[3]), "clip it"),
    ],
    "01-share": [
        (lambda y0, y1, top, bottom: (min(y1, bottom) - max(y0, top)) / (y1 - y0), "never negative"),
        (lambda y0, y1, top, bottom: float(y1 > top and y0 < bottom), "half of the box"),
    ],
    "01-split": [
        (_by_image, "both splits"),
        (_by_order, "changes sides"),
    ],
    "01-area": [
        (lambda image: float((image != 0).mean()), "'not zero' is no rule"),
        (_largest_of_nonzero, "'not zero' is no rule"),
        (_threshold, "marker"),
    ],
}
