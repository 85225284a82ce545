"""The images of a reader study as files that are alike in all but their pixels."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LAST = 12  # bytes of the chunk that ends a PNG


def png(image: NDArray[np.uint8]) -> bytes:
    """The image [n, n] as the bytes of a PNG of 8 bits, without a text or a date in it."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def padded(data: bytes, length: int) -> bytes:
    """A PNG made `length` + 12 bytes long by an ancillary chunk, which viewers pass over.

    The number of bytes would tell a smooth image from a sharp one before it is opened.
    """
    chunk = b"paDd" + b"\0" * (length - len(data))
    head, check = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
    return data[:-_LAST] + head + chunk + check + data[-_LAST:]
