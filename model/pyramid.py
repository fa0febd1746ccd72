"""Area pooling from one integral image: every scale and every crop of a picture for four look-ups a pixel.

`torch.nn.functional.interpolate(mode="area")` averages, for each output pixel, the whole input pixels that it touches:
rows ⌊i·in/out⌋ up to ⌈(i+1)·in/out⌉, columns alike. Such a sum is the difference of four entries of an integral image.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

WHOLE_PIXELS = 16_000_000  # of a picture whose sums are kept: 192 MB
PART_PIXELS = 4_000_000  # of a larger one to be summed at a time: 48 MB

Windows = tuple[NDArray[np.intp], NDArray[np.intp]]


def _windows(length: NDArray[np.intp], count: int) -> Windows:
    """Return the first and the past-the-end input index of each of `count` outputs, shape (…, count)."""
    steps = np.arange(count)
    length = length[..., np.newaxis]
    return steps * length // count, -((steps + 1) * -length // count)


class IntegralImage:
    """The running sums of a picture, uint8 (H, W, 3), from which pooled float32 network inputs are read.

    The inputs are normalised as MTCNN was trained: (x - 127.5) / 128. Holds 12 bytes a pixel. Of a picture beyond
    `WHOLE_PIXELS` it holds none and sums each part when it is read, which costs time instead.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        self._image = image
        self._whole = _running_sums(image) if self.height * self.width <= WHOLE_PIXELS else None

    def scaled(self, height: int, width: int, part: tuple[slice, slice], out: NDArray[np.float32]) -> None:
        """Pool the picture to height by width and write the given rows and columns of that, float32 (3, …, …)."""
        top, bottom = (edge[part[0]] for edge in _windows(np.array(self.height), height))
        left, right = (edge[part[1]] for edge in _windows(np.array(self.width), width))
        _normalise(self._window_sums(top, bottom, left, right), bottom - top, right - left, out)

    def crops(self, boxes: NDArray[np.intp], size: int) -> NDArray[np.float32]:
        """Return each box (x_min, y_min, x_max, y_max; not empty, inside) pooled to float32 (N, 3, size, size)."""
        top, bottom = (boxes[:, 1, np.newaxis] + edge for edge in _windows(boxes[:, 3] - boxes[:, 1], size))
        left, right = (boxes[:, 0, np.newaxis] + edge for edge in _windows(boxes[:, 2] - boxes[:, 0], size))
        if self._whole is None:
            sums = np.stack([self._window_sums(*edges) for edges in zip(top, bottom, left, right, strict=True)])
        else:
            # One look-up for all four corners of the windows.
            rows, columns = np.concatenate([bottom, top], axis=1), np.concatenate([right, left], axis=1)
            corners = (rows * (self.width + 1))[:, :, np.newaxis] + columns[:, np.newaxis, :]
            sums = self._whole.reshape(-1, 3).take(corners, axis=0)
            sums = sums[:, :size] - sums[:, size:]
            sums = sums[:, :, :size] - sums[:, :, size:]
        means = np.empty((len(boxes), 3, size, size), dtype=np.float32)
        _normalise(sums, bottom - top, right - left, means)
        return means

    def _window_sums(
        self, top: NDArray[np.intp], bottom: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]
    ) -> NDArray[np.uint32]:
        """Return the sums over every window between these ascending rows and columns, (rows, columns, 3)."""
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


def _running_sums(image: NDArray[np.uint8]) -> NDArray[np.uint32]:
    # They run over beyond 8.4 megapixels; modulo 2^32 their differences are right for windows up to 16.8.
    sums: NDArray[np.uint32] = cv2.integral(image, sdepth=cv2.CV_32S).view(np.uint32)
    return sums


def _differences(
    sums: NDArray[np.uint32],
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
) -> NDArray[np.uint32]:
    strips = sums[bottom]
    strips -= sums[top]
    windows = strips.take(right, axis=1)
    windows -= strips.take(left, axis=1)
    return windows


def _normalise(
    sums: NDArray[np.uint32], heights: NDArray[np.intp], widths: NDArray[np.intp], out: NDArray[np.float32]
) -> None:
    """Write window sums (…, h, w, 3) as means (…, 3, h, w) about zero, in float32 and in torch's order of division."""
    means = np.moveaxis(sums, -1, -3).astype(np.float32, order="C")
    means /= heights.astype(np.float32)[..., np.newaxis, :, np.newaxis]
    means /= widths.astype(np.float32)[..., np.newaxis, np.newaxis, :]
    means -= 127.5
    np.multiply(means, np.float32(0.0078125), out=out)
