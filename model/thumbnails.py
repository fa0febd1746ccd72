"""A small picture of a face, for people who look at a gallery."""

import cv2
import numpy as np
from numpy.typing import NDArray

from model.faces import Box

SIDE = 160
"""Of the square, in pixels; of a smaller face it is less, because it is not enlarged."""
MAX_BYTES = 8_000
_MARGIN = 0.3
"""On each side, in lengths of the face's longer side."""
_JPEG_QUALITIES = (85, 70, 50, 30)
"""The first one whose file is small enough; the last one is for noise."""


def thumbnail(pixels: NDArray[np.uint8], box: Box) -> bytes | None:
    """Return a JPEG of a face of an upright RGB picture, uint8 (H, W, 3); None if OpenCV fails.

    It is a square around the face, which is moved into the picture, or as large as the picture allows. The box is in
    pixels of this picture, and may lie partly beyond its edges.
    """
    height, width = pixels.shape[:2]
    wanted = max(box.x_max - box.x_min, box.y_max - box.y_min) * (1 + 2 * _MARGIN)
    side = int(max(1, min(wanted, width, height)))
    left = _start((box.x_min + box.x_max) / 2, side, width)
    top = _start((box.y_min + box.y_max) / 2, side, height)
    cut = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    try:
        if side > SIDE:
            cut = np.asarray(cv2.resize(cut, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return _jpeg(np.asarray(cv2.cvtColor(cut, cv2.COLOR_RGB2BGR), dtype=np.uint8))
    except cv2.error:
        return None


def _start(centre: float, side: int, length: int) -> int:
    return int(min(max(0, centre - side / 2), length - side))


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    body = b""
    for quality in _JPEG_QUALITIES:
        body = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(body) <= MAX_BYTES:
            break
    return body
