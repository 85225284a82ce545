"""Writing synthetic DICOM files: what they say of themselves, and what other readers make of them."""

import numpy as np
import pytest

from mame_lib.data import dicom, jpeg_lossless
from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import NOTICE, SYNTAXES, save_dicom
from mame_lib.errors import InputError

pydicom = pytest.importorskip("pydicom")

PIXELS = np.linspace(0, 1, 60 * 48).reshape(60, 48)
MLO = Attributes("siemens", "MLO", laterality="R")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.dcm"


@pytest.mark.parametrize("vendor", ["siemens", "hologic", None])
@pytest.mark.parametrize("view, laterality", [("CC", "L"), ("MLO", "R"), (None, None)])
def test_reading_gives_back_what_was_written(path, vendor, view, laterality):
    attributes = Attributes(vendor, view, laterality=laterality)
    assert save_dicom(path, PIXELS, attributes=attributes, spacing_mm=0.085) == path
    image = dicom.read(path, salt=b"s")
    assert np.abs(image.pixels - PIXELS).max() <= 0.5 / 4095 + 1e-6  # for Siemens too: its window says what is white
    assert image.attributes == attributes and image.spacing == (0.085, 0.085)
    assert image.patient == dicom.pseudonym("SYNTHETIC", b"s")


def test_it_says_that_it_is_synthetic(path):
    dataset = pydicom.dcmread(save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.085))
    assert dataset.ImageComments == NOTICE and "not for diagnosis" in NOTICE
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
    assert dataset.PresentationIntentType == "FOR PRESENTATION" and dataset.PatientBirthDate == ""
    assert dataset.ViewCodeSequence[0].CodeMeaning == "medio-lateral oblique"
    assert dataset.PatientOrientation == ["P", "L"]


@pytest.mark.parametrize("syntax", ["explicit", "deflated", "rle", "jpeg-lossless-sv1"])
def test_the_same_arguments_write_the_same_bytes(path, tmp_path, syntax):
    for name in ("a", "b"):
        save_dicom(tmp_path / name, PIXELS, attributes=MLO, spacing_mm=0.085, transfer_syntax=syntax)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = pydicom.dcmread(save_dicom(path, PIXELS / 2, attributes=MLO, spacing_mm=0.085))
    assert other.SOPInstanceUID != pydicom.dcmread(tmp_path / "a").SOPInstanceUID


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pydicom_reads_the_stored_values(path, syntax):
    module = {"jpeg-lossless": "gdcm", "jpeg-lossless-sv1": "gdcm", "jpeg-ls": "jpeg_ls", "jpeg-2000": "openjpeg"}
    if syntax in module:
        pytest.importorskip(module[syntax])
    dataset = pydicom.dcmread(
        save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.1, transfer_syntax=syntax, photometric="MONOCHROME1")
    )
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
    assert dataset.PhotometricInterpretation == "MONOCHROME1" and dataset.PresentationLUTShape == "INVERSE"
    assert np.array_equal(dataset.pixel_array, np.rint((1 - PIXELS) * 4095))


def test_window_lut_and_fields(path):
    save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.1, window=(1000, 500))
    stored = np.rint(PIXELS * 4095)
    assert np.allclose(dicom.read(path).pixels, np.clip((stored - 999.5) / 499 + 0.5, 0, 1), atol=1e-6)
    curve = np.sqrt(np.arange(4096) / 4095) * 4095
    save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.1, voi_lut=curve)
    expected = curve.astype(int)[stored.astype(int)] / 4095
    assert np.allclose(dicom.read(path, intensity="range").pixels, expected, atol=1e-6)
    save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.1, fields={"BreastImplantPresent": "YES"})
    with pytest.raises(InputError, match="implant"):
        dicom.read(path)
    save_dicom(path, PIXELS, attributes=MLO, spacing_mm=0.1, fields={"ImageLaterality": None, "SOPClassUID": None})
    assert dicom.read(path).attributes.laterality == "R"  # by the patient orientation


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"pixels": PIXELS + 0.1}, "between 0 and 1"),
        ({"pixels": PIXELS * np.nan}, "between 0 and 1"),
        ({"pixels": PIXELS[0]}, "shape"),
        ({"bits": 7}, "7 bits"),
        ({"photometric": "RGB"}, "photometric"),
        ({"transfer_syntax": "jpeg"}, "transfer syntax 'jpeg' is unknown"),
        ({"spacing_mm": 0}, "pixel spacing"),
        ({"voi_lut": [5000]}, "no 12-bit numbers"),
        ({"voi_lut": [1], "window": (1, 1)}, "not both"),
        ({"transfer_syntax": "jpeg-2000", "pixels": PIXELS[:20]}, "cannot encode 48 x 20"),
    ],
)
def test_arguments_out_of_range(path, changes, words):
    if changes.get("transfer_syntax") == "jpeg-2000":
        pytest.importorskip("openjpeg")
    arguments = {"pixels": PIXELS, "attributes": MLO, "spacing_mm": 0.1} | changes
    with pytest.raises(InputError, match=words):
        save_dicom(path, arguments.pop("pixels"), **arguments)


def decode(stream):
    """An independent JPEG lossless decoder, one bit at a time (ITU-T T.81, annexes F.2.2 and H.2)."""
    at = stream.index(b"\xff\xc3")
    bits, height, width = stream[at + 4], *(int.from_bytes(stream[at + i : at + i + 2], "big") for i in (5, 7))
    at = stream.index(b"\xff\xc4") + 5
    counts, symbols = stream[at : at + 16], iter(stream[at + 16 :])
    codes, code = {}, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            codes[length, code], code = next(symbols), code + 1
        code <<= 1
    at = stream.index(b"\xff\xda")
    predictor, body = stream[at + 7], stream[at + 10 : stream.rindex(b"\xff\xd9")].replace(b"\xff\0", b"\xff")
    digits = iter("".join(f"{byte:08b}" for byte in body))
    x = np.zeros((height, width), int)
    for i in range(height):
        for j in range(width):
            length = code = 0
            while (length, code) not in codes:
                length, code = length + 1, 2 * code + int(next(digits))
            size = codes[length, code]
            value = 32768 if size == 16 else int("".join(next(digits) for _ in range(size)) or "0", 2)
            if 0 < size < 16 and value < 1 << size - 1:
                value -= (1 << size) - 1
            if i and j:
                guess = x[i, j - 1] if predictor == 1 else x[i, j - 1] + x[i - 1, j] - x[i - 1, j - 1]
            else:
                guess = x[i - 1, j] if i else x[i, j - 1] if j else 1 << bits - 1
            x[i, j] = (guess + value) % 65536
    return x


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("predictor", [1, 4])
def test_jpeg_lossless_by_an_independent_decoder(bits, predictor):
    rng = np.random.default_rng(bits)
    smooth = np.cumsum(rng.integers(-3, 4, (9, 31)), axis=1) + (1 << bits - 1)
    extreme = rng.choice([0, (1 << bits) - 1, 1 << bits - 1], (9, 31))
    for stored in (smooth, extreme, extreme[:1], extreme[:, :1]):
        assert np.array_equal(decode(jpeg_lossless.encode(stored, bits, predictor=predictor)), stored)


def test_jpeg_lossless_is_smaller_where_neighbors_agree():
    y, x = np.mgrid[:300, :200]
    smooth = (2000 + 10 * np.sin(x / 9) + y).astype(np.uint16)
    assert len(jpeg_lossless.encode(smooth, 12)) < smooth.nbytes / 3
