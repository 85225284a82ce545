"""The stored run of benchmarks/synthesize.py: 5,000 images, killed twice, and what one process makes in one go."""

from __future__ import annotations

import json
from pathlib import Path

STORED = json.loads((Path(__file__).resolve().parents[2] / "benchmarks/results/synthesize.json").read_text())


def test_nothing_is_lost_twice_there_or_different() -> None:
    killed, whole = STORED["killed"], STORED["unbroken"]
    assert [one["processes_killed"] > 0 for one in killed["runs"]] == [True, True, False]
    assert killed["processes"] == 2 and whole["processes"] == 1 and STORED["same_checksums"]
    for one in (killed, whole):
        assert one["images"] == one["distinct_images"] == STORED["count"] == 5000
        assert one["complete"] and one["checksums_hold"] and not one["left_over"]
        assert one["images_per_second"] > 0
    assert STORED["checksums"] == killed["files"] - 1, "all files but the list itself"


def test_the_dicom_files_are_valid() -> None:
    assert STORED["dicom"]["errors"] == 0 and "MammographyImageForPresentation" in STORED["dicom"]["dciodvfy"]
