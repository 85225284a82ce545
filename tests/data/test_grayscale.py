"""The grayscale chain: known answers, pydicom as the judge, and the intensity rules of the paper."""

import numpy as np
import pytest

from mame_lib.data import dicom_raw, grayscale
from mame_lib.errors import InputError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi_lut  # noqa: E402

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def header(bits=12, allocated=16, signed=0, photometric="MONOCHROME2", **fields):
    dataset = Dataset()
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = signed, photometric
    for name, value in fields.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def lut(entries, first=0, bits=16, data=None):
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = [int(v) for v in entries] if data is None else data
    item["LUTData"].VR = "US" if data is None else "OW"
    return [item]


def shown(stored, dataset, **settings):
    return grayscale.display(stored, dataset, **settings)[0]


WINDOWS = [
    {"WindowCenter": 2000, "WindowWidth": 1000},
    {"WindowCenter": 2000.5, "WindowWidth": 1},
    {"WindowCenter": [700, 100], "WindowWidth": [333, 10]},
    {"WindowCenter": 2000, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 1234, "WindowWidth": 777, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 2262, "WindowWidth": 380, "VOILUTFunction": "SIGMOID"},
    {"VOILUTSequence": lut(np.sqrt(np.arange(1000) / 999) * 4095, first=500, bits=12)},
    {},
]
MODALITIES = [
    {},
    {"RescaleSlope": 2, "RescaleIntercept": -100},
    {"RescaleSlope": -0.5, "RescaleIntercept": 3000},
    {"ModalityLUTSequence": lut(65535 - np.arange(4096) * 16)},
]


@pytest.mark.parametrize("voi", WINDOWS)
@pytest.mark.parametrize("modality, signed", [(m, 0) for m in MODALITIES] + [(m, 1) for m in MODALITIES[:3]])
def test_every_chain_agrees_with_pydicom(voi, modality, signed):
    stored = RAMP.astype(np.int16) - 2048 if signed else RAMP
    dataset = header(signed=signed, **voi, **modality)
    pixels, facts = grayscale.display(stored, dataset, intensity="range")
    values = apply_modality_lut(stored.astype(np.int64), dataset)
    if "VOILUTSequence" in voi:  # pydicom would wrap negative and fractional inputs
        values = np.clip(np.rint(values), 0, 65535).astype(np.int64)
    values = apply_voi_lut(values, dataset)
    expected = (values - facts["output_low"]) / (facts["output_high"] - facts["output_low"])
    if modality.get("RescaleSlope", 1) < 0 and "WindowCenter" in voi:
        expected = 1 - expected  # there pydicom 3.0 turns a window around; PS3.3 has its output rise with its input
    assert np.allclose(pixels, expected, atol=1e-6)
    assert facts["bits_stored"] == 12


