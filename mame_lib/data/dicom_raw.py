"""Raw detector data (FOR PROCESSING) made visible: the logarithm that turns exposure into attenuation.

A vendor's own processing is secret and better. This one is simple, monotonic and the same for every vendor, so
that raw collections can be used at all; its images do not look like those FOR PRESENTATION.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.grayscale import Layout, clean, look_up, padding
from mame_lib.errors import InputError

_AIR = 99.0  # percentile of exposure taken as that of the bare detector, I0
_WHITE = 99.5  # percentile of the attenuation of tissue that becomes 1: above lie dead lines and markers
# Attenuation from which a pixel counts as tissue: a few millimeters of fat; of logarithms that came in unknown
# units, a share of what their bits can say.
_TISSUE = 0.2
_TISSUE_SHARE = 0.02


def attenuation(stored: NDArray[Any], dataset: Any) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Raw values, integers [h, w] -> float32 [h, w] in 0..1, breast bright, air 0; and the facts of the scale.

    Beer and Lambert: exposure is I = I0 exp(-attenuation), so attenuation = -log(I / I0), of no unit. I0 is the
    99th percentile of the exposures, and 1 the 99.5th percentile of the attenuation of tissue; percentiles, since
    single pixels of a detector are dead or saturated. Where the header says that values are logarithms already
    (Pixel Intensity Relationship, PS3.3, C.8.11.3.1.2) or fall with exposure (its Sign), they are taken as such.

    Raises
    ------
    InputError
        If the bits contradict the header, or nothing attenuates.
    """
    layout = Layout.of(dataset)
    low = min(0, int(stored.min()))
    raw = np.arange(low, int(stored.max()) + 1)  # [t]
    try:
        padded = padding(raw, layout, dataset)
        falling = int(dataset.get("PixelIntensityRelationshipSign") or 1) < 0
    except Exception as error:  # pydicom converts a field when it is asked for
        raise InputError("its pixel padding or intensity relationship is no number.") from error
    values, _ = clean(raw, layout, dataset)
    exposure = (layout.ends[1] - values if falling else values - layout.ends[0]).astype(float)  # [t], 0: none
    floor = _TISSUE_SHARE * (layout.ends[1] - layout.ends[0])
    if str(dataset.get("PixelIntensityRelationship") or "LIN").strip().upper() != "LOG":
        exposure, floor = np.log(np.maximum(exposure, 1.0)), _TISSUE
    counts = np.bincount(stored.ravel() if low == 0 else stored.ravel().astype(np.int64) - low, minlength=len(raw))
    counts[padded] = 0  # [t]
    if not counts.any():
        raise InputError("all of its pixels are padding.")
    table = np.maximum(_percentile(exposure, counts, _AIR) - exposure, 0.0)  # [t]
    tissue = np.where(table > floor, counts, 0)  # [t]
    if not tissue.any():
        raise InputError("nothing in its raw data attenuates: it shows no breast.")
    white = _percentile(table, tissue, _WHITE)
    table = np.clip(table / white, 0.0, 1.0)
    table[padded] = 0.0
    facts = {"bits_stored": float(layout.stored), "white_point": white}
    return look_up(table.astype(np.float32), stored, low), facts


def _percentile(values: NDArray[np.float64], counts: NDArray[Any], percent: float) -> float:
    """The smallest of values [t] that `percent` % of the pixels, counts [t], do not exceed."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    return float(values[order][np.searchsorted(below, percent / 100 * below[-1])])
