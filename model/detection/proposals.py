"""P-Net as the detector drives it: sheets of tiles in, the outputs of each tile's cells out."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model.detection.packing import STRIDE, Placed, Sheet, Size, Tile, cut

BLOCK = 128  # boxes compared with each other at a time
OTHERS = 4096  # boxes compared with a block at a time: bounds the memory for any number of them
Boxes = NDArray[np.float32]
Overlaps = Callable[[Boxes, Boxes], NDArray[np.bool_]]


def suppress_by_union(boxes: Boxes, scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the indices of the boxes kept, best first: torchvision's `nms`.

    `boxes` is float32 (N, 4) as x_min, y_min, x_max, y_max. A box falls when its intersection over union with
    a better kept one exceeds `threshold`; equal scores keep their order.
    """

    def overlap(better: Boxes, others: Boxes) -> NDArray[np.bool_]:
        shared = _intersections(better, others, edge=0)
        union = _areas(better, edge=0)[:, np.newaxis] + _areas(others, edge=0)
        union -= shared
        with np.errstate(invalid="ignore"):  # two boxes without area: 0/0 is no overlap
            shared /= union
        return shared > threshold

    return _suppress(boxes, np.argsort(-scores, kind="stable"), overlap)


def suppress_by_smaller(boxes: Boxes, scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the indices of the boxes kept, best first: facenet-pytorch's `nms_numpy` with method "Min".

    The intersection is divided by the smaller area, so that a face inside a larger one falls. Pixels count
    inclusively (+1), unlike in `suppress_by_union`, and the sort is numpy's default, as published.
    """

    def overlap(better: Boxes, others: Boxes) -> NDArray[np.bool_]:
        shared = _intersections(better, others, edge=1)
        smaller = np.minimum(_areas(better, edge=1)[:, np.newaxis], _areas(others, edge=1))
        return ~(shared / smaller <= threshold)

    return _suppress(boxes, np.argsort(scores)[::-1], overlap)


def _suppress(boxes: Boxes, remaining: NDArray[np.intp], overlap: Overlaps) -> NDArray[np.intp]:
    """Return those of `remaining`, indices with the best first, that no better kept box overlaps."""
    kept = []
    while remaining.size > 1:
        block, remaining = remaining[:BLOCK], remaining[BLOCK:]
        best = boxes[block]
        survivors = _survivors(overlap(best, best))
        kept.append(block[survivors])
        if remaining.size:
            parts = (remaining[first : first + OTHERS] for first in range(0, remaining.size, OTHERS))
            remaining = np.concatenate([part[~overlap(best[survivors], boxes[part]).any(axis=0)] for part in parts])
    return np.concatenate([*kept, remaining])


def _survivors(overlaps: NDArray[np.bool_]) -> list[int]:
    """Return what is left of boxes in order, the best first, from which of them overlap, bool (N, N)."""
    rows = np.packbits(overlaps, axis=1, bitorder="little")
    width, content = rows.shape[1], rows.tobytes()
    fallen, survivors = 0, []
    for index in range(len(rows)):
        if not fallen >> index & 1:
            survivors.append(index)
            fallen |= int.from_bytes(content[index * width : (index + 1) * width], "little")
    return survivors


def _areas(boxes: Boxes, *, edge: int) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0] + edge) * (boxes[:, 3] - boxes[:, 1] + edge)
    return areas


def _intersections(boxes: Boxes, others: Boxes, *, edge: int) -> NDArray[np.float32]:
    """Return the area that each of `boxes` (N, 4) shares with each of `others` (M, 4), float32 (N, M)."""
    sides = []
    for axis in (0, 1):
        side = np.minimum(boxes[:, axis + 2, np.newaxis], others[:, axis + 2])
        side -= np.maximum(boxes[:, axis, np.newaxis], others[:, axis])
        if edge:
            side += edge
        sides.append(np.maximum(side, 0, out=side))
    width, height = sides
    width *= height
    return width


WHOLE_PIXELS = 12_500_000  # of a picture whose sums are kept: 200 MB, enough for the usual 12-megapixel camera
PART_PIXELS = 3_000_000  # of a larger one to be summed at a time: 48 MB
CROPS_AT_ONCE = 32  # of 24 by 24: what is looked up for them stays near a core's cache
CHANNELS = 4  # of the sums: numpy gathers 16 bytes at a time five times faster than 12
Windows = tuple[NDArray[np.intp], NDArray[np.intp]]


def _windows(length: NDArray[np.intp], count: int) -> Windows:
    """Return the first and the past-the-end input index of each of `count` outputs, shape (…, count)."""
    steps = np.arange(count)
    length = length[..., np.newaxis]
    return steps * length // count, -((steps + 1) * -length // count)


@lru_cache(maxsize=64)
def _side(length: int, count: int) -> Windows:
    """Return the windows along one side; not to be written to."""
    return _windows(np.array(length), count)


class IntegralImage:
    """The running sums of a picture, uint8 (H, W, 3), from which pooled float32 network inputs are read.

    The inputs are normalised as MTCNN was trained: (x - 127.5) / 128. Their shape is channels first, their place in
    memory channels last, which is how they are computed and how the networks like them. Holds 16 bytes a pixel. Of a
    picture beyond `WHOLE_PIXELS` it holds none and sums each part when it is read, which costs time instead.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.height, self.width = image.shape[:2]
        self._image = image
        self._whole = _running_sums(image) if self.height * self.width <= WHOLE_PIXELS else None

    def scaled(self, height: int, width: int, part: tuple[slice, slice], out: NDArray[np.float32]) -> None:
        """Pool the picture to height by width and write the given rows and columns of that, float32 (3, …, …)."""
        top, bottom = (edge[part[0]] for edge in _side(self.height, height))
        left, right = (edge[part[1]] for edge in _side(self.width, width))
        out.transpose(1, 2, 0)[...] = _normalised(
            self._window_sums(top, bottom, left, right), bottom - top, right - left
        )

    def crops(self, boxes: NDArray[np.intp], size: int) -> NDArray[np.float32]:
        """Return each box (x_min, y_min, x_max, y_max; not empty, inside) pooled to float32 (N, 3, size, size)."""
        means = np.empty((len(boxes), size, size, 3), dtype=np.float32)
        at_once = max(1, CROPS_AT_ONCE * 24 * 24 // size**2)
        for first in range(0, len(boxes), at_once):
            means[first : first + at_once] = self._crops(boxes[first : first + at_once], size)
        return means.transpose(0, 3, 1, 2)

    def _crops(self, boxes: NDArray[np.intp], size: int) -> NDArray[np.float32]:
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

    def _window_sums(
        self, top: NDArray[np.intp], bottom: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]
    ) -> NDArray[np.int32]:
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


def _running_sums(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    # They run over beyond 8.4 megapixels; modulo 2^32 their differences are right for windows up to that size.
    return np.asarray(cv2.integral(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), sdepth=cv2.CV_32S), dtype=np.int32)


def _differences(
    sums: NDArray[np.int32],
    top: NDArray[np.intp],
    bottom: NDArray[np.intp],
    left: NDArray[np.intp],
    right: NDArray[np.intp],
) -> NDArray[np.int32]:
    strips = sums[bottom]
    strips -= sums[top]
    windows = strips.take(right, axis=1)
    windows -= strips.take(left, axis=1)
    return windows


def _normalised(sums: NDArray[np.int32], heights: NDArray[np.intp], widths: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return window sums (…, h, w, 4) as means (…, h, w, 3) about zero, in float32 and in torch's order of division."""
    columns = sums.shape[-2]
    means = sums.astype(np.float32).reshape(*sums.shape[:-2], columns * CHANNELS)
    means /= heights.astype(np.float32)[..., np.newaxis]
    means /= np.repeat(widths.astype(np.float32), CHANNELS, axis=-1)[..., np.newaxis, :]
    means -= 127.5
    means *= np.float32(0.0078125)
    pixels = cv2.cvtColor(means.reshape(-1, columns, CHANNELS), cv2.COLOR_RGBA2RGB)
    return np.asarray(pixels, dtype=np.float32).reshape(*sums.shape[:-1], 3)


Net = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]
TILE = (152, 264)  # the largest P-Net input: fits a cache, holds the first two scales of 250 by 250, bounds the memory


class ProposalNet(Protocol):
    """P-Net with the shapes of its inputs: it says how the scales of a picture are laid out."""

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return inputs that together show every cell of scales with these heights and widths once."""

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return the image to fill before `run`, float32 (3, height, width); between its tiles it may hold anything."""

    def run(self, sheet: Sheet) -> Outputs:
        """Return regression (4, rows, columns) and probability (rows, columns); they hold until the next call."""


class TileByTile:
    """A `ProposalNet` of a network that takes any shape for the same price: every tile is an input of its own."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._image: NDArray[np.float32] = np.empty((1, 3, 0, 0), dtype=np.float32)

    def sheets(self, sizes: Sequence[Size]) -> Sequence[Sheet]:
        """Return a sheet for each tile, whose pooling at the edges is then the network's own."""
        return [Sheet((tile.height, tile.width), (Placed(tile, 0, 0),)) for tile in cut(tuple(sizes), TILE)]

    def canvas(self, sheet: Sheet) -> NDArray[np.float32]:
        """Return an image of the tile's size."""
        self._image = np.empty((1, *sheet.size, 3), dtype=np.float32).transpose(0, 3, 1, 2)
        image: NDArray[np.float32] = self._image[0]
        return image

    def run(self, sheet: Sheet) -> Outputs:  # noqa: ARG002 - the image has the sheet's size
        """Run the network."""
        regression, probability = self._net(self._image)
        return regression[0], probability[0, 1]


def proposed(net: ProposalNet, integral: IntegralImage, sizes: Sequence[Size]) -> Iterator[tuple[Tile, Outputs]]:
    """Yield each tile of the picture at these heights and widths with its cells' regression and probability."""
    for sheet in net.sheets(sizes):
        canvas = net.canvas(sheet)
        for placed in sheet.tiles:
            tile, top, left = placed.tile, placed.top, placed.left
            rows, columns = (
                slice(STRIDE * first, STRIDE * first + side)
                for first, side in ((tile.row, tile.height), (tile.column, tile.width))
            )
            integral.scaled(
                *sizes[tile.scale],
                (rows, columns),
                out=canvas[:, top : top + tile.height, left : left + tile.width],
            )
        regression, probability = net.run(sheet)
        for placed in sheet.tiles:
            (rows_, columns_), top, left = placed.tile.cells, placed.top // STRIDE, placed.left // STRIDE
            part = np.s_[top : top + rows_, left : left + columns_]
            yield placed.tile, (regression[:, *part], probability[part])