@pytest.mark.parametrize("voi", WINDOWS)
def test_output_range_is_that_of_the_transform(voi):
    pixels, facts = grayscale.display(RAMP, header(**voi), intensity="range")
    assert (facts["output_low"], facts["output_high"]) == (0, 4095)
    dark = shown(RAMP // 2, header(**voi), intensity="range")  # not by the brightest pixel
    assert np.array_equal(dark, pixels.ravel()[RAMP // 2])


@pytest.mark.parametrize("bits, allocated", [(8, 8), (8, 16), (10, 16), (12, 16), (14, 16), (16, 16)])
@pytest.mark.parametrize("signed", [False, True])
def test_every_depth(bits, allocated, signed):
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    low = -(1 << bits - 1) if signed else 0
    stored = (np.arange(1 << bits) + low).astype(kind).reshape(16, -1)
    pixels = shown(stored, header(bits, allocated, int(signed)))
    assert pixels.dtype == np.float32
    assert np.allclose(pixels.ravel(), np.arange(1 << bits) / ((1 << bits) - 1))


def test_signed_values_without_sign_extension():
    stored = (RAMP.astype(np.int16) - 2048) & 0x0FFF  # -1 as 0x0FFF, as PS3.5 has it
    assert np.allclose(shown(stored, header(signed=1)), RAMP / 4095)


def test_high_bit_shifts():
    assert np.allclose(shown(RAMP << 4, header(HighBit=15)), RAMP / 4095)


def test_an_overlay_in_the_high_bits_is_masked():
    dataset = header()
    dataset.add_new(0x60000102, "US", 12)
    stored = RAMP | (np.uint16(1 << 12) * (RAMP % 2))
    assert np.allclose(shown(stored, dataset), RAMP / 4095)


def test_stray_values_beyond_the_bits_are_clipped_not_wrapped():
    stored = RAMP.copy()
    stored[0, :30] = 4096 + np.arange(30)  # 0.7 % of the pixels
    pixels = shown(stored, header())
    assert (pixels[0, :30] == 1).all() and np.allclose(pixels[1:], RAMP[1:] / 4095)
    stored[0] = 5000
    with pytest.raises(InputError, match="do not fit the 12 bits"):
        shown(stored, header())
    assert (shown(stored, header(PixelPaddingValue=5000))[0] == 0).all()  # padding may lie beyond


@pytest.mark.parametrize("modality", MODALITIES[:3])
@pytest.mark.parametrize("voi", WINDOWS)
def test_monochrome1_is_inverted_about_the_range(voi, modality):
    dark = RAMP // 2
    normal = shown(dark, header(**voi, **modality), intensity="range")
    inverted = shown(dark, header(photometric="MONOCHROME1", **voi, **modality), intensity="range")
    assert np.allclose(inverted, 1 - normal, atol=1e-6)


@pytest.mark.parametrize(
    "value, limit, black",
    [
        (0, None, lambda v: v == 0),
        (4095, None, lambda v: v == 4095),
        (4000, 4095, lambda v: v >= 4000),
        (4095, 4000, lambda v: v >= 4000),
        (9999, None, lambda v: v < 0),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black(value, limit, black, photometric):
    fields = {"WindowCenter": 10, "WindowWidth": 5, "photometric": photometric}
    padding = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    pixels, plain = shown(RAMP, header(**fields, **padding)), shown(RAMP, header(**fields))
    assert (pixels[black(RAMP)] == 0).all() and np.array_equal(pixels[~black(RAMP)], plain[~black(RAMP)])


@pytest.mark.parametrize("signed, value, stated", [(1, -2000, 63536), (1, -2000, -2000), (0, 63536, -2000)])
def test_padding_with_the_wrong_sign(signed, value, stated):
    stored = (np.full((8, 8), 100)).astype(np.int16 if signed else np.uint16)
    stored[:4] = value
    dataset = header(bits=16, signed=signed, RescaleSlope=-1, RescaleIntercept=0)
    dataset.add_new("PixelPaddingValue", "SL", stated)
    pixels = shown(stored, dataset)
    assert (pixels[:4] == 0).all() and (pixels[4:] > 0).all()


VECTORS = {"4095": [(0, 0), (2048, 128), (4095, 255), (4200, 255)], "3500": [(1750, 128), (3500, 255), (4000, 255)]}


@pytest.mark.parametrize("intensity", VECTORS)
def test_the_papers_divisors_clip_and_round(intensity):
    values, expected = zip(*VECTORS[intensity], strict=True)
    pixels, facts = grayscale.display(np.array([values], np.uint16), header(bits=16), intensity=intensity)
    assert np.rint(pixels * 255).astype(np.uint8).tolist() == [list(expected)]
    assert facts["white_point"] == float(intensity)


@pytest.mark.parametrize(
    "vendor, fields, white",
    [
        ("siemens", {}, 3500),
        ("siemens", {"VOILUTSequence": lut(np.arange(4096), bits=12)}, 3500),
        ("siemens", {"WindowCenter": 2048, "WindowWidth": 4096}, 4095),  # a window says itself what is white
        ("siemens", {"bits": 14}, 16383 * 3500 / 4095),
        ("hologic", {}, 4095),
        (None, {}, 4095),
    ],
)
def test_white_point_of_the_vendor(vendor, fields, white):
    pixels, facts = grayscale.display(RAMP, header(**fields), vendor=vendor)
    assert facts["white_point"] == pytest.approx(white)
    assert np.allclose(pixels, np.minimum(RAMP / white, 1), atol=1e-6)


def test_white_point_of_monochrome1_is_applied_after_inversion():
    pixels = shown(4095 - RAMP, header(photometric="MONOCHROME1"), intensity="3500")
    assert np.allclose(pixels, np.minimum(RAMP / 3500, 1), atol=1e-6)


def test_voi_lut_wins_over_a_window_and_an_emptied_one_does_not():
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    table = lut(4095 - np.arange(4096), bits=12)
    assert np.allclose(shown(RAMP, header(VOILUTSequence=table, **window)), 1 - RAMP / 4095)
    del table[0].LUTData
    assert np.array_equal(shown(RAMP, header(VOILUTSequence=table, **window)), shown(RAMP, header(**window)))


@pytest.mark.parametrize(
    "item",
    [
        lut(range(200), bits=8, data=bytes(range(200))),
        lut(range(200), bits=8, data=np.arange(200, dtype="<u2").tobytes()),
    ],
)
def test_tables_of_eight_bits_do_not_wrap(item):
    assert np.allclose(shown(RAMP, header(VOILUTSequence=item)), np.minimum(RAMP, 199) / 255)


@pytest.mark.parametrize("largest, top", [(4000, 4095), (4095, 4095), (4096, 8191), (30000, 32767), (65535, 65535)])
def test_a_table_that_states_its_container_uses_the_bits_it_needs(largest, top):
    table = lut(np.linspace(0, largest, 4096))
    facts = grayscale.display(RAMP, header(VOILUTSequence=table), intensity="range")[1]
    assert facts["output_high"] == top


def test_a_table_of_65536_entries_and_one_with_a_negative_first_input():
    stored = np.array([[0, 40000, 65535]], np.uint16)
    table = lut(65535 - np.arange(65536))
    assert table[0].LUTDescriptor[0] == 0
    assert np.allclose(shown(stored, header(bits=16, VOILUTSequence=table)), 1 - stored / 65535)
    table = lut(np.arange(4096), first=-2048, bits=12)
    signed = RAMP.astype(np.int16) - 2048
    assert np.allclose(shown(signed, header(signed=1, VOILUTSequence=table)), RAMP / 4095)


def test_half_a_rescale_counts_as_its_neutral_half():
    assert np.allclose(shown(RAMP, header(RescaleSlope=3)), RAMP / 4095)
    assert np.allclose(shown(RAMP, header(RescaleIntercept=-7)), RAMP / 4095)
    assert np.allclose(shown(RAMP, header(WindowCenter=7)), RAMP / 4095)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"WindowCenter": 1, "WindowWidth": 0}, "window 0 around 1"),
        ({"WindowCenter": 1, "WindowWidth": 0.5}, "window 0.5 around 1"),
        ({"WindowCenter": float("nan"), "WindowWidth": 5}, "not a finite number"),
        ({"WindowCenter": 1, "WindowWidth": 3, "VOILUTFunction": "CURVE"}, "none of LINEAR"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "is empty"),
        ({"RescaleSlope": float("inf"), "RescaleIntercept": 5}, "not a finite number"),
        ({"VOILUTSequence": lut([1, 2], bits=99)}, "99 bits"),
        ({"VOILUTSequence": lut([1, 2, 3], bits=12, data=b"\0\0")}, "2 of its 3 entries"),
        ({"BitsAllocated": 32}, "32 bits to a pixel"),
        ({"BitsStored": 17}, "contradicts itself"),
        ({"HighBit": 10}, "contradicts itself"),
        ({"BitsStored": None}, "how many bits"),
    ],
)
def test_broken_transforms(fields, words):
    with pytest.raises(InputError, match=words) as caught:
        grayscale.display(RAMP, header(**fields))
    assert "\n" not in str(caught.value)


def test_a_reason_never_quotes_the_header():
    dataset = header()
    dataset.add_new(0x00281050, "LO", "Doe^Planted")
    dataset.add_new(0x00281051, "LO", "Doe^Planted")
    with pytest.raises(InputError, match="a field cannot be read") as caught:
        grayscale.display(RAMP, dataset)
    assert "Planted" not in str(caught.value)
    with pytest.raises(InputError, match="intensity 'max' is unknown; use one of vendor, range, 4095, 3500"):
        grayscale.display(RAMP, header(), intensity="max")


def raw_image():
    """Attenuation of a half disk, 0 to 3, and the exposure behind it."""
    y, x = np.mgrid[:200, :160]
    truth = 3 * np.sqrt(np.clip(1 - (x / 110) ** 2 - ((y - 100) / 90) ** 2, 0, 1))
    return truth, np.rint(12000 * np.exp(-truth)).astype(np.uint16)


@pytest.mark.parametrize("sign, log", [(1, False), (-1, False), (1, True), (-1, True)])
def test_raw_data_become_attenuation(sign, log):
    truth, exposure = raw_image()
    stored = np.rint(4000 * np.log(exposure)).astype(np.uint16) if log else exposure
    dataset = header(bits=16, PixelIntensityRelationshipSign=sign)
    dataset.PixelIntensityRelationship = "LOG" if log else "LIN"
    if sign < 0:
        stored = 65535 - stored
    pixels, facts = dicom_raw.attenuation(stored, dataset)
    assert pixels.dtype == np.float32 and pixels.min() == 0 and pixels.max() == 1
    assert (pixels[truth == 0] == 0).all()
    scaled = truth / np.quantile(truth[truth > 0.3], 0.995)
    assert np.abs(pixels - np.minimum(scaled, 1)).max() < 0.03
    assert facts["white_point"] > 0


def test_raw_data_ignore_dead_pixels_and_padding():
    truth, exposure = raw_image()
    damaged = exposure.copy()
    damaged[::40, ::40] = 0
    damaged[150:, 150:] = 65535
    pixels, _ = dicom_raw.attenuation(damaged, header(bits=16, PixelPaddingValue=65535))
    plain, _ = dicom_raw.attenuation(exposure, header(bits=16))
    assert (pixels[150:, 150:] == 0).all()
    assert np.median(np.abs(pixels - plain)[truth > 0.5]) < 0.02


def test_raw_data_without_a_breast():
    with pytest.raises(InputError, match="shows no breast"):
        dicom_raw.attenuation(np.full((9, 9), 700, np.uint16), header())
    with pytest.raises(InputError, match="padding"):
        dicom_raw.attenuation(np.full((9, 9), 7, np.uint16), header(PixelPaddingValue=7))
