"""The DICOM grayscale chain as one table: `display` turns stored values into 0..1 as a workstation shows them.

Every step of the chain (PS3.4, N.2: modality LUT or rescale, VOI LUT or window, presentation) looks at one
stored value at a time. So the chain is computed once for each of the at most 65,536 values that an image
holds, in float64, and the image is a look-up in that table: exact, and as fast as memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.errors import InputError

INTENSITIES = ("vendor", "range", "4095", "3500")

# White point of "vendor", as a share of the output range; every other vendor uses the whole range. The authors
# looked at the largest values of the Siemens files of VinDr-Mammo that have no window (their script skipped the
# others) and judged what exceeds 3500 of 4095 an artifact; their Hologic files (OMI-H) fill 4095.
WHITE_POINTS = {"siemens": 3500 / 4095}

_ROWS = 64  # rows looked up at a time: the indices of a block stay in the processor's cache
_STRAY = 0.01  # share of pixels beyond the stated bits from which the header is not believed

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """How a stored value lies in its 8 or 16 bits (PS3.5, 8.1.1)."""

    allocated: int
    stored: int
    high: int
    signed: bool

    @classmethod
    def of(cls, dataset: Any) -> Layout:
        """Read it from a header.

        Raises
        ------
        InputError
            If a number is missing, contradicts another, or more than 16 bits are allocated.
        """
        try:
            allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
            high, sign = dataset.get("HighBit"), dataset.get("PixelRepresentation")
            layout = cls(allocated, stored, stored - 1 if high is None else int(high), bool(int(sign or 0)))
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError("its header does not say how many bits a pixel has.") from error
        if layout.allocated > 16:
            raise InputError(f"it allocates {allocated} bits to a pixel; 8 or 16 are expected.")
        if layout.allocated not in (8, 16) or not 0 < stored <= layout.high + 1 <= allocated:
            raise InputError(
                f"its header contradicts itself: {stored} of {allocated} bits used, highest bit {layout.high}."
            )
        return layout

    @property
    def ends(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can say."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)


def display(
    stored: NDArray[Any], dataset: Any, *, intensity: str = "vendor", vendor: str | None = None
) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Stored values, integers [h, w] -> float32 [h, w] in 0..1, breast bright; and the facts of the transform.

    intensity: what becomes 1. "range": the largest value that the transform can put out. "vendor": the same, but
    3500/4095 of it where `vendor` is "siemens" and no window says itself what is white (`WHITE_POINTS`).
    "4095" and "3500": that output value, whatever the bits; the paper's divisors, clipped where they wrapped.
    The darkest output is 0. No rule looks at the image's own maximum, so images stay comparable.

    The first VOI LUT goes before the first window. MONOCHROME1 is turned about the output range, before the white
    point is applied; padding (PS3.3, C.7.5.1.1.2) becomes 0.

    Raises
    ------
    InputError
        If `intensity` is unknown, the bits contradict the values, or the transform is broken.
    """
    if intensity not in INTENSITIES:
        raise InputError(f"intensity {intensity!r} is unknown; use one of {', '.join(INTENSITIES)}.")
    layout = Layout.of(dataset)
    low = min(0, int(stored.min()))
    raw = np.arange(low, int(stored.max()) + 1)  # [t]
    try:
        padded = padding(raw, layout, dataset)
        values, stray = clean(raw, layout, dataset)
        table, facts = _chain(values, layout, dataset, intensity, vendor)
    except InputError:
        raise
    except Exception as error:  # pydicom converts a field when it is asked for; its errors quote the field
        raise _broken("a field cannot be read") from error
    stray &= ~padded
    if stray.any() and look_up(stray, stored, low).mean() > _STRAY:
        raise InputError(f"its pixels do not fit the {layout.stored} bits that its header states.")
    table[padded] = 0.0
    return look_up(table.astype(np.float32), stored, low), facts


def _broken(what: str) -> InputError:
    return InputError(f"its grayscale transform (modality LUT, VOI LUT or window) is broken: {what}.")


def look_up(table: NDArray[Any], stored: NDArray[Any], low: int) -> NDArray[Any]:
    """table[stored - low] for stored [h, w], values from `low` on -> [h, w] of the table's type."""
    pixels = np.empty(stored.shape, table.dtype)  # [h, w]
    for row in range(0, stored.shape[0], _ROWS):
        index = stored[row : row + _ROWS]
        if low:
            index = index.astype(np.int32) - low
        np.take(table, index, out=pixels[row : row + _ROWS], mode="clip")  # "clip": no second buffer
    return pixels


