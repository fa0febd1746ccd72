"""Area pooling from one integral image: every scale and every crop of a picture for four look-ups a pixel.

`torch.nn.functional.interpolate(mode="area")` averages, for each output pixel, the whole input pixels that it touches:
rows ⌊i·in/out⌋ up to ⌈(i+1)·in/out⌉, columns alike. Such a sum is the difference of four entries of an integral image.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Windows = tuple[NDArray[np.intp], NDArray[np.intp]]


def _windows(length: NDArray[np.intp], count: int) -> Windows:
    """Return the first and the past-the-end input index of each of `count` outputs, shape (…, count)."""
    steps = np.arange(count)
    length = length[..., np.newaxis]
    return steps * length // count, -((steps + 1) * -length // count)


class IntegralImage:
    """The running sums of a picture, uint8 (H, W, 3), from which pooled float32 network inputs are read.

    The inputs are normalised as MTCNN was trained: (x - 127.5) / 128. Holds 12 bytes a pixel.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        # The sums run over beyond 8.4 megapixels; modulo 2^32 their differences are right for windows up to 16.8.
        self._sums: NDArray[np.uint32] = cv2.integral(image, sdepth=cv2.CV_32S).view(np.uint32)

    def scaled(self, height: int, width: int, part: tuple[slice, slice], out: NDArray[np.float32]) -> None:
        """Pool the picture to height by width and write the given rows and columns of that, float32 (3, …, …)."""
        top, bottom = (edge[part[0]] for edge in _windows(np.array(self.height), height))
        left, right = (edge[part[1]] for edge in _windows(np.array(self.width), width))
        seen = slice(left[0], right[-1] + 1)
        strips = self._sums[bottom, seen]
        strips -= self._sums[top, seen]
        sums = strips.take(right - left[0], axis=1)
        sums -= strips.take(left - left[0], axis=1)
        _normalise(sums, bottom - top, right - left, out)

    def crops(self, boxes: NDArray[np.intp], size: int) -> NDArray[np.float32]:
        """Return each box (x_min, y_min, x_max, y_max; not empty, inside) pooled to float32 (N, 3, size, size)."""
        top, bottom = _windows(boxes[:, 3] - boxes[:, 1], size)
        left, right = _windows(boxes[:, 2] - boxes[:, 0], size)
        # One look-up for all four corners of the windows.
        rows = np.concatenate([bottom, top], axis=1) + boxes[:, 1, np.newaxis]
        columns = np.concatenate([right, left], axis=1) + boxes[:, 0, np.newaxis]
        corners = (rows * (self.width + 1))[:, :, np.newaxis] + columns[:, np.newaxis, :]
        sums = self._sums.reshape(-1, 3).take(corners, axis=0)
        strips = np.subtract(sums[:, :size], sums[:, size:])
        means = np.empty((len(boxes), 3, size, size), dtype=np.float32)
        _normalise(strips[:, :, :size] - strips[:, :, size:], bottom - top, right - left, means)
        return means


def _normalise(
    sums: NDArray[np.uint32], heights: NDArray[np.intp], widths: NDArray[np.intp], out: NDArray[np.float32]
) -> None:
    """Write window sums (…, h, w, 3) as means (…, 3, h, w) about zero, in float32 and in torch's order of division."""
    means = np.moveaxis(sums, -1, -3).astype(np.float32, order="C")
    means /= heights.astype(np.float32)[..., np.newaxis, :, np.newaxis]
    means /= widths.astype(np.float32)[..., np.newaxis, np.newaxis, :]
    means -= 127.5
    np.multiply(means, np.float32(0.0078125), out=out)
