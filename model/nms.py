"""Non-maximum suppression in the two forms that MTCNN uses, each with its own rounding and treatment of ties.

Both compare a block of boxes with all others at once, and walk through the block on the bits of the answer: as exact
as one box at a time, for a fraction of the array operations.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

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
