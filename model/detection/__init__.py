"""Detectors find the faces of a picture. One interface for all packs, and the suppression of repeated boxes."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.faces import DetectedFace

Net = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]
"""A network: images float32 (N, 3, H, W) in, its outputs out."""
Boxes = NDArray[np.float32]
"""(N, 4), each box as x_min, y_min, x_max, y_max."""
_Overlaps = Callable[[Boxes, Boxes], NDArray[np.bool_]]

_BLOCK = 128  # boxes that are compared with each other at a time
_OTHERS = 4096  # boxes that are compared with a block at a time; it bounds the memory for any number of boxes


class Detector(Protocol):
    """Finds faces, for one thread at a time."""

    def min_side(self, width: int, height: int, min_face_pixels: int | None) -> int | None:
        """Return the least length of a picture's longer side for `detect_batch`; None stands for its full size.

        `width` and `height` are the picture's own; `min_face_pixels` is the smallest face to find in it.
        """

    def detect_batch(
        self, images: Sequence[NDArray[np.uint8]], sides: Sequence[int | None]
    ) -> list[list[DetectedFace]]:
        """Return the faces of each RGB picture (H, W, 3), in its pixels, the largest first.

        `sides` is the result of `min_side` for each picture; the picture itself may be larger.
        """


def suppress_by_union(boxes: Boxes, scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the indices of the boxes kept, best first: torchvision's `nms`.

    A box is dropped if its intersection over union with a better kept one exceeds `threshold`; equal scores keep
    their order.
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

    The intersection is divided by the smaller area, so that a face inside a larger one is dropped. Pixels count
    inclusively (+1), unlike in `suppress_by_union`, and the sort is numpy's default, as published.
    """

    def overlap(better: Boxes, others: Boxes) -> NDArray[np.bool_]:
        shared = _intersections(better, others, edge=1)
        smaller = np.minimum(_areas(better, edge=1)[:, np.newaxis], _areas(others, edge=1))
        return ~(shared / smaller <= threshold)

    return _suppress(boxes, np.argsort(scores)[::-1], overlap)


def _suppress(boxes: Boxes, remaining: NDArray[np.intp], overlap: _Overlaps) -> NDArray[np.intp]:
    """Return those of `remaining`, indices with the best first, that overlap no better kept box."""
    kept = []
    while remaining.size > 1:
        block, remaining = remaining[:_BLOCK], remaining[_BLOCK:]
        best = boxes[block]
        survivors = _survivors(overlap(best, best))
        kept.append(block[survivors])
        if remaining.size:
            parts = (remaining[first : first + _OTHERS] for first in range(0, remaining.size, _OTHERS))
            remaining = np.concatenate([part[~overlap(best[survivors], boxes[part]).any(axis=0)] for part in parts])
    return np.concatenate([*kept, remaining])


def _survivors(overlaps: NDArray[np.bool_]) -> list[int]:
    """Return which of N boxes, the best first, are kept, given which of them overlap, bool (N, N)."""
    rows = np.packbits(overlaps, axis=1, bitorder="little")
    width, content = rows.shape[1], rows.tobytes()
    dropped, survivors = 0, []
    for index in range(len(rows)):
        if not dropped >> index & 1:
            survivors.append(index)
            dropped |= int.from_bytes(content[index * width : (index + 1) * width], "little")
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
