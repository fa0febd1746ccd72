"""Non-maximum suppression in the two forms that MTCNN uses, each with its own rounding and treatment of ties."""

import numpy as np
from numpy.typing import NDArray


def suppress_by_union(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the indices of the boxes kept, best first: torchvision's `nms`.

    `boxes` is float32 (N, 4) as x_min, y_min, x_max, y_max. A box falls when its intersection over union with
    a better kept one exceeds `threshold`; equal scores keep their order.
    """
    remaining = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[np.intp] = []
    while remaining.size:
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        overlap = _intersections(boxes[best], boxes[remaining], edge=0)
        with np.errstate(invalid="ignore"):  # two boxes without area: 0/0 is no overlap
            remaining = remaining[~(overlap / (areas[best] + areas[remaining] - overlap) > threshold)]
    return np.array(kept, dtype=np.intp)


def suppress_by_smaller(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float) -> NDArray[np.intp]:
    """Return the indices of the boxes kept, best first: facenet-pytorch's `nms_numpy` with method "Min".

    The intersection is divided by the smaller area, so that a face inside a larger one falls. Pixels count
    inclusively (+1), unlike in `suppress_by_union`, and the sort is numpy's default, as published.
    """
    remaining = np.argsort(scores)
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    kept: list[np.intp] = []
    while remaining.size:
        best, remaining = remaining[-1], remaining[:-1]
        kept.append(best)
        overlap = _intersections(boxes[best], boxes[remaining], edge=1)
        remaining = remaining[overlap / np.minimum(areas[best], areas[remaining]) <= threshold]
    return np.array(kept, dtype=np.intp)


def _intersections(box: NDArray[np.float32], others: NDArray[np.float32], *, edge: int) -> NDArray[np.float32]:
    widths = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]) + edge
    heights = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]) + edge
    overlap: NDArray[np.float32] = np.maximum(0, widths) * np.maximum(0, heights)
    return overlap
