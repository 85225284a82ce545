"""Reading DICOM files: every transfer syntax, refusals, limits, and nothing of the patient."""

import dataclasses
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from mame_lib.data import codestreams, dicom, jpeg_lossless
from mame_lib.data.case import Attributes
from mame_lib.data.dicom_export import SYNTAXES, save_dicom
from mame_lib.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

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
    assert image.spacing == (0.07, 0.065) and image.maker == "hologic"
    assert image.facts == {"bits_stored": 12, "output_low": 0, "output_high": 4095, "white_point": 4095}


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"Manufacturer": "SIEMENS"}, Attributes("siemens", "MLO", laterality="R")),
        ({"Manufacturer": "GE MEDICAL SYSTEMS"}, Attributes(None, "MLO", laterality="R")),
        ({"Manufacturer": None, "ImageLaterality": None, "ViewPosition": None}, Attributes()),
        ({"ImageLaterality": "B", "ImagerPixelSpacing": None}, Attributes("hologic", "MLO")),
    ],
)
def test_what_is_unknown_stays_unsaid(path, fields, expected):
    assert dicom.read(save(path, **fields)).attributes == expected


def test_intensity_rules(path):
    save(path, Manufacturer="SIEMENS")
    for intensity, white in {"vendor": 3500, "3500": 3500, "range": 4095, "4095": 4095}.items():
        image = dicom.read(path, intensity=intensity)
        assert np.allclose(image.pixels, np.minimum(RAMP / white, 1), atol=1e-6)
        assert image.facts["white_point"] == pytest.approx(white)
    with pytest.raises(InputError, match="intensity 'max' is unknown"):
        dicom.read(path, intensity="max")


def test_raw_data_by_their_logarithm(path):
    x = np.arange(64) / 63
    exposure = np.broadcast_to(np.rint(4000 * np.exp(-2 * x)), (64, 64)).astype(np.uint16)
    save(path, exposure, PresentationIntentType="FOR PROCESSING", PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(InputError, match="FOR PROCESSING"):
        dicom.read(path)
    pixels = dicom.read(path, for_processing="log").pixels
    assert pixels[:, 0].max() == 0 and np.allclose(pixels[0], x, atol=0.03)
    with pytest.raises(InputError, match="for_processing 'maybe' is unknown; use refuse or log"):
        dicom.read(path, for_processing="maybe")
    assert np.allclose(dicom.read(save(path), for_processing="log").pixels, RAMP / 4095)  # no raw data: as always


NEEDS = {"jpeg-lossless": "gdcm", "jpeg-lossless-sv1": "gdcm", "jpeg-ls": "jpeg_ls", "jpeg-2000": "openjpeg"}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_every_transfer_syntax_is_exact(path, syntax, bits, photometric):
    if syntax in NEEDS:
        pytest.importorskip(NEEDS[syntax])
    # odd sides, so that odd lengths are padded, and every value from the smallest to the largest
    stored = np.random.default_rng(bits).integers(0, 1 << bits, (37, 53))
    pixels = stored / ((1 << bits) - 1)
    save_dicom(path, pixels, attributes=Attributes("hologic", "CC"), spacing_mm=0.1, bits=bits,
               photometric=photometric, transfer_syntax=syntax)  # fmt: skip
    read = dicom.read(path).pixels
    assert np.array_equal(np.rint(read * ((1 << bits) - 1)).astype(int), stored)


@pytest.mark.parametrize("syntax", ["jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000", "rle"])
def test_signed_compressed_pixels(path, syntax):
    if syntax in NEEDS:
        pytest.importorskip(NEEDS[syntax])
    signed = (RAMP.astype(np.int16) - 2048) & 0x0FFF
    save_dicom(path, signed / 4095, attributes=Attributes(), spacing_mm=0.1, transfer_syntax=syntax,
               fields={"PixelRepresentation": 1, "WindowCenter": None, "WindowWidth": None})  # fmt: skip
    assert np.allclose(dicom.read(path).pixels, RAMP / 4095)


def test_patients_are_hashed_with_salt(path, tmp_path):
    other = save(tmp_path / "other.dcm", PatientID="ID-4712")
    save(path)
    first = dicom.read(path, salt=b"a").patient
    assert len(first) == 16 and int(first, 16) >= 0
    assert first == dicom.read(path, salt=b"a").patient != dicom.read(path, salt=b"b").patient
    assert first != dicom.read(other, salt=b"a").patient
    assert dicom.read(path).patient != dicom.read(path).patient
    named = dicom.read(path, salt=b"a", patient="study 9").patient
    assert named == dicom.read(other, salt=b"a", patient="study 9").patient != first


def test_study_stands_in_for_a_missing_patient(path, tmp_path):
    other = save(tmp_path / "other.dcm", PatientID=None)
    save(path, PatientID=None)
    assert dicom.read(path, salt=b"a").patient == dicom.read(other, salt=b"a").patient


def test_nothing_else_leaves(path):
    image = dicom.read(save(path))
    names = {field.name for field in dataclasses.fields(image)}
    assert names == {"pixels", "attributes", "patient", "spacing", "facts", "maker"}
    text = repr((image.attributes, image.patient, image.spacing, image.facts, image.maker))
    assert not any(word in text for word in ("Doe", "Secret", "4711", "1950", "1.2.3"))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"ViewPosition": "XCCL"}, "its view is XCCL"),
        ({"PixelData": None}, "no pixel data"),
        ({"PixelData": b"\0\0"}, "do not fit"),
        ({"Rows": 0}, "0 rows"),
        ({"Columns": None}, "how many rows and columns"),
        ({"BitsAllocated": 32}, "allocates 32 bits"),
        ({"Rows": 30000, "Columns": 30000}, "at most 80 million"),
        ({"syntax": RLELossless, "PixelData": encapsulate([b"nonsense"])}, "are cut off"),
        ({"syntax": RLELossless, "PixelData": encapsulate([b"nonsense" * 99])}, "damaged"),
        ({"syntax": UID("1.2.840.10008.1.2.4.70"), "PixelData": encapsulate([b"nonsense"])}, "no JPEG in them"),
        ({"syntax": UID("1.2.840.10008.1.2.4.90"), "PixelData": encapsulate([b"nonsense"])}, "no JPEG 2000"),
        ({"syntax": UID("1.2.840.10008.1.2.4.103"), "PixelData": encapsulate([b"video"])}, "none of a still image"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "grayscale transform"),
    ],
)
def test_refusals(path, fields, words):
    with pytest.raises(InputError, match=words) as caught:
        dicom.read(save(path, **fields))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_compressed_stream_must_be_the_image_of_the_header(path):
    syntax = UID(SYNTAXES["jpeg-lossless-sv1"])
    huge = np.zeros((1, 64), np.uint16)
    stream = bytearray(jpeg_lossless.encode(huge, 12))
    stream[stream.index(b"\xff\xc3") + 5 : stream.index(b"\xff\xc3") + 9] = b"\xff\xff\xff\xff"
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"65535 x 65535 pixels .* header states one of 64 x 64"):
        dicom.read(save(path, syntax=syntax, PixelData=encapsulate([bytes(stream)])))
    assert time.perf_counter() - start < 1
    whole = jpeg_lossless.encode(RAMP, 12)
    with pytest.raises(InputError, match="cut off"):
        dicom.read(save(path, syntax=syntax, PixelData=encapsulate([whole[:900]])))
    with pytest.raises(InputError, match="has 12 bits a pixel, its header 8"):
        dicom.read(save(path, syntax=syntax, bits=8, BitsAllocated=8, PixelData=encapsulate([whole])))


