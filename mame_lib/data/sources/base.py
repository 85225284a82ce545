"""What every source says of an image before a pixel of it is read: `SourceCase`, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mame_lib.data.case import Attributes

FloatBox = tuple[float, float, float, float]


@dataclass(frozen=True)
class SourceCase:
    """A case as its source describes it: small, picklable, made from file names and tables alone.

    key: path of the image relative to the source folder (posix); unique, and never written to a data set.
    path: the image file, DICOM or picture. patient: the source's own name of the patient, or "" where only
    the file's header can tell; it is hashed before it leaves. attributes: what the tables say; what they leave
    unsaid is taken from the header. boxes: lesions, (x0, y0, x1, y1) in pixels of the stored image as it lies in
    the file (not flipped), edge convention: pixel k covers [k, k + 1). May reach beyond the image: the
    geometry clips. masks: pictures of lesions, nonzero inside, of the image's shape or its aspect.
    split: "train", "validation" or "test" where the source says so, else None (by hash of the patient).
    shape: (height, width) that the annotations were drawn for, or None; another one means the wrong image.
    """

    key: str
    path: Path
    patient: str = ""
    attributes: Attributes = field(default_factory=Attributes)
    boxes: tuple[FloatBox, ...] = ()
    masks: tuple[Path, ...] = ()
    split: str | None = None
    shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class Quarantined:
    """An image (or a row of a table) that was refused: its key inside the source folder, and why.

    The reason is one clause without any value of the patient; the key may hold a name, so it is shown to the
    person who runs `mame prepare` and never written to the data set.
    """

    key: str
    reason: str
