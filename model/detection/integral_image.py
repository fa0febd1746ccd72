"""A picture's running sums, from which MTCNN's inputs of every size are pooled."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

WHOLE_PIXELS = 12_500_000
"""The largest picture whose sums are kept whole: 200 MB, enough for the usual 12-megapixel camera."""
PART_PIXELS = 3_000_000  # pixels of a larger picture that are summed at a time: 48 MB
CROPS_AT_ONCE = 32  # crops of 24 by 24 that are looked up at a time, so that they stay in a core's cache
CHANNELS = 4  # channels of the sums: numpy gathers 16 bytes at a time five times faster than 12

_Indices = NDArray[np.intp]
_Sums = NDArray[np.int32]
_Windows = tuple[_Indices, _Indices]


class IntegralImage:
    """The running sums of a picture, uint8 (H, W, 3), from which pooled float32 network inputs are read.

    The inputs are normalised as MTCNN was trained: (x - 127.5) / 128. Their shape is channels first; in memory the
    channels are last, the order in which they are computed. It holds 16 bytes a pixel. Of a picture larger than
    `WHOLE_PIXELS` it holds nothing, and sums each part when it is read, which takes longer.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        self._image = image
        self._whole = _running_sums(image) if self.height * self.width <= WHOLE_PIXELS else None

    def scaled(self, height: int, width: int, part: tuple[slice, slice], out: NDArray[np.float32]) -> None:
        """Pool the picture to height by width and write these rows and columns of it to `out`, float32 (3, …, …)."""
        top, bottom = (edge[part[0]] for edge in _side(self.height, height))
        left, right = (edge[part[1]] for edge in _side(self.width, width))
        out.transpose(1, 2, 0)[...] = _normalised(
            self._window_sums(top, bottom, left, right), bottom - top, right - left
        )

    def crops(self, boxes: _Indices, size: int) -> NDArray[np.float32]:
        """Return each box (x_min, y_min, x_max, y_max; not empty, inside) pooled to float32 (N, 3, size, size)."""
        means = np.empty((len(boxes), size, size, 3), dtype=np.float32)
        at_once = max(1, CROPS_AT_ONCE * 24 * 24 // size**2)
        for first in range(0, len(boxes), at_once):
            means[first : first + at_once] = self._crops(boxes[first : first + at_once], size)
        return means.transpose(0, 3, 1, 2)

    def _crops(self, boxes: _Indices, size: int) -> NDArray[np.float32]:
        """Return pooled boxes, channels last."""
        top, bottom = (boxes[:, 1, np.newaxis] + edge for edge in _windows(boxes[:, 3] - boxes[:, 1], size))
        left, right = (boxes[:, 0, np.newaxis] + edge for edge in _windows(boxes[:, 2] - boxes[:, 0], size))
        if self._whole is None:
            sums = np.stack([self._window_sums(*edges) for edges in zip(top, bottom, left, right, strict=True)])
        else:
            # One look-up for all four corners of the windows.
            rows, columns = np.concatenate([bottom, top], axis=1), np.concatenate([right, left], axis=1)
            corners = (rows * (self.width + 1))[:, :, np.newaxis] + columns[:, np.newaxis, :]
            sums = self._whole.reshape(-1, CHANNELS).take(corners, axis=0)
            sums = sums[:, :size] - sums[:, size:]
            sums = sums[:, :, :size] - sums[:, :, size:]
        return _normalised(sums, bottom - top, right - left)

    def _window_sums(self, top: _Indices, bottom: _Indices, left: _Indices, right: _Indices) -> _Sums:
        """Return the sums over every window between these ascending rows and columns, (rows, columns, `CHANNELS`)."""
        x_min, x_max = left[0], right[-1]
        if self._whole is not None:
            return _differences(self._whole[:, x_min : x_max + 1], top, bottom, left - x_min, right - x_min)
        rows_at_once = max(1, len(top) * PART_PIXELS // int((bottom[-1] - top[0]) * (x_max - x_min)))
        parts = []
        for first in range(0, len(top), rows_at_once):
            rows = slice(first, first + rows_at_once)
            y_min, y_max = top[rows][0], bottom[rows][-1]
            sums = _running_sums(self._image[y_min:y_max, x_min:x_max])
            parts.append(_differences(sums, top[rows] - y_min, bottom[rows] - y_min, left - x_min, right - x_min))
        return np.concatenate(parts)


def _windows(length: _Indices, count: int) -> _Windows:
    """Return the first and the past-the-end input index of each of `count` outputs, shape (…, count)."""
    steps = np.arange(count)
    length = length[..., np.newaxis]
    return steps * length // count, -((steps + 1) * -length // count)


@lru_cache(maxsize=64)
def _side(length: int, count: int) -> _Windows:
    """Return the windows along one side; the arrays are shared and must not be changed."""
    return _windows(np.array(length), count)


def _running_sums(image: NDArray[np.uint8]) -> _Sums:
    # Beyond 8.4 megapixels the sums overflow; modulo 2^32 their differences are right for windows up to that size.
    return np.asarray(cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), sdepth=cv2.CV_32S), dtype=np.int32)


def _differences(sums: _Sums, top: _Indices, bottom: _Indices, left: _Indices, right: _Indices) -> _Sums:
    strips = sums[bottom]
    strips -= sums[top]
    windows = strips.take(right, axis=1)
    windows -= strips.take(left, axis=1)
    return windows


def _normalised(sums: _Sums, heights: _Indices, widths: _Indices) -> NDArray[np.float32]:
    """Return window sums (…, h, w, 4) as means (…, h, w, 3) about zero, in float32 and in torch's order of division."""
    columns = sums.shape[-2]
    means = sums.astype(np.float32).reshape(*sums.shape[:-2], columns * CHANNELS)
    means /= heights.astype(np.float32)[..., np.newaxis]
    means /= np.repeat(widths.astype(np.float32), CHANNELS, axis=-1)[..., np.newaxis, :]
    means -= 127.5
    means *= np.float32(0.0078125)
    pixels = cv2.cvtColor(means.reshape(-1, columns, CHANNELS), cv2.COLOR_RGBA2RGB)
    return np.asarray(pixels, dtype=np.float32).reshape(*sums.shape[:-1], 3)