def test_headers_of_streams_that_native_decoders_fall_over():
    whole = jpeg_lossless.encode(RAMP, 12)
    codestreams.check_jpeg(whole, 16, 64, 64)
    table, scan = whole.index(b"\xff\xc4"), whole.index(b"\xff\xda")

    def patched(at, value):
        return whole[:at] + bytes([value]) + whole[at + 1 :]

    for stream, words in [
        (patched(table + 5, 3), "strange Huffman table"),  # three codes of one bit
        (patched(scan + 7, 9), "strange scan header"),  # no such predictor
        (patched(table + 2, 0xFF), "marker of false length"),
        (patched(table + 1, 0xDC), "strange marker"),
        (whole[:2] + whole[table:], "no frame header"),
        (patched(2, 0), "bytes between markers"),
    ]:
        with pytest.raises(InputError, match=words):
            codestreams.check_jpeg(stream, 16, 64, 64)
    siz = b"\xff\x4f\xff\x51\0\x29\0\0" + b"".join(v.to_bytes(4, "big") for v in (64, 64, 0, 0, 1, 1, 0, 0))
    many = siz + b"\0\1\x0b\1\1" + b"\xff\xd9"
    codestreams.check_jpeg2000(many, 16, 64, 64)  # 4096 tiles
    with pytest.raises(InputError, match="tiles without number"):
        codestreams.check_jpeg2000(many.replace(b"\0\0\0\x40", b"\0\1\0\0"), 16, 65536, 65536)


def test_damaged_jpeg_is_refused_in_silence(path, capfd):
    pytest.importorskip("gdcm")
    stream = bytearray(jpeg_lossless.encode(RAMP, 12))
    body = stream.index(b"\xff\xda") + 10
    stream[body : body + 60] = b"\xff\xd8" * 30
    save(path, syntax=UID(SYNTAXES["jpeg-lossless-sv1"]), PixelData=encapsulate([bytes(stream)]))
    try:
        assert dicom.read(path).pixels.shape == (64, 64)
    except InputError as error:
        assert "cannot be decoded" in str(error)
    assert capfd.readouterr() == ("", "")


