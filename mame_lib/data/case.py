"""What a mammogram is, in words: `Attributes`, and one image with its ground truth: `Case`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from mame_lib.errors import InputError

VENDORS = ("hologic", "siemens")
VIEWS = ("CC", "MLO")
AREAS = ("small", "medium", "big")
DENSITIES = ("very low", "low", "high", "very high")  # BI-RADS A, B, C, D (paper, Table 2)
LATERALITIES = ("L", "R")
FINDINGS = ("lesion",)

VOCABULARY: dict[str, tuple[str, ...]] = {
    "vendor": VENDORS,
    "view": VIEWS,
    "area": AREAS,
    "density": DENSITIES,
    "laterality": LATERALITIES,
    "finding": FINDINGS,
}


@dataclass(frozen=True)
class Attributes:
    """What can be said of a mammogram. `None` means "not said", never "absent".

    Raises
    ------
    InputError
        If a value is not one of the words in `VOCABULARY`.
    """

    vendor: str | None = None
    view: str | None = None
    area: str | None = None
    density: str | None = None
    laterality: str | None = None
    finding: str | None = None

    def __post_init__(self) -> None:
        for name, words in VOCABULARY.items():
            value = getattr(self, name)
            if value is not None and value not in words:
                raise InputError(f"{name} {value!r} is unknown; use one of {', '.join(words)}.")

    def to_dict(self) -> dict[str, str]:
        """The attributes that are said, as a plain dictionary."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Attributes:
        """The inverse of `to_dict`; keys that are not attributes are refused."""
        known = {field.name for field in fields(cls)}
        strange = sorted(set(values) - known)
        if strange:
            raise InputError(f"unknown attribute {strange[0]!r}; use {', '.join(sorted(known))}.")
        return cls(**values)


def area_class(area_ratio: float) -> str:
    """Size word for breast pixels / all pixels of the square (paper, Table 2).

    Half-open intervals: small [0, 0.4), medium [0.4, 0.6), big [0.6, 1].
    """
    if not 0.0 <= area_ratio <= 1.0:
        raise InputError(f"area ratio {area_ratio} is not between 0 and 1.")
    return "small" if area_ratio < 0.4 else "medium" if area_ratio < 0.6 else "big"


@dataclass(frozen=True)
class Case:
    """One image of a manifest with everything known about it.

    `image`, `mask` (breast) and `lesion` (all findings merged) are paths relative to the manifest folder.
    `boxes` are half-open pixel boxes `(x0, y0, x1, y1)` of lesions in the image as stored, and `kept` the share
    of each that the crop left (1: whole). `patient` is the unit of splitting.
    """

    id: str
    patient: str
    image: str
    prompt: str
    attributes: Attributes
    split: str = "train"
    source: str = "phantom"
    mask: str | None = None
    lesion: str | None = None
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    kept: tuple[float, ...] = ()
    truth: dict[str, float] | None = None  # measured facts: area_ratio, glandular_fraction, …
