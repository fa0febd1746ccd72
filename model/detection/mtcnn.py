"""MTCNN face detection, equal to facenet-pytorch 2.5.3's to a fraction of a pixel, without torch.

Three small networks in a row: P-Net proposes faces at every scale of a pyramid, R-Net filters and refines them, O-Net
decides and finds the landmarks (Zhang et al. 2016, arXiv:1604.02878). The code around them follows the published
code in its float32 rounding, because a floor that falls the other way moves a box by a whole pixel.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from model.detection import Boxes, Net, suppress_by_smaller, suppress_by_union
from model.detection.integral_image import IntegralImage
from model.detection.proposals import CELL, STRIDE, Outputs, ProposalNet, Tile, TileByTile, propose
from model.faces import Box, DetectedFace

BATCHES = {24: 64, 48: 16}
"""Crops at a time, by their side in pixels: a batch fits a cache, and bounds the memory for any number of crops."""


class Mtcnn:
    """The `Detector` made of three networks, each a `Net`; P-Net may be a `ProposalNet` instead.

    P-Net and R-Net return regression and probability, O-Net regression, landmarks and probability, with the shapes in
    `model.export`. `min_face_size` is in pixels, `thresholds` are the three networks' least probabilities, `factor` is
    the ratio of neighbouring scales.
    """

    def __init__(
        self,
        pnet: Net | ProposalNet,
        rnet: Net,
        onet: Net,
        min_face_size: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
    ) -> None:
        self._pnet = TileByTile(pnet) if callable(pnet) else pnet
        self._rnet = rnet
        self._onet = onet
        self._min_face_size = min_face_size
        self._thresholds = thresholds
        self._factor = factor

    def min_side(self, width: int, height: int, min_face_pixels: int | None) -> None:
        """Return None: a picture is always searched in full size, as published."""

    def detect_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        sides: Sequence[int | None],  # noqa: ARG002 - as `Detector`
    ) -> list[list[DetectedFace]]:
        """Return the faces of each picture; R-Net and O-Net process the crops of all pictures together.

        It holds 16 bytes for each pixel of all the pictures.
        """
        if not images:
            return []
        integrals = [IntegralImage(image) for image in images]
        proposals = [self._propose(integral) for integral in integrals]
        return [_faces(*decided) for decided in self._decide(integrals, self._refine(integrals, proposals))]

    def _propose(self, integral: IntegralImage) -> Boxes:
        """Return P-Net's proposals as squares, float32 (N, 4)."""
        scales = pyramid_scales(integral.height, integral.width, self._min_face_size, self._factor)
        sizes = tuple((int(integral.height * scale + 1), int(integral.width * scale + 1)) for scale in scales)
        candidates: list[list[NDArray[np.float32]]] = [[] for _ in scales]
        for tile, outputs in propose(self._pnet, integral, sizes):
            found = _candidates(tile, outputs, scales[tile.scale], self._thresholds[0])
            if found.size:
                candidates[tile.scale].append(found)
        survivors = [np.empty((0, 9), dtype=np.float32)]
        for parts in candidates:
            if parts:
                level = _row_by_row(parts)
                survivors.append(level[suppress_by_union(level[:, :4], level[:, 4], 0.5)])
        proposals = np.concatenate(survivors)
        proposals = proposals[suppress_by_union(proposals[:, :4], proposals[:, 4], 0.7)]
        boxes, offsets = proposals[:, :4], proposals[:, 5:]
        sides = boxes[:, 2:] - boxes[:, :2]
        return _squared(boxes + offsets * np.tile(sides, 2))

    def _refine(
        self, integrals: Sequence[IntegralImage], proposals: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Return the squares of each picture that R-Net keeps, moved by its regression, float32 (N, 4)."""
        refined = []
        for boxes, (regression, probability) in _classify(self._rnet, integrals, proposals, 24, outputs=(4, 2)):
            passed = np.flatnonzero(probability[:, 1] > self._thresholds[1])
            kept = passed[suppress_by_union(boxes[passed], probability[passed, 1], 0.7)]
            refined.append(_squared(_regressed(boxes[kept], regression[kept])))
        return refined

    def _decide(
        self, integrals: Sequence[IntegralImage], refined: Sequence[NDArray[np.float32]]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]]:
        """Return O-Net's faces of each picture: boxes (N, 4), probabilities (N,) and landmarks (N, 5, 2), float32."""
        decided = []
        for boxes, (regression, points, probability) in _classify(
            self._onet, integrals, refined, 48, outputs=(4, 10, 2)
        ):
            passed = np.flatnonzero(probability[:, 1] > self._thresholds[2])
            shown, scores = boxes[passed], probability[passed, 1]
            sides = shown[:, 2:] - shown[:, :2] + 1
            # Five x, then five y, as fractions of the box that was cut out for O-Net.
            landmarks = points[passed].reshape(-1, 2, 5).transpose(0, 2, 1) * sides[:, np.newaxis]
            landmarks = landmarks + shown[:, np.newaxis, :2] - 1
            moved = _regressed(shown, regression[passed])
            kept = suppress_by_smaller(moved, scores, 0.7)
            decided.append((moved[kept], scores[kept], landmarks[kept]))
        return decided


def pyramid_scales(height: int, width: int, min_face_size: int, factor: float) -> list[float]:
    """Return P-Net's scales: from the smallest face filling one cell to the whole picture filling one cell."""
    scale = CELL / min_face_size
    side = min(height, width) * scale
    scales = []
    while side >= CELL:
        scales.append(scale)
        scale *= factor
        side *= factor
    return scales


def _candidates(tile: Tile, outputs: Outputs, scale: float, threshold: float) -> NDArray[np.float32]:
    """Return the cells above the threshold: box, probability, regression, float32 (N, 9)."""
    regression, probability = outputs
    rows, columns = np.nonzero(probability >= threshold)
    found = np.empty((rows.size, 9), dtype=np.float32)
    if rows.size:
        corners = np.stack([columns + tile.column, rows + tile.row], axis=1).astype(np.float32) * STRIDE
        np.floor((corners + 1) / np.float32(scale), out=found[:, :2])
        np.floor((corners + CELL) / np.float32(scale), out=found[:, 2:4])
        found[:, 4] = probability[rows, columns]
        found[:, 5:] = regression[:, rows, columns].T
    return found


def _row_by_row(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the candidates of one scale in the order of its cells, which breaks ties between probabilities."""
    candidates = np.concatenate(parts)
    return candidates if len(parts) == 1 else candidates[np.lexsort((candidates[:, 0], candidates[:, 1]))]


def _classify(
    net: Net,
    integrals: Sequence[IntegralImage],
    proposals: Sequence[NDArray[np.float32]],
    size: int,
    *,
    outputs: tuple[int, ...],
) -> list[tuple[NDArray[np.float32], list[NDArray[np.float32]]]]:
    """Return, for each picture, its boxes that contain at least one pixel of it, and the net's outputs for their crops.

    The published code cuts with 1-based inclusive corners, and fails for a box wholly outside the picture.
    """
    cuts = [_cut(integral, boxes) for integral, boxes in zip(integrals, proposals, strict=True)]
    ends = np.cumsum([len(boxes) for boxes, _ in cuts])
    results = [np.empty((ends[-1], columns), dtype=np.float32) for columns in outputs]
    crops = _batched(integrals, [corners for _, corners in cuts], size)
    for first in range(0, ends[-1], BATCHES[size]):
        for result, part in zip(results, net(next(crops)), strict=True):
            result[first : first + len(part)] = part
    shares = zip(*(np.split(result, ends[:-1]) for result in results), strict=True)
    return [(boxes, list(share)) for (boxes, _), share in zip(cuts, shares, strict=True)]


def _cut(integral: IntegralImage, boxes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the boxes that overlap the picture, and their parts inside it, 0-based and past-the-end (N, 4)."""
    corners = np.trunc(boxes).astype(np.intp)
    np.maximum(corners[:, :2], 1, out=corners[:, :2])
    corners[:, :2] -= 1
    np.minimum(corners[:, 2:], (integral.width, integral.height), out=corners[:, 2:])
    inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return boxes[inside], corners[inside]


def _batched(
    integrals: Sequence[IntegralImage], corners: Sequence[NDArray[np.intp]], size: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the crops of all the pictures in their order, in full batches and the rest last."""
    batch: list[NDArray[np.float32]] = []
    room = BATCHES[size]
    for integral, boxes in zip(integrals, corners, strict=True):
        first = 0
        while first < len(boxes):
            part = boxes[first : first + room]
            batch.append(integral.crops(part, size))
            first += len(part)
            room -= len(part)
            if not room:
                yield np.concatenate(batch)
                batch, room = [], BATCHES[size]
    if batch:
        yield np.concatenate(batch) if len(batch) > 1 else batch[0]


def _faces(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> list[DetectedFace]:
    """Return the faces as values, the largest first."""
    largest_first = np.argsort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[::-1]
    return [
        DetectedFace(
            Box(*boxes[face].tolist()),
            float(scores[face]),
            tuple((x, y) for x, y in landmarks[face].tolist()),
        )
        for face in largest_first
    ]


def _regressed(boxes: NDArray[np.float32], regression: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the boxes with each corner moved by its fraction of the sides, counted inclusively (`bbreg`)."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    moved: NDArray[np.float32] = boxes + regression * np.tile(sides, 2)
    return moved


def _squared(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each box grown about its centre to a square (`rerec`)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(axis=1, keepdims=True)
    corners = boxes[:, :2] + sides * np.float32(0.5) - longest * np.float32(0.5)
    return np.concatenate([corners, corners + longest], axis=1)