def test_a_missing_decoder_gives_the_install_line(path, monkeypatch):
    from pydicom.pixels.decoders.base import Decoder

    save(path, syntax=UID(SYNTAXES["jpeg-lossless-sv1"]), PixelData=encapsulate([jpeg_lossless.encode(RAMP, 12)]))
    monkeypatch.setattr(Decoder, "available_plugins", property(lambda self: ()))
    with pytest.raises(InputError, match=r"no decoder .* is installed; get one with: pip install python-gdcm"):
        dicom.read(path)


def test_a_deflated_bomb_is_not_unfolded(path):
    whole = save(path, syntax=UID(SYNTAXES["deflated"])).read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    pack = zlib.compressobj(wbits=-15)
    bomb = pack.compress(zlib.decompress(whole[start:], -15))
    for _ in range(16):
        bomb += pack.compress(bytes(2**24))
    path.write_bytes(whole[:start] + bomb + pack.flush())
    assert path.stat().st_size < 10**6
    with pytest.raises(InputError, match="unfolds to more bytes"):
        dicom.read(path)


def test_a_file_far_larger_than_its_image_is_not_read(path):
    with save(path).open("r+b") as file:
        file.truncate(2**30)  # sparse: no disk is used
    start = time.perf_counter()
    with pytest.raises(InputError, match="far larger than the image"):
        dicom.read(path)
    assert time.perf_counter() - start < 1


def test_a_file_as_vindr_mammo_has_it(path):
    """Its de-identification leaves UIDs that are none, no SOP class, no patient, and several windows."""
    fields = dict.fromkeys(("SOPClassUID", "SOPInstanceUID", "PatientName", "PatientID", "PatientBirthDate"))
    fields |= {"StudyInstanceUID": "3f22cdda8da215e3f22cdda8da215e00", "Manufacturer": "Planmed",
               "PhotometricInterpretation": "MONOCHROME1", "WindowCenter": [2048, 1500], "WindowWidth": [4096, 900],
               "WindowCenterWidthExplanation": ["NORMAL", "HARDER"], "PixelPaddingValue": 4095}  # fmt: skip
    save(path, **fields)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.3.4"
    dataset.save_as(path)
    image = dicom.read(path, salt=b"a")
    assert image.attributes == Attributes(None, "MLO", laterality="R") and image.maker == "planmed"
    assert image.patient == dicom.pseudonym("3f22cdda8da215e3f22cdda8da215e00", b"a")
    assert np.allclose(image.pixels, 1 - RAMP / 4095, atol=1e-6)


def test_film_is_accepted_when_it_shows_a_breast(path):
    fields = {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1", "PresentationIntentType": None}
    assert dicom.read(save(path, **fields)).attributes.view == "MLO"


def test_files_that_are_no_dicom(path, tmp_path):
    path.write_text("I am a text file.\n" * 100)
    with pytest.raises(InputError, match="not a DICOM file"):
        dicom.read(path)
    with pytest.raises(InputError, match="no such file"):
        dicom.read(tmp_path / "nothing.dcm")
    with pytest.raises(InputError, match="cannot be opened"):
        dicom.read(tmp_path)
    whole = save(path).read_bytes()
    for size in range(0, 1200, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            dicom.read(path)


def test_missing_pydicom_gives_the_install_line(path, monkeypatch):
    save(path)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'pip install "pydicom>=3"'):
        dicom.read(path)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real headers are not here")
def test_real_headers(tmp_path):
    for name, words in {
        "GE_Seno_1_ForPresentation": "stereotactic or biopsy",  # protocol STEREO, a field of 79 x 99 mm
        "GE_Seno_2_ForPresentation": "stereotactic or biopsy",
        "GE_Seno_1_ForProcessing": "FOR PROCESSING",
        "GE-SenDS-scaled": "FOR PROCESSING",
        "Hologic-PropProj": "test object",  # quality control image YES, view FLATFIELD
    }.items():
        with pytest.raises(InputError, match=words):
            dicom.read(REAL / f"openrem_MG-Im-{name}.dcm")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real headers are not here")
@pytest.mark.parametrize("number, first", [(1, 1405), (2, 935)])
def test_real_grayscale(tmp_path, number, first):
    """The same headers, had the protocol been another: three LUTs and three sigmoid windows, the first LUT counts."""
    dataset = pydicom.dcmread(REAL / f"openrem_MG-Im-GE_Seno_{number}_ForPresentation.dcm")
    dataset.ProtocolName = "ROUTINE"
    stored = dataset.pixel_array.astype(int)
    dataset.save_as(tmp_path / "x.dcm")
    image = dicom.read(tmp_path / "x.dcm")
    assert image.attributes == Attributes(view="CC", laterality="L") and image.maker == "ge"
    table = np.array(dataset.VOILUTSequence[0].LUTData)
    expected = table[np.clip(stored - first, 0, len(table) - 1)] / 4095
    assert image.pixels.shape == (1, 2) and np.allclose(image.pixels, np.where(stored == 0, 0, expected))
