"""The stored values of a DICOM image: `stored_values` checks what the header promises, then decodes.

Native decoders trust their input; damaged files make some of them crash, or ask for all memory. So the sizes
that header and compressed stream state are compared in Python first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mame_lib.data import codestreams
from mame_lib.data.grayscale import Layout
from mame_lib.errors import InputError

INSTALL_DECODERS = "pip install python-gdcm pyjpegls pylibjpeg pylibjpeg-openjpeg"
LARGEST = 80_000_000  # pixels; the largest detectors and film scanners stay below 50 million

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
    "1.2.840.10008.1.2.5": ("pydicom",),  # RLE; pylibjpeg's is faster, but panics on damaged files
}
_NATIVE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
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
    syntax = str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None) or _NATIVE[0])
    if syntax in _NATIVE:
        return _native(dataset, layout, rows, columns)
    if syntax not in _DECODERS:
        raise InputError("its transfer syntax is none of a still image that can be decoded.")
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
    try:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception as error:
        raise InputError("its compressed pixel data are damaged (no frame in them).") from error
    check = codestreams.check_jpeg
    if syntax == _RLE:
        check = codestreams.check_rle
    elif syntax.startswith(_JPEG_2000):
        check = codestreams.check_jpeg2000
    try:
        check(frame, layout.allocated, rows, columns)
    except (struct.error, IndexError) as error:
        raise InputError("its compressed pixel data are cut off.") from error
    decoder = get_decoder(syntax)
    plugin = next((name for name in _DECODERS[syntax] if name in decoder.available_plugins), None)
    if plugin is None:
        raise InputError(f"no decoder for its pixels ({syntax.name}) is installed; get one with: {INSTALL_DECODERS}.")
    # GDCM ends the process on 8-bit JPEG of which the header says that fewer bits are used; it need not know.
    bits = {"bits_stored": 8} if plugin == "gdcm" and layout.allocated == 8 else {}
    try:
        with _quiet(plugin):
            values, _ = decoder.as_array(dataset, decoding_plugin=plugin, correct_unused_bits=False, **bits)
    except Exception as error:  # each decoder raises what it likes
        raise InputError(f"its pixels ({syntax.name}) cannot be decoded; the file is damaged.") from error
    if values.shape != (rows, columns) or values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise InputError(f"its pixels have shape {values.shape}; one gray image [h, w] is expected.")
    return np.asarray(values)


@contextmanager
def _quiet(plugin: str) -> Iterator[None]:
    """GDCM's remarks about damaged files go past Python to the terminal, and its libjpeg asks no switch."""
    if plugin != "gdcm":
        yield
        return
    _hush_gdcm()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@cache
def _hush_gdcm() -> None:
    import gdcm

    for switch in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch()
