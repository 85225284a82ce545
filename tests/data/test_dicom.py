"""Reading DICOM: the grayscale chain with known answers, refusals, and nothing of the patient."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from mame_lib.data import dicom
from mame_lib.data.case import Attributes
from mame_lib.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms" / "openrem"


def save(path, pixels=RAMP, bits=12, **fields):
    """A small FOR PRESENTATION mammogram; a field given as None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
        "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": "1.2.3.4.5",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "PatientName": "Doe^Secret",
        "PatientID": "ID-4711",
        "PatientBirthDate": "19500101",
        "Manufacturer": "HOLOGIC, Inc.",
        "ViewPosition": "MLO",
        "ImageLaterality": "R",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "ImagerPixelSpacing": [0.07, 0.065],
        "PixelData": pixels.tobytes(),
    } | fields
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def lut(data, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(data), first, bits]
    item.LUTData = np.asarray(data, "<u2").tobytes()
    return Sequence([item])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.dcm"


def test_plain_pixels_are_scaled_by_bits_stored(path):
    image = dicom.read(save(path))
    assert image.pixels.dtype == np.float32 and image.pixels.shape == (64, 64)
    assert np.allclose(image.pixels, RAMP / 4095)
    assert np.allclose(dicom.read(save(path, bits=14)).pixels, RAMP / 16383)  # not by the brightest pixel


def test_header_facts(path):
    image = dicom.read(save(path))
    assert image.attributes == Attributes(vendor="hologic", view="MLO", laterality="R")
    assert image.spacing == (0.07, 0.065)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"Manufacturer": "SIEMENS"}, Attributes("siemens", "MLO", laterality="R")),
        ({"Manufacturer": "GE MEDICAL SYSTEMS"}, Attributes(None, "MLO", laterality="R")),
        ({"Manufacturer": None, "ImageLaterality": None, "ViewPosition": None}, Attributes()),
        (
            {"ImageLaterality": None, "Laterality": "L", "ViewPosition": "CC"},
            Attributes("hologic", "CC", laterality="L"),
        ),
        ({"ViewPosition": "XCCL", "ImageLaterality": "B"}, Attributes("hologic")),
    ],
)
def test_what_is_unknown_stays_unsaid(path, fields, expected):
    assert dicom.read(save(path, **fields)).attributes == expected


def test_view_by_code(path):
    code = Dataset()
    code.CodeValue = "R-10242"
    image = dicom.read(
        save(path, ViewPosition=None, ViewCodeSequence=Sequence([code]), ImagerPixelSpacing=None)
    )
    assert image.attributes.view == "CC" and image.spacing is None


def test_window(path):
    pixels = dicom.read(save(path, WindowCenter=2000, WindowWidth=1000)).pixels.ravel()
    expected = np.clip((np.arange(4096) - 1999.5) / 999 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    assert np.allclose(pixels, expected, atol=1e-6)


def test_the_first_of_several_windows(path):
    one = dicom.read(save(path, WindowCenter=2000, WindowWidth=1000)).pixels
    many = dicom.read(save(path, WindowCenter=[2000, 100], WindowWidth=[1000, 10])).pixels
    assert np.array_equal(one, many)


def test_sigmoid_window(path):
    fields = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}
    pixels = dicom.read(save(path, **fields)).pixels.ravel()
    assert np.allclose(pixels, 1 / (1 + np.exp(-4 * (np.arange(4096) - 2000) / 1000)), atol=1e-6)


def test_rescale_before_window(path):
    fields = {"RescaleSlope": 2, "RescaleIntercept": -100}
    pixels = dicom.read(save(path, **fields)).pixels
    assert np.allclose(pixels, RAMP / 4095)  # the output range moves along
    pixels = dicom.read(save(path, WindowCenter=2000, WindowWidth=1000, **fields)).pixels.ravel()
    assert np.allclose(pixels, np.clip((2 * np.arange(4096.0) - 100 - 1999.5) / 999 + 0.5, 0, 1), atol=1e-6)


def test_signed_pixels(path):
    pixels = dicom.read(save(path, (RAMP.astype(np.int16) - 2048))).pixels
    assert np.allclose(pixels, RAMP / 4095)


def test_voi_lut_wins_over_a_window_and_is_scaled_by_its_bits(path):
    curve = np.sqrt(np.arange(1000) / 999) * 4095
    fields = {"VOILUTSequence": lut(curve, first=500, bits=12), "WindowCenter": 1, "WindowWidth": 2}
    pixels = dicom.read(save(path, **fields)).pixels.ravel()
    expected = curve.astype(int)[np.clip(np.arange(4096) - 500, 0, 999)] / 4095
    assert np.allclose(pixels, expected, atol=1e-6)


def test_voi_lut_of_8_bits_does_not_wrap(path):
    pixels = dicom.read(save(path, VOILUTSequence=lut(np.arange(200), bits=8))).pixels.ravel()
    assert np.allclose(pixels, np.minimum(np.arange(4096), 199) / 255)


def test_modality_lut(path):
    pixels = dicom.read(save(path, ModalityLUTSequence=lut(np.arange(4096) * 16, bits=16))).pixels
    assert np.allclose(pixels, RAMP * 16 / 65535)


