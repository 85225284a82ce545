"""Pictures as gray values: windows, refusals, and masks."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mame_lib.data import raster
from mame_lib.data.raster import read_mask, read_raster
from mame_lib.errors import InputError
from tests.data.miniatures import breast, rectangle, write_dicom

BOX = (20, 30, 40, 60)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_8_bits_are_taken_as_they_are(tmp_path, suffix):
    pixels = breast(top=200, dtype=np.uint8)
    gray, facts = read_raster(save(tmp_path / f"a{suffix}", pixels))
    assert gray.dtype == np.float32 and not facts
    assert np.array_equal(np.rint(gray * 255), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("top", [900, 4095, 16383, 65535])
def test_16_bits_are_windowed_by_the_image(tmp_path, suffix, top):
    pixels = breast(top=top)
    gray, facts = read_raster(save(tmp_path / f"a{suffix}", pixels))
    window = np.percentile(pixels, 99.9)
    assert facts == {"window_high": pytest.approx(window)} and gray.dtype == np.float32
    assert np.allclose(gray, np.minimum(pixels / window, 1), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 11, 999, 1000, 1001, 5000])
def test_percentile_of_a_histogram_is_that_of_the_pixels(count):
    values = np.random.default_rng(count).integers(0, 65536, count).astype(np.uint16)
    counts = raster._histogram(values, 65536)
    assert counts.sum() == count
    assert raster._percentile(counts, 99.9) == pytest.approx(np.percentile(values, 99.9))


def test_one_hot_pixel_does_not_darken_a_deep_image(tmp_path):
    pixels = breast(top=4000)
    pixels[60, 40] = 65535
    gray, facts = read_raster(save(tmp_path / "a.png", pixels))
    assert facts["window_high"] < 5000 and gray.max() == 1 and np.median(gray[gray > 0]) > 0.3


def test_an_image_of_which_all_but_a_spot_is_0_is_windowed_by_its_maximum(tmp_path):
    pixels = np.zeros((100, 100), np.uint16)
    pixels[0, :5] = [100, 200, 300, 400, 500]
    gray, facts = read_raster(save(tmp_path / "a.png", pixels))
    assert facts["window_high"] == 500 and gray.max() == 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_other_depths(tmp_path, dtype):
    pixels = breast(top=3000).astype(dtype)
    pixels[0, 0] = -50
    gray, facts = read_raster(save(tmp_path / "a.tif", pixels))
    assert gray[0, 0] == 0 and facts["window_high"] == pytest.approx(np.percentile(pixels, 99.9), rel=1e-4)
    large, _ = read_raster(save(tmp_path / "b.tif", pixels * 100))
    assert np.allclose(gray, large, atol=1e-4)


def test_white_is_zero(tmp_path):
    pixels = breast(top=4000)
    path = save(tmp_path / "a.tif", pixels.max() - pixels, tiffinfo={262: 0})
    with Image.open(path) as picture:
        assert picture.tag_v2[262] == 0
    assert np.allclose(read_raster(path)[0], read_raster(save(tmp_path / "b.png", pixels))[0])


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA", "P", "CMYK"])
def test_gray_pictures_in_other_modes(tmp_path, mode):
    pixels = breast(top=255, dtype=np.uint8)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(pixels).convert(mode).save(path)
    assert np.abs(read_raster(path)[0] - pixels / 255).max() < 1.01 / 255


def png_of_size(width, height):
    """The beginning of a PNG file that promises so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    checked = header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + checked + b"\0\0\0\x09IDAT"


def test_refusals(tmp_path):
    breast8 = breast(top=255, dtype=np.uint8)
    save(tmp_path / "bits.png", breast8 > 100)
    save(tmp_path / "two.png", np.where(breast8 > 100, 255, 0).astype(np.uint8))
    save(tmp_path / "deep two.png", np.where(breast8 > 100, 65535, 0).astype(np.uint16))
    save(tmp_path / "black.png", np.zeros((50, 50), np.uint16))
    save(tmp_path / "nan.tif", np.full((50, 50), np.nan, np.float32))
    save(tmp_path / "photo.jpg", np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8))
    save(tmp_path / "frames.tif", breast8, save_all=True, append_images=[Image.fromarray(breast8)])
    (tmp_path / "large.png").write_bytes(png_of_size(10_000, 8_001))
    (tmp_path / "bomb.png").write_bytes(png_of_size(30_000, 30_000))
    (tmp_path / "empty.png").touch()
    (tmp_path / "words.jpg").write_text("hello")
    (tmp_path / "cut.png").write_bytes(save(tmp_path / "whole.png", breast8).read_bytes()[:300])
    expected = {
        "bits.png": "two gray levels",
        "two.png": "two gray levels",
        "deep two.png": "two gray levels",
        "black.png": "all 0",
        "nan.tif": "not finite",
        "photo.jpg": "color picture",
        "frames.tif": "several frames",
        "large.png": "too many pixels",
        "bomb.png": "too many pixels",
        "empty.png": "cannot be read as an image",
        "words.jpg": "cannot be read as an image",
        "cut.png": "cannot be read as an image",
        "gone.png": "cannot be opened: No such file",
    }
    for name, words in expected.items():
        with pytest.raises(InputError) as caught:
            read_raster(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: it ") or name in ("black.png", "nan.tif")
        assert words in str(caught.value), name


# ── Masks ──


@pytest.mark.parametrize("form", ["L", "1", "RGB", "RGBA", "P", "labels", "deep", "dicom"])
def test_masks_of_every_form(tmp_path, form):
    mask = rectangle(BOX)
    path = tmp_path / ("a.dcm" if form == "dicom" else "a.png")
    if form == "dicom":
        pytest.importorskip("pydicom")
        write_dicom(path, mask)
    elif form == "labels":
        save(path, mask // 255)  # 0 and 1: black to the eye
    elif form == "deep":
        save(path, mask.astype(np.uint16) * 200)
    elif form == "RGBA":  # red on a transparent, white background
        color = np.full((*mask.shape, 4), 255, np.uint8)
        color[..., 1:3] = np.where(mask[..., None] > 0, 0, 255)
        color[..., 3] = mask
        save(path, color)
    else:
        Image.fromarray(mask).convert(form).save(path)
    found = read_mask(path)
    assert found.dtype == bool and np.array_equal(found, mask > 0)


def test_swinging_edges_of_a_jpeg_are_cut_at_half(tmp_path):
    mask = rectangle(BOX)
    path = save(tmp_path / "a.jpg", mask, quality=60)
    with Image.open(path) as picture:
        assert np.count_nonzero(np.asarray(picture)) > 1.2 * np.count_nonzero(mask)
    assert np.mean(read_mask(path) != (mask > 0)) < 0.002


def test_masks_that_are_none(tmp_path):
    save(tmp_path / "empty.png", rectangle((0, 0, 0, 0)))
    save(tmp_path / "faint.jpg", rectangle(BOX, value=90))
    save(tmp_path / "full.png", np.full((50, 50), 255, np.uint8))
    (tmp_path / "words.png").write_text("hello")
    (tmp_path / "words.dcm").write_text("hello")
    for name, words in {
        "empty.png": "is empty",
        "faint.jpg": "is empty",
        "full.png": "covers everything",
        "words.png": "cannot be read as an image",
        "words.dcm": "cannot be read",
        "gone.png": "cannot be opened",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_mask(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: its lesion mask ")
