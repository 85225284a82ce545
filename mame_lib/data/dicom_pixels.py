"""The stored values of a DICOM image: `stored_values` checks what the header promises, then decodes.

Native decoders trust their input; damaged files make some of them crash, or ask for all memory. So the sizes
that header and compressed stream state are compared in Python first.
"""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data.grayscale import Layout
from mame_lib.errors import InputError

INSTALL_DECODERS = "pip install python-gdcm pyjpegls pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle"
LARGEST = 80_000_000  # pixels; the largest detectors and film scanners stay below 50 million
_MOST_TILES = 4096  # of a JPEG 2000 image; encoders of mammograms make one

# Decoders of pydicom by transfer syntax (PS3.5, annex A.4), the preferred first: measured speed on 3518 x 2800
# pixels, then a permissive license. pylibjpeg decodes the first two only with its GPL plugin installed.
_DECODERS = {
    "1.2.840.10008.1.2.4.50": ("gdcm", "pillow", "pylibjpeg"),  # JPEG, 8 bits
    "1.2.840.10008.1.2.4.51": ("gdcm", "pylibjpeg", "pillow"),  # JPEG, 12 bits
    "1.2.840.10008.1.2.4.57": ("gdcm", "pylibjpeg"),  # JPEG lossless, process 14
    "1.2.840.10008.1.2.4.70": ("gdcm", "pylibjpeg"),  # the same, selection value 1
    "1.2.840.10008.1.2.4.80": ("pyjpegls", "gdcm", "pylibjpeg"),  # JPEG-LS
    "1.2.840.10008.1.2.4.81": ("pyjpegls", "gdcm", "pylibjpeg"),
    "1.2.840.10008.1.2.4.90": ("pylibjpeg", "gdcm", "pillow"),  # JPEG 2000
    "1.2.840.10008.1.2.4.91": ("pylibjpeg", "gdcm", "pillow"),
    "1.2.840.10008.1.2.4.201": ("pylibjpeg",),  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.203": ("pylibjpeg",),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "pydicom"),  # RLE
}
_JPEG_2000 = "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20"
_RLE = "1.2.840.10008.1.2.5"


def shape(dataset: Any) -> tuple[int, int]:
    """(rows, columns) that the header states.

    Raises
    ------
    InputError
        If they are missing, zero, or more than `LARGEST` pixels together.
    """
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError("its header does not say how many rows and columns it has.") from error
    if rows < 1 or columns < 1:
        raise InputError(f"its header states {rows} rows and {columns} columns; one gray image is expected.")
    if rows * columns > LARGEST:
        raise InputError(f"its header states {rows} x {columns} pixels; at most {LARGEST // 10**6} million are read.")
    return rows, columns


def stored_values(dataset: Any) -> NDArray[Any]:
    """Integers [h, w] as stored, 8 or 16 bits, signed or not; bits beyond Bits Stored are left as they came.

    Raises
    ------
    InputError
        If there are no pixel data, they do not fit the header, are cut off, or no decoder for them is installed.
    """
    rows, columns = shape(dataset)
    layout = Layout.of(dataset)
    if "PixelData" not in dataset or not dataset.PixelData:
        raise InputError("it holds a header but no pixel data.")
    if not isinstance(dataset.PixelData, bytes):
        raise InputError("its pixel data do not fit its header (not a string of bytes).")
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_compressed or syntax.is_deflated:
        return _native(dataset, layout, rows, columns)
    return _compressed(dataset, layout, rows, columns)