@pytest.mark.parametrize("fields", [{}, {"WindowCenter": 2000, "WindowWidth": 1000}])
def test_monochrome1_is_inverted_about_the_range(path, fields):
    dark = (RAMP // 2).astype(np.uint16)  # the brightest stored value is far from the end of the range
    normal = dicom.read(save(path, dark, **fields)).pixels
    inverted = dicom.read(save(path, dark, PhotometricInterpretation="MONOCHROME1", **fields)).pixels
    assert np.allclose(inverted, 1 - normal, atol=1e-6)


@pytest.mark.parametrize(
    "fields, black",
    [
        ({"PixelPaddingValue": 0}, lambda v: v == 0),
        ({"PixelPaddingValue": 4095}, lambda v: v == 4095),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, lambda v: v >= 4000),
        ({"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}, lambda v: v >= 4000),
    ],
)
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black(path, fields, black, kind):
    pixels = dicom.read(
        save(path, PhotometricInterpretation=kind, WindowCenter=10, WindowWidth=5, **fields)
    ).pixels
    assert (pixels[black(RAMP)] == 0).all()
    plain = dicom.read(save(path, PhotometricInterpretation=kind, WindowCenter=10, WindowWidth=5)).pixels
    assert np.array_equal(pixels[~black(RAMP)], plain[~black(RAMP)])


def test_patients_are_hashed_with_salt(path, tmp_path):
    other = save(tmp_path / "other.dcm", PatientID="ID-4712")
    save(path)
    first = dicom.read(path, salt=b"a").patient
    assert len(first) == 16 and int(first, 16) >= 0
    assert first == dicom.read(path, salt=b"a").patient != dicom.read(path, salt=b"b").patient
    assert first != dicom.read(other, salt=b"a").patient
    assert dicom.read(path).patient != dicom.read(path).patient


def test_study_stands_in_for_a_missing_patient(path, tmp_path):
    other = save(tmp_path / "other.dcm", PatientID=None)
    save(path, PatientID=None)
    assert dicom.read(path, salt=b"a").patient == dicom.read(other, salt=b"a").patient


def test_nothing_else_leaves(path):
    image = dicom.read(save(path))
    assert {field.name for field in dataclasses.fields(image)} == {
        "pixels",
        "attributes",
        "patient",
        "spacing",
    }
    text = repr((image.attributes, image.patient, image.spacing))
    assert not any(word in text for word in ("Doe", "Secret", "4711", "1950", "1.2.3"))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1", "PresentationIntentType": None}, "FOR PROCESSING"),
        ({"PixelData": None}, "no pixel data"),
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, r"not a mammogram \(modality CT\)"),
        ({"Modality": "CR", "SOPClassUID": None, "ViewPosition": "PA"}, "not a mammogram"),
        ({"Modality": None, "SOPClassUID": None, "ViewPosition": None}, "modality not stated"),
        ({"NumberOfFrames": 3}, "tomosynthesis"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PixelData": b"\0\0"}, "do not fit"),
        ({"syntax": RLELossless}, "cannot be decoded"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "grayscale transform"),
        ({"VOILUTSequence": lut([1, 2], bits=99)}, "grayscale transform"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_refusals(path, fields, words):
    if fields.get("syntax") == RLELossless:
        from pydicom.encaps import encapsulate

        fields = fields | {"PixelData": encapsulate([b"nonsense"])}
    with pytest.raises(InputError, match=words) as caught:
        dicom.read(save(path, **fields))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_film_is_accepted_when_it_shows_a_breast(path):
    fields = {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "PresentationIntentType": None}
    assert dicom.read(save(path, **fields)).attributes.view == "MLO"


def test_files_that_are_no_dicom(path, tmp_path):
    path.write_text("I am a text file.\n" * 100)
    with pytest.raises(InputError, match="not a DICOM file"):
        dicom.read(path)
    with pytest.raises(InputError, match="no such file"):
        dicom.read(tmp_path / "nothing.dcm")
    whole = save(path).read_bytes()
    path.write_bytes(whole[:400])
    with pytest.raises(InputError):
        dicom.read(path)


def test_missing_pydicom_gives_the_install_line(path, monkeypatch):
    save(path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'pip install "pydicom>=3"'):
        dicom.read(path)
    assert importlib.util.find_spec("mame_lib.data.dicom")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real headers are not here")
def test_real_headers():
    for name in ("Seno_1_ForPresentation", "Seno_2_ForPresentation"):
        image = dicom.read(REAL / f"openrem_MG-Im-GE_{name}.dcm")
        assert image.attributes == Attributes(view="CC", laterality="L")
        assert image.pixels.shape == (1, 2) and 0 <= image.pixels.min() <= image.pixels.max() <= 1
    for name, words in {
        "GE_Seno_1_ForProcessing": "FOR PROCESSING",
        "GE-SenDS-scaled": "FOR PROCESSING",
        "Hologic-PropProj": "no pixel data|not a mammogram",
    }.items():
        with pytest.raises(InputError, match=words):
            dicom.read(REAL / f"openrem_MG-Im-{name}.dcm")
