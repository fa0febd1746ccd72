"""MTCNN face detection, equal to facenet-pytorch 2.5.3's to a fraction of a pixel, without torch.

Three small networks in a row: P-Net proposes faces at every scale of a pyramid, R-Net weeds and refines, O-Net
decides and finds the landmarks (Zhang et al. 2016, arXiv:1604.02878). What surrounds them follows the published
code in its float32 roundings, because a floor that falls the other way moves a box by a whole pixel.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from model.faces import Box, DetectedFace
from model.nms import suppress_by_smaller, suppress_by_union
from model.pyramid import IntegralImage

Net = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], ...]]

CELL = 12  # pixels that one P-Net output looks at
STRIDE = 2  # pixels between neighbouring P-Net outputs
BAND_PIXELS = 1 << 17  # P-Net input at a time: fits a cache, and bounds its memory for a picture of any size
BATCH = 512  # crops at a time, for the same reason


class Detector:
    """Finds faces with three networks, each a callable from float32 (N, 3, H, W) to a tuple of arrays.

    P-Net and R-Net return regression and probability, O-Net regression, landmarks and probability, shaped as
    `model.export.mtcnn` says. `min_face_size` is in pixels, `thresholds` are the three networks' probabilities,
    `factor` is the ratio of neighbouring scales.
    """

    def __init__(
        self,
        pnet: Net,
        rnet: Net,
        onet: Net,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ) -> None:
        self._pnet = pnet
        self._rnet = rnet
        self._onet = onet
        self._min_face_size = min_face_size
        self._thresholds = thresholds
        self._factor = factor

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces of an RGB picture (H, W, 3), the largest first; none in one too small to hold a face."""
        scales = pyramid_scales(image.shape[0], image.shape[1], self._min_face_size, self._factor)
        if not scales:
            return []
        integral = IntegralImage(image)
        boxes = self._refine(integral, self._propose(integral, scales))
        boxes, scores, landmarks = self._decide(integral, boxes)
        largest_first = np.argsort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[::-1]
        return [
            DetectedFace(
                Box(*boxes[face].tolist()),
                float(scores[face]),
                tuple((x, y) for x, y in landmarks[face].tolist()),
            )
            for face in largest_first
        ]

    def _propose(self, integral: IntegralImage, scales: list[float]) -> NDArray[np.float32]:
        """Return P-Net's proposals as squares, float32 (N, 4)."""
        survivors = []
        for scale in scales:
            candidates = self._candidates(integral, scale)
            survivors.append(candidates[suppress_by_union(candidates[:, :4], candidates[:, 4], 0.5)])
        proposals = np.concatenate(survivors)
        proposals = proposals[suppress_by_union(proposals[:, :4], proposals[:, 4], 0.7)]
        boxes, offsets = proposals[:, :4], proposals[:, 5:]
        sides = boxes[:, 2:] - boxes[:, :2]
        return _squared(boxes + offsets * np.tile(sides, 2))

    def _candidates(self, integral: IntegralImage, scale: float) -> NDArray[np.float32]:
        """Return the cells of one scale above the threshold: box, probability, regression, float32 (N, 9)."""
        found = []
        for first_row, level in _bands(integral, scale):
            regression, probability = self._pnet(level)
            face = probability[0, 1]
            rows, columns = np.nonzero(face >= self._thresholds[0])
            corners = STRIDE * np.stack([columns, rows + first_row], axis=1).astype(np.float32)
            found.append(
                np.concatenate(
                    [
                        np.floor((corners + 1) / np.float32(scale)),
                        np.floor((corners + CELL) / np.float32(scale)),
                        face[rows, columns, np.newaxis],
                        regression[0][:, rows, columns].T,
                    ],
                    axis=1,
                )
            )
        return np.concatenate(found)

    def _refine(self, integral: IntegralImage, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the squares that R-Net keeps, moved to where it sees the face, float32 (N, 4)."""
        boxes, (regression, probability) = _classify(self._rnet, integral, boxes, 24, outputs=(4, 2))
        passed = probability[:, 1] > self._thresholds[1]
        boxes, regression, scores = boxes[passed], regression[passed], probability[passed, 1]
        kept = suppress_by_union(boxes, scores, 0.7)
        return _squared(_regressed(boxes[kept], regression[kept]))

    def _decide(
        self, integral: IntegralImage, boxes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return O-Net's faces: boxes (N, 4), probabilities (N,) and landmarks (N, 5, 2), all float32."""
        boxes, (regression, points, probability) = _classify(self._onet, integral, boxes, 48, outputs=(4, 10, 2))
        passed = probability[:, 1] > self._thresholds[2]
        boxes, regression, points, scores = boxes[passed], regression[passed], points[passed], probability[passed, 1]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        # Five x, then five y, as fractions of the box that O-Net was shown.
        landmarks = points.reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, np.newaxis] + boxes[:, np.newaxis, :2] - 1
        boxes = _regressed(boxes, regression)
        kept = suppress_by_smaller(boxes, scores, 0.7)
        return boxes[kept], scores[kept], landmarks[kept]


def pyramid_scales(height: int, width: int, min_face_size: int, factor: float) -> list[float]:
    """Return the scales for P-Net: from the smallest face filling one cell to the whole picture filling one."""
    scale = CELL / min_face_size
    side = min(height, width) * scale
    scales = []
    while side >= CELL:
        scales.append(scale)
        scale *= factor
        side *= factor
    return scales


def _bands(integral: IntegralImage, scale: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield one scale of the picture in bands of whole P-Net rows: (first output row, float32 (1, 3, rows, width)).

    P-Net has no padding, so bands that overlap by what a cell sees beyond its stride give the very values of
    the whole; only the last may end in the half-filled window that its pooling layer allows at the picture's edge.
    """
    height, width = int(integral.height * scale + 1), int(integral.width * scale + 1)
    rows = (height - CELL + 1) // STRIDE + 1
    step = max(1, BAND_PIXELS // (STRIDE * width))
    for first in range(0, rows, step):
        end = height if first + step >= rows else STRIDE * (first + step - 1) + CELL
        yield first, integral.scaled(height, width, slice(STRIDE * first, end))


def _classify(
    net: Net, integral: IntegralImage, boxes: NDArray[np.float32], size: int, *, outputs: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
    """Return the boxes that hold at least one pixel of the picture, and the net's outputs for their crops.

    The published code cuts with 1-based inclusive corners and fails where a box lies wholly outside.
    """
    corners = np.trunc(boxes).astype(np.intp)
    np.maximum(corners[:, :2], 1, out=corners[:, :2])
    corners[:, :2] -= 1
    np.minimum(corners[:, 2:], (integral.width, integral.height), out=corners[:, 2:])
    inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    boxes, corners = boxes[inside], corners[inside]
    if not len(boxes):
        return boxes, tuple(np.empty((0, columns), dtype=np.float32) for columns in outputs)
    batches = [net(integral.crops(corners[first : first + BATCH], size)) for first in range(0, len(corners), BATCH)]
    return boxes, tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))


def _regressed(boxes: NDArray[np.float32], regression: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move each corner by its fraction of the box's sides, counted inclusively (`bbreg`)."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    moved: NDArray[np.float32] = boxes + regression * np.tile(sides, 2)
    return moved


def _squared(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grow each box about its centre to a square (`rerec`)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(axis=1, keepdims=True)
    corners = boxes[:, :2] + sides * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([corners, corners + longest], axis=1)