def _native(dataset: Any, layout: Layout, rows: int, columns: int) -> NDArray[Any]:
    """Uncompressed values [h, w], a view of the file's bytes."""
    data, size = dataset.PixelData, layout.allocated // 8
    little = getattr(dataset, "original_encoding", (None, None))[1] is not False
    if layout.allocated == 8 and not little and dataset["PixelData"].VR == "OW":
        data = np.frombuffer(data[: len(data) & ~1], "<u2").byteswap().tobytes()  # words turn bytes around
    if len(data) < rows * columns * size:
        raise InputError("its pixel data do not fit its header (truncated file?).")
    kind = f"{'<' if little else '>'}{'i' if layout.signed else 'u'}{size}"
    values = np.frombuffer(data, kind, count=rows * columns).reshape(rows, columns)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _compressed(dataset: Any, layout: Layout, rows: int, columns: int) -> NDArray[Any]:
    """Decoded values [h, w]."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    known = _DECODERS.get(str(syntax))
    if known is None:
        raise InputError("its transfer syntax is none of a still image that can be decoded.")
    try:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception as error:
        raise InputError("its compressed pixel data are damaged (no frame in them).") from error
    check = _check_rle if syntax == _RLE else _check_jpeg2000 if syntax.startswith(_JPEG_2000) else _check_jpeg
    try:
        check(frame, layout, rows, columns)
    except (struct.error, IndexError) as error:
        raise InputError("its compressed pixel data are cut off.") from error
    decoder = get_decoder(syntax)
    plugin = next((name for name in known if name in decoder.available_plugins), None)
    if plugin is None:
        raise InputError(f"no decoder for its pixels ({syntax.name}) is installed; get one with: {INSTALL_DECODERS}.")
    if plugin == "gdcm":
        _hush_gdcm()
    try:
        values, _ = decoder.as_array(dataset, decoding_plugin=plugin, correct_unused_bits=False)
    except Exception as error:  # each decoder raises what it likes
        raise InputError(f"its pixels ({syntax.name}) cannot be decoded; the file is damaged.") from error
    if values.shape != (rows, columns) or values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise InputError(f"its pixels have shape {values.shape}; one gray image [h, w] is expected.")
    return np.asarray(values)


@cache
def _hush_gdcm() -> None:
    """GDCM's remarks about damaged files go past Python to the terminal."""
    import gdcm

    for switch in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch()


def _check_jpeg(frame: bytes, layout: Layout, rows: int, columns: int) -> None:
    """JPEG, JPEG lossless, JPEG-LS (ITU-T T.81, annex B; T.87): the frame header must say what the header says."""
    if frame[:2] != b"\xff\xd8":
        raise InputError("its compressed pixel data are damaged (no JPEG in them).")
    at = 2
    while True:
        if frame[at] != 0xFF:
            raise InputError("its compressed pixel data are damaged (no frame header in them).")
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            break
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    bits, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
    _same(frame, layout, (rows, columns), (height, width), bits, components)


def _check_jpeg2000(frame: bytes, layout: Layout, rows: int, columns: int) -> None:
    """JPEG 2000 (ITU-T T.800, A.5.1): the same for its SIZ marker."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 512)
    if at < 0:
        raise InputError("its compressed pixel data are damaged (no JPEG 2000 in them).")
    x1, y1, x0, y0, tile_x, tile_y, _, _, components, depth = struct.unpack_from(">8IHB", frame, at + 8)
    if not tile_x or not tile_y or -(-x1 // tile_x) * -(-y1 // tile_y) > _MOST_TILES:
        raise InputError("its compressed pixel data are damaged (tiles without number).")
    _same(frame, layout, (rows, columns), (y1 - y0, x1 - x0), (depth & 0x7F) + 1, components)


def _same(
    frame: bytes, layout: Layout, stated: tuple[int, int], found: tuple[int, int], bits: int, components: int
) -> None:
    if found != stated or components != 1:
        raise InputError(
            f"its compressed image is {found[1]} x {found[0]} pixels with {components} components, but its header "
            f"states one of {stated[1]} x {stated[0]}."
        )
    if not 2 <= bits <= layout.allocated:
        raise InputError(f"its compressed image has {bits} bits a pixel, its header {layout.allocated}.")
    if b"\xff\xd9" not in frame[-16:]:  # the end marker, and what pads it
        raise InputError("its compressed pixel data are cut off.")


def _check_rle(frame: bytes, layout: Layout, rows: int, columns: int) -> None:
    """RLE (PS3.5, annex G): one segment for each byte of a pixel, in order, inside the frame, not too short."""
    count, *offsets = struct.unpack_from("<16I", frame)
    offsets = [*offsets[:count], len(frame)] if count == layout.allocated // 8 else []
    runs = [end - start for start, end in pairwise(offsets)]
    # Two bytes say at most 128 pixels, so a segment has at least this length.
    if not runs or offsets[0] < 64 or min(runs) < rows * columns // 64:
        raise InputError("its compressed pixel data are damaged (segments that do not fit).")