def clean(raw: NDArray[Any], layout: Layout, dataset: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Possible raw values -> values of the stored bits, and which of them those bits cannot say, both [t].

    Unused low bits are shifted out, a missing sign is extended, and bits that an old overlay lies in are masked.
    Any other bit above is a contradiction: such values are clipped, because a bright pixel that wraps to dark
    is the worse error.
    """
    low, high = layout.ends
    values = raw >> (layout.high + 1 - layout.stored)
    if layout.signed:
        values = np.where((values > high) & (values < 1 << layout.stored), values - (1 << layout.stored), values)
    elif _overlay_inside(dataset):
        values = values & high
    return np.clip(values, low, high), (values < low) | (values > high)


def _overlay_inside(dataset: Any) -> bool:
    """Whether an overlay lies in the unused bits of the pixels (retired; group 60xx, bit position not 0)."""
    return any(
        (group, 0x0102) in dataset and int(dataset[group, 0x0102].value or 0) > 0
        for group in range(0x6000, 0x6020, 2)
    )


def padding(raw: NDArray[Any], layout: Layout, dataset: Any) -> NDArray[np.bool_]:
    """Which raw values [t] were never exposed: the padding value, or the range to its limit."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return np.zeros(raw.shape, bool)
    last = dataset.get("PixelPaddingRangeLimit")
    # Written with the wrong sign (-2000 for 63536), both still name the same bits.
    ends = [_wrapped(int(value), layout) for value in (first, first if last is None else last)]
    return (raw >= min(ends)) & (raw <= max(ends))


def _wrapped(value: int, layout: Layout) -> int:
    """The number that the low `allocated` bits of `value` mean in this image."""
    size = 1 << layout.allocated
    value %= size
    return value - size if layout.signed and value >= size >> 1 else value


def _chain(
    values: NDArray[Any], layout: Layout, dataset: Any, intensity: str, vendor: str | None
) -> tuple[Values, dict[str, float]]:
    """Clean stored values [t] -> 0..1 [t]."""
    shown, low, high = _modality(values, layout, dataset)
    shown, low, high, windowed = _voi(shown, low, high, dataset)
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise _broken(f"output range {low:g} to {high:g} is empty")
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        shown = high + low - shown
    black, white = low, high
    if intensity in ("4095", "3500"):
        black, white = 0.0, float(intensity)
    elif intensity == "vendor" and not windowed:
        white = low + WHITE_POINTS.get(vendor or "", 1.0) * (high - low)
    table = np.clip((shown - black) / (white - black), 0.0, 1.0)
    if not np.isfinite(table).all():
        raise _broken("it makes values that are not finite")
    facts = {"bits_stored": layout.stored, "output_low": low, "output_high": high, "white_point": white}
    return table, {name: float(value) for name, value in facts.items()}


def _modality(values: NDArray[Any], layout: Layout, dataset: Any) -> tuple[Values, float, float]:
    """Modality LUT or rescale (PS3.3, C.11.1): values [t], and the range that they can take."""
    if lut := _first_lut(dataset, "ModalityLUTSequence"):
        return lut.apply(values), 0.0, lut.top
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    low, high = sorted(end * slope + intercept for end in layout.ends)
    return values * slope + intercept, low, high


def _voi(values: Values, low: float, high: float, dataset: Any) -> tuple[Values, float, float, bool]:
    """VOI LUT, else window (PS3.3, C.11.2), else unchanged: values [t], their range, whether a window made them."""
    if lut := _first_lut(dataset, "VOILUTSequence"):
        return lut.apply(values), 0.0, lut.top, False
    center, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    if center is None or width is None:
        return values, low, high, False
    share = window(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper())
    return low + share * (high - low), low, high, True


def window(values: Values, center: float, width: float, function: str = "LINEAR") -> Values:
    """Share 0..1 of the output range that a window gives to each value [t].

    function: LINEAR (PS3.3, C.11.2.1.2.1), SIGMOID (C.11.2.1.3.1) or LINEAR_EXACT (C.11.2.1.3.2).

    Raises
    ------
    InputError
        If the width is too small for the function, a number is not finite, or the function is unknown.
    """
    if not (math.isfinite(center) and math.isfinite(width)) or width <= 0 or (function == "LINEAR" and width < 1):
        raise _broken(f"window {width:g} around {center:g} is empty")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    elif function != "LINEAR_EXACT":
        raise _broken("its VOI LUT function is none of LINEAR, LINEAR_EXACT and SIGMOID")
    if width == 0:
        return (values > center).astype(float)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Lut:
    """A look-up table: entries [n] for the inputs first, first + 1, …; `top` is the largest output it can say."""

    entries: Values
    first: int
    top: float

    def apply(self, values: NDArray[Any]) -> Values:
        """Inputs [t] -> outputs [t]; inputs beyond an end get the entry of that end."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


def _first_lut(dataset: Any, name: str) -> Lut | None:
    """The first table of a sequence; None if there is none, or de-identification emptied it."""
    items = dataset.get(name)
    if not items or items[0].get("LUTDescriptor") is None or items[0].get("LUTData") is None:
        return None
    count, first, bits = (int(number) for number in items[0].LUTDescriptor)
    count = count % 65536 or 65536  # read as signed, a large count is negative; 0 means 65,536
    if not 8 <= bits <= 16:
        raise _broken(f"a table of {bits} bits an entry is not possible")
    little = getattr(dataset, "original_encoding", (None, None))[1] is not False
    entries = _entries(items[0].LUTData, count, little)
    if bits == 16:
        # Many writers state the 16 bits of the container. The table itself says how many it uses.
        bits = min(16, max(12, int(entries.max()).bit_length()))
    top = float((1 << bits) - 1)
    return Lut(np.clip(entries, 0, top).astype(float), first, top)


def _entries(data: Any, count: int, little: bool) -> NDArray[Any]:
    """LUT Data, a list of numbers or bytes (one or two for each entry) -> [count]."""
    if isinstance(data, bytes | bytearray):
        words = len(data) >= 2 * count
        entries = np.frombuffer(data, ("<u2" if little else ">u2") if words else "u1")[:count]
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64))[:count] % 65536
    if len(entries) < count:
        raise _broken(f"a table has {len(entries)} of its {count} entries")
    return entries


def _number(dataset: Any, name: str, default: Any = None) -> Any:
    """The first value of a numeric field, or `default` where it is absent or empty."""
    value = dataset.get(name)
    if value is not None and not isinstance(value, str | bytes | int | float) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    if not math.isfinite(float(value)):
        raise _broken(f"{name} is not a finite number")
    return float(value)
