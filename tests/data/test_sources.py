"""Sources: phantoms, and folders of anything, of which no patient may be recognized."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mame_lib.data.case import Attributes
from mame_lib.data.manifest import Item, Quarantined, load, write
from mame_lib.data.sources import folder_source, from_name, phantom_source
from mame_lib.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "mammograms"


def breast(height=160, width=120, top=255, right=False, dtype=np.uint8):
    """A half ellipse on the chest wall, brighter inside, on a black background."""
    y, x = np.mgrid[0:height, 0:width]
    radius = np.hypot((y - height / 2) / (height / 2.4), x / (width / 1.6))
    picture = np.where(radius < 1, (1.2 - radius) / 1.2 * top, 0).astype(dtype)
    return np.ascontiguousarray(picture[:, ::-1]) if right else picture


def save(path, pixels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(breast() if pixels is None else pixels).save(path)
    return path


def only(items):
    (item,) = items
    return item


def test_phantom_source():
    items = list(phantom_source(3, size=64, seed=5))
    again = list(phantom_source(3, size=64, seed=5))
    assert len({item.patient for item in items}) == 3
    for item, other in zip(items, again, strict=True):
        assert item.image.shape == (64, 64) and item.image.dtype == np.uint8
        assert np.array_equal(item.image, other.image) and item.prompt == other.prompt
        assert ("area" in item.prompt) == (item.attributes.vendor == "hologic")
        assert ("density" in item.prompt) == (item.attributes.vendor == "siemens")
        assert item.mask is not None and item.truth is not None
        assert item.truth["area_ratio"] == pytest.approx(item.mask.mean(), abs=1e-6)


@pytest.mark.parametrize(
    "arguments", [(0, 64, 0), (-1, 64, 0), (1, 63, 0), (1, 100, 0), (1, 4096, 0), (1, 64, -1)]
)
def test_phantom_source_refuses_at_once(arguments):
    with pytest.raises(InputError):
        phantom_source(*arguments)


def test_a_picture_becomes_a_left_facing_square(tmp_path):
    save(tmp_path / "P102_R_DM_MLO.png", breast(right=True))
    item = only(folder_source(tmp_path, 64))
    assert isinstance(item, Item)
    assert item.image.shape == (64, 64) and item.image.dtype == np.uint8
    assert item.image[32, 2] > 150 and item.image[32, 60] == 0
    assert item.attributes.view == "MLO" and item.attributes.laterality == "R"
    assert item.truth is not None and item.truth["flipped"] == 1
    assert item.prompt == f"a mammogram in MLO view with {item.attributes.area} area"
    assert item.mask is not None and item.mask.mean() == item.truth["area_ratio"]


def test_16_bits_are_windowed_by_the_image_not_by_the_type(tmp_path):
    for name, top in (("8.png", 255), ("12.png", 4095), ("16.png", 65535)):
        save(tmp_path / name, breast(top=top, dtype=np.uint8 if top == 255 else np.uint16))
    images = {}
    for item in folder_source(tmp_path, 64, salt=b""):
        assert isinstance(item, Item) and item.truth is not None
        images[item.truth.get("window_high", 255.0)] = item.image.astype(int)
    assert len(images) == 3 and set(images) > {255.0}
    eight, *deep = (images[key] for key in sorted(images))
    for image in deep:
        assert np.abs(image - eight).max() <= 15  # 99.9th percentile instead of the maximum


def test_one_hot_pixel_does_not_darken_a_deep_image(tmp_path):
    pixels = breast(top=4000, dtype=np.uint16)
    pixels[80, 60] = 65535
    save(tmp_path / "a.png", pixels)
    item = only(folder_source(tmp_path, 64))
    assert (
        isinstance(item, Item) and item.truth and item.truth["window_high"] < 5000 and item.image.max() > 240
    )


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA", "P"])
def test_gray_pictures_in_other_modes(tmp_path, mode):
    Image.fromarray(breast()).convert(mode).save(tmp_path / "a.png")
    Image.fromarray(breast()).save(tmp_path / "b.png")
    first, second = folder_source(tmp_path, 64)
    assert isinstance(first, Item) and isinstance(second, Item)
    assert np.abs(first.image.astype(int) - second.image).max() <= 1


def test_bad_files_are_quarantined_and_the_rest_goes_on(tmp_path):
    save(tmp_path / "good.png")
    save(tmp_path / "sub" / "deep.tiff")
    save(tmp_path / "masks" / "x.png")
    save(tmp_path / "sub" / "MASK" / "x.png")
    save(tmp_path / "x_mask.png")
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".thumbnails" / "x.png")
    save(tmp_path / "black.png", np.zeros((100, 100), np.uint8))
    save(tmp_path / "black16.png", np.zeros((100, 100), np.uint16))
    save(tmp_path / "tiny.png", breast(20, 20))
    save(tmp_path / "bits.png", breast() > 100)
    save(tmp_path / "photo.jpg", np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8))
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.jpg").write_text("hello")
    (tmp_path / "words.dcm").write_text("hello")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "README").write_text("hello")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    items = list(folder_source(tmp_path, 64))
    assert sum(isinstance(item, Item) for item in items) == 2
    reasons = {item.file: item.reason for item in items if isinstance(item, Quarantined)}
    expected = {
        "masks": "masks",
        "sub/MASK": "masks",
        "x_mask.png": "mask",
        "black.png": "same gray",
        "black16.png": "all 0",
        "tiny.png": "20 x 20",
        "bits.png": "two gray levels",
        "photo.jpg": "color",
        "empty.png": "cannot be read",
        "words.jpg": "cannot be read",
        "words.dcm": "not a DICOM",
        "cut.png": "cannot be read",
        "gone.png": "cannot be opened: No such file",
    }
    assert set(reasons) == set(expected)
    for file, words in expected.items():
        assert words in reasons[file], (file, reasons[file])
        assert str(tmp_path) not in reasons[file]


def test_all_bad_or_empty_leaves_nothing(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(InputError, match="no image"):
        write(tmp_path / "out", folder_source(source), source="folder", settings={})
    (source / "a.png").touch()
    with pytest.raises(InputError, match=r"a\.png: it cannot be read"):
        write(tmp_path / "out", folder_source(source), source="folder", settings={})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_source_that_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        folder_source(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a folder"):
        folder_source(save(tmp_path / "a.png"))
    with pytest.raises(InputError, match="multiple of 8"):
        folder_source(tmp_path, 100)


@pytest.mark.parametrize(
    "name, patient, view, side",
    [
        ("P102_R_DM_MLO.jpg", "p102", "MLO", "R"),
        ("nyu_1_L_CC.png", "nyu_1", "CC", "L"),
        ("1_LCC.png", "1", "CC", "L"),
        ("7-left-mlo.png", "7", "MLO", "L"),
        ("p7/L_CC.png", "p7", "CC", "L"),
        ("p7/img_RMLO.png", "p7/img", "MLO", "R"),
        ("scan0031.png", "scan0031", None, None),
        ("5_L_R_CC_MLO.png", "5", None, None),
        ("success_r2.png", "./success_r2", None, None),
    ],
)
def test_file_names(name, patient, view, side):
    identity, attributes = from_name(Path(name))
    assert identity == patient.removeprefix("./")
    assert attributes == Attributes(view=view, laterality=side)


def test_all_images_of_a_patient_have_one_pseudonym(tmp_path):
    for name in ("P1_L_CC", "P1_R_MLO", "P2_L_CC"):
        save(tmp_path / f"{name}.png")
    first, second, third = (item.patient for item in folder_source(tmp_path, 64) if isinstance(item, Item))
    assert first == second != third and "p1" not in first.lower()
    assert first not in [item.patient for item in folder_source(tmp_path, 64) if isinstance(item, Item)]
    salted = [
        [item.patient for item in folder_source(tmp_path, 64, salt=b"x") if isinstance(item, Item)]
        for _ in "ab"
    ]
    assert salted[0] == salted[1]


def test_dicom_in_a_folder_and_no_trace_of_the_patient(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pixels = breast(top=4000, right=True, dtype=np.uint16)
    secrets = {
        "PatientName": "Doe^Secret",
        "PatientID": "ID-4711",
        "PatientBirthDate": "19500102",
        "AccessionNumber": "ACC99",
        "InstitutionName": "Hospital of Nowhere",
        "StudyInstanceUID": "1.2.3.4.5.6.7",
        "SOPInstanceUID": "1.2.3.9.8.7",
    }
    public = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "Manufacturer": "SIEMENS",
        "ViewPosition": "CC",
        "ImageLaterality": "R",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "ImagerPixelSpacing": [0.085, 0.085],
        "PixelData": pixels.tobytes(),
    }
    for name, value in (secrets | public).items():
        setattr(dataset, name, value)
    source = tmp_path / "Secret Doe"
    source.mkdir()
    for name in ("Doe_Secret_4711.dcm", "IM0001", "1.2.840.7"):  # with and without an extension
        dataset.save_as(source / name, enforce_file_format=True)
    (source / "bad.png").touch()
    write(tmp_path / "out", folder_source(source, 64), source="folder", settings={})
    manifest = load(tmp_path / "out")
    assert len(manifest.cases) == 3 and len({case.patient for case in manifest.cases}) == 1
    case = manifest.cases[0]
    assert case.attributes.vendor == "siemens" and case.prompt == "a siemens mammogram in CC view"
    assert case.truth is not None and case.truth["pixel_mm"] == pytest.approx(0.085 * 120 / 64, rel=0.02)
    words = [*secrets.values(), "Doe", "Secret", "4711", "IM0001", str(source)]
    for path in (tmp_path / "out").rglob("*"):
        assert not any(word in path.name for word in words)
        if path.is_file():
            content = path.read_bytes()
            assert not any(word.encode() in content for word in words), path


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_closed_folder_is_reported(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    items = list(folder_source(tmp_path, 64))
    assert Quarantined("closed", "the folder cannot be opened") in items


@pytest.mark.skipif(not REAL.is_dir(), reason="the real mammograms are not here")
def test_real_mammograms(tmp_path):
    write(tmp_path / "out", folder_source(REAL, 128), source="folder", settings={})
    manifest = load(tmp_path / "out")
    assert len(manifest.cases) == 10 and len(manifest.info["quarantined"]) == 6
    for case in manifest.cases:
        assert case.attributes.view and case.attributes.laterality and case.truth
        assert case.truth["flipped"] == (
            case.attributes.laterality == "R"
        )  # pixels agree with the file names
        image = manifest.image(case)
        assert image[:, :8].mean() > 20 and image[:, -8:].mean() < 20
