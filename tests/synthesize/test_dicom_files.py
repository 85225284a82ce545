"""The DICOM files: read by pydicom and by ourselves, valid by dciodvfy where it is installed, and nobody's."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.dicom import read
from mame_lib.synthesize import synthesize

pydicom = pytest.importorskip("pydicom")


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("dicom") / "data"
    synthesize(replace(small, dicom=True), 6, out)
    return out


def test_pixels_and_side_come_back(files) -> None:
    sides = set()
    for path in sorted((files / "dicom").iterdir()):
        image = read(path)
        with Image.open(files / "images" / f"{path.stem}.png") as picture:
            gray = np.asarray(picture)
        sides.add(image.attributes.laterality)
        faced = gray[:, ::-1] if image.attributes.laterality == "R" else gray
        assert np.array_equal(np.rint(image.pixels * 255), faced)
    assert sides == {"L", "R"}


def test_it_is_nobody(files) -> None:
    uids = []
    for path in sorted((files / "dicom").iterdir()):
        data = pydicom.dcmread(path)
        assert str(data.PatientName).startswith("Synthetic^") and data.PatientID.startswith("SYNTHETIC-")
        assert not data.PatientBirthDate and not data.PatientSex and not data.StudyDate
        assert list(data.ImageType) == ["DERIVED", "SECONDARY"] and data.Manufacturer == "mame_lib"
        assert data.SOPClassUID == pydicom.uid.DigitalMammographyXRayImageStorageForPresentation
        assert "not for diagnosis" in data.ImageComments and "Synthetic" in data.DerivationDescription
        assert "fused" in data.DerivationDescription and "seed 5" in data.DerivationDescription
        uids += [data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID]
    assert len(set(uids)) == len(uids) and all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_dciodvfy_finds_no_error(files) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dicom3tools is not installed")
    for path in sorted((files / "dicom").iterdir()):
        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        assert "MammographyImageForPresentation" in said.stderr and "Error" not in said.stderr, said.stderr
