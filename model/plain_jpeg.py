"""Ordinary JPEGs by way of OpenCV, which hands over the very pixels that Pillow does in less time.

Both stand on libjpeg-turbo and its default settings, so that they agree wherever neither adds anything of its own. What
an ordinary file is, its markers must say: baseline, 8 bits, YCbCr with the usual sampling, in one scan, complete.
"""

import struct

import cv2
import numpy as np
from numpy.typing import NDArray

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE, _ADOBE = 0xDA, 0xC0, 0xEE  # ITU-T T.81, table B.1; what Adobe writes may be in another colour space
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xCC}  # those two are tables; progressive, lossless, arithmetic
_MARK, _RESTART = 0xFF, 0xD0  # the first of eight; a 0 after the mark makes it a pixel's
_LUMA_SAMPLINGS = {0x11, 0x21, 0x12, 0x22}  # 4:4:4, 4:2:2, 4:4:0 and 4:2:0
_SCAN_COMPONENTS = bytes((1, 2, 3))


_REDUCED = {  # OpenCV's names say "grayscale" for the bits that reduce, whatever the colours
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def decode_plain(data: bytes, width: int, height: int, reduction: int = 1) -> NDArray[np.uint8] | None:
    """Return an ordinary JPEG as stored, RGB, uint8 (height, width, 3); None for any other, and for a damaged one.

    Width and height are those that were read and checked before; the result is `reduction` times smaller, rounded up.
    """
    if not _is_plain(data, width, height):
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[reduction]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(pixels, dtype=np.uint8)


def _is_plain(data: bytes, width: int, height: int) -> bool:
    """Say whether the markers, up to the pixels, are those of an ordinary JPEG of this size, and its end is there."""
    if not (data.startswith(_START) and data.endswith(_END)):
        return False
    frame, at = b"", len(_START)
    while data[at : at + 1] == b"\xff":
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        content = data[at + 4 : at + 2 + length]
        if marker == _SCAN:
            # All three components at once, every coefficient in full.
            whole = len(content) == 10 and content[0] == 3 and content[7:] == b"\0\x3f\0"  # noqa: PLR2004 - B.2.3
            return (
                whole
                and content[1:7:2] == _SCAN_COMPONENTS
                and _is_usual(frame, width, height)
                and _is_one_scan(data, at + 2 + length)
            )
        if length < 2 or marker == _ADOBE or marker in _OTHER_FRAMES or (marker == _BASELINE and frame):  # noqa: PLR2004
            return False
        if marker == _BASELINE:
            frame = content
        at += 2 + length
    return False


def _is_one_scan(data: bytes, start: int) -> bool:
    """Say whether nothing but the marks of restarts interrupts the pixels from there to the end of the file.

    Pillow reads on behind the pixels, and refuses a file for what it finds; OpenCV does not look.
    """
    pixels = np.frombuffer(data, dtype=np.uint8, offset=start)
    marks = pixels[1:-1][pixels[:-2] == _MARK]
    return not ((marks != 0) & (marks & 0xF8 != _RESTART)).any()


def _is_usual(frame: bytes, width: int, height: int) -> bool:
    """Say whether a frame's header is that of 8-bit YCbCr, its colours at most halved (T.81, section B.2.2)."""
    return (
        len(frame) == 15  # noqa: PLR2004 - three components of three bytes
        and frame.startswith(struct.pack(">BHHB", 8, height, width, 3))
        and frame[6::3] == _SCAN_COMPONENTS
        and frame[7] in _LUMA_SAMPLINGS
        and frame[10] == frame[13] == 0x11  # noqa: PLR2004 - as in `_LUMA_SAMPLINGS`
    )
