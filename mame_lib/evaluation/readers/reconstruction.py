"""The ratings behind the paper's Fig. 17, as far as its picture tells: a reconstruction, not the paper's data.

The sheet of answers was not published. These counts were fitted to the corners of the printed curve: they lie on it
to a quarter of a percent in 485 columns of pixels, and no other whole numbers do so well. Order and images are unknown.
They reproduce the printed AUC of 0.49: 343 of 700 pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# How often the one reader gave each rating, 0 (definitely synthetic) to 4 (definitely real).
REAL = (1, 12, 3, 7, 5)
SYNTHETIC = (0, 11, 1, 11, 2)
PRINTED_AUC = 0.49  # Fig. 17 prints it without an interval


def fig_17() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Reconstructed ratings [53] of 0 to 4, and whether each image is synthetic [53]; real images first."""
    levels = np.arange(len(REAL))
    ratings = np.concatenate([np.repeat(levels, REAL), np.repeat(levels, SYNTHETIC)])
    return ratings, np.arange(len(ratings)) >= sum(REAL)
