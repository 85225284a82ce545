"""Headers of compressed images, checked before a native decoder sees them.

A damaged stream makes some decoders end the process, and none of them asks how much memory a header may claim.
Everything up to the entropy-coded data is read here, in Python; each check raises `InputError` with the reason,
or IndexError or struct.error where the stream ends too early.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from mame_lib.errors import InputError

_MOST_TILES = 4096  # of a JPEG 2000 image; encoders of mammograms make one
_JPEG_FRAMES = {0xC0, 0xC1, 0xC3, 0xF7}  # baseline, extended, lossless (T.81, table B.1); JPEG-LS (T.87)
_JPEG_OTHER = {0xC4, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)}  # tables, restart interval, comments


def check_jpeg(frame: bytes, allocated: int, rows: int, columns: int) -> None:
    """JPEG, JPEG lossless and JPEG-LS (ITU-T T.81, annex B): markers from start of image to start of scan."""
    if frame[:2] != b"\xff\xd8":
        raise _damaged("no JPEG in them")
    at, kind = 2, 0
    while True:
        while frame[at] == 0xFF and frame[at + 1] == 0xFF:  # fill bytes
            at += 1
        if frame[at] != 0xFF:
            raise _damaged("bytes between markers")
        marker, length = frame[at + 1], struct.unpack_from(">H", frame, at + 2)[0]
        body = frame[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            raise _damaged("a marker of false length")
        if marker == 0xDA:
            break
        if marker in _JPEG_FRAMES and not kind:
            kind = marker
            bits, height, width, components, _, sampling = struct.unpack_from(">BHHBBB", body)
            _same(frame, (rows, columns), (height, width), bits, components, allocated)
            if length != 11 or sampling != 0x11:
                raise _damaged("a strange frame header")
        elif marker == 0xC4:
            _check_huffman(body)
        elif marker not in _JPEG_OTHER:
            raise _damaged("a strange marker")
        at += 2 + length
    if not kind:
        raise _damaged("no frame header in them")
    if length != 8 or body[0] != 1 or (kind == 0xC3 and not (1 <= body[3] <= 7 and body[4] == 0 and body[5] < 16)):
        raise _damaged("a strange scan header")


def _check_huffman(body: bytes) -> None:
    """Huffman tables (T.81, B.2.4.2): none may ask for more codes than their lengths allow."""
    at = 0
    while at < len(body):
        counts = body[at + 1 : at + 17]
        space = sum(count << (16 - bits) for bits, count in enumerate(counts, start=1))
        at += 17 + sum(counts)
        if len(counts) < 16 or not 0 < sum(counts) <= 256 or space > 1 << 16 or at > len(body):
            raise _damaged("a strange Huffman table")


def check_jpeg2000(frame: bytes, allocated: int, rows: int, columns: int) -> None:
    """JPEG 2000 (ITU-T T.800, A.5.1): the SIZ marker."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 512)
    if at < 0:
        raise _damaged("no JPEG 2000 in them")
    x1, y1, x0, y0, tile_x, tile_y, _, _, components, depth = struct.unpack_from(">8IHB", frame, at + 8)
    if not tile_x or not tile_y or -(-x1 // tile_x) * -(-y1 // tile_y) > _MOST_TILES:
        raise _damaged("tiles without number")
    _same(frame, (rows, columns), (y1 - y0, x1 - x0), (depth & 0x7F) + 1, components, allocated)


def check_rle(frame: bytes, allocated: int, rows: int, columns: int) -> None:
    """RLE (PS3.5, annex G): one segment for each byte of a pixel, in order, inside the frame, not too short."""
    count, *offsets = struct.unpack_from("<16I", frame)
    offsets = [*offsets[:count], len(frame)] if count == allocated // 8 else []
    runs = [end - start for start, end in pairwise(offsets)]
    # Two bytes say at most 128 pixels, so a segment has at least this length.
    if not runs or offsets[0] < 64 or min(runs) < rows * columns // 64:
        raise _damaged("segments that do not fit")


def _same(
    frame: bytes, stated: tuple[int, int], found: tuple[int, int], bits: int, components: int, allocated: int
) -> None:
    """The compressed image must be the one that the DICOM header states, and whole."""
    if found != stated or components != 1:
        raise InputError(
            f"its compressed image is {found[1]} x {found[0]} pixels with {components} components, but its header "
            f"states one of {stated[1]} x {stated[0]}."
        )
    if not 2 <= bits <= allocated:
        raise InputError(f"its compressed image has {bits} bits a pixel, its header {allocated}.")
    if b"\xff\xd9" not in frame[-16:]:  # the end marker, and what pads it
        raise InputError("its compressed pixel data are cut off.")


def _damaged(what: str) -> InputError:
    return InputError(f"its compressed pixel data are damaged ({what}).")
