"""What a mammogram is, in words: `Attributes`, and one image with its ground truth: `Case`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from mame_lib.errors import InputError

VENDORS = ("hologic", "siemens")
VIEWS = ("CC", "MLO")
AREAS = ("small", "medium", "big")
DENSITIES = ("very low", "low", "high", "very high")  # BI-RADS A, B, C, D (paper, Table 2)
LATERALITIES = ("L", "R")
FINDINGS = ("lesion", "mass", "spiculated mass", "calcification cluster")  # the first is the paper's only one

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

    def to_line(self) -> str:
        """One line of metadata.jsonl; the keys that end in `file_name` are those that imagefolder looks for."""
        values: dict[str, Any] = {
            "file_name": self.image,
            "prompt": self.prompt,
            "id": self.id,
            "patient": self.patient,
            "attributes": self.attributes.to_dict(),
            "boxes": [list(box) for box in self.boxes],
            "kept": list(self.kept),
            "split": self.split,
            "source": self.source,
            "mask_file_name": self.mask,
            "lesion_file_name": self.lesion,
            "truth": self.truth,
        }
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> Case:
        """The inverse of `to_line`; what a hand-made line for imagefolder does not say gets a default.

        Raises
        ------
        KeyError, ValueError, TypeError, AttributeError
            If a key is missing or a value is not of its kind.
        """
        values = json.loads(line)
        name = str(values["file_name"])
        files = {key: values.get(f"{key}_file_name") for key in ("mask", "lesion")}
        boxes = cast(
            "tuple[tuple[int, int, int, int], ...]", tuple(tuple(map(int, b)) for b in values.get("boxes", ()))
        )
        if any(len(box) != 4 for box in boxes):
            raise ValueError("a box needs four numbers")
        stem = Path(name).stem
        return cls(
            id=str(values.get("id", stem)),
            patient=str(values.get("patient", stem)),
            image=name,
            prompt=str(values["prompt"]),
            attributes=Attributes.from_dict(values.get("attributes") or {}),
            split=str(values.get("split", "train")),
            source=str(values.get("source", "unknown")),
            boxes=boxes,
            kept=tuple(map(float, values.get("kept", ()))),
            truth=values.get("truth"),
            **{key: None if file is None else str(file) for key, file in files.items()},
        )
