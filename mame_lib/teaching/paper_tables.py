"""Numbers that the paper prints, as data, so that no chapter types them.

Source: Montoya-del-Angel et al., MAM-E, Sensors 2024, 24, 2076, doi 10.3390/s24072076, CC BY 4.0.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

PINAYA = 0.5356  # the MS-SSIM of Pinaya et al. with which the paper's section 4 compares

# Table 3: mean and standard deviation of MS-SSIM over 20 pairs of images, by guidance scale and model.
_TABLE_3 = """\
guidance,hologic_mean,hologic_sd,siemens_mean,siemens_sd,fused_mean,fused_sd
4,0.29,0.16,0.38,0.19,0.37,0.14
5,0.34,0.16,0.36,0.17,0.44,0.16
6,0.38,0.12,0.41,0.17,0.51,0.15
7,0.38,0.10,0.34,0.17,0.49,0.19
8,0.43,0.11,0.42,0.20,0.53,0.14
9,0.42,0.13,0.43,0.16,0.44,0.17
10,0.49,0.12,0.41,0.13,0.60,0.11
11,0.50,0.12,0.47,0.17,0.51,0.14
12,0.52,0.11,0.46,0.16,0.47,0.12
13,0.48,0.10,0.42,0.16,0.51,0.17
14,0.50,0.11,0.40,0.18,0.47,0.14
"""


@dataclass(frozen=True)
class Cell:
    """One cell of Table 3: mean and standard deviation of 20 pairs."""

    mean: float
    sd: float


def table_3() -> dict[str, dict[int, Cell]]:
    """The paper's Table 3: model (`hologic`, `siemens`, `fused`; there "Fusion") -> guidance scale 4 to 14 -> cell."""
    found: dict[str, dict[int, Cell]] = {"hologic": {}, "siemens": {}, "fused": {}}
    for row in csv.DictReader(_TABLE_3.splitlines()):
        for model, cells in found.items():
            cells[int(row["guidance"])] = Cell(float(row[f"{model}_mean"]), float(row[f"{model}_sd"]))
    return found
