"""Grid detectors: every cell of three grids over the picture gives a score, a box and five points of a face.

YuNet (Wu et al., "YuNet: a tiny millisecond-level face detector", 2023) and SCRFD (Guo et al., arXiv:2105.04714) differ
only in how a cell's numbers are read. Both find faces from 10 pixels up to about 40 % of their input, so a large
picture is searched at two sizes: small as a whole, and in detail.

YuNet underestimates how far a head is turned in the plane: its points show about half of the turn, and the embedding
moves away from the upright one (30 degrees: median cosine 0.75 on 32 photos). Such a face is turned back and detected
a second time (0.93). A third time would not help, because the points are biased towards the level of each input.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import atan2, ceil, cos, hypot, radians, sin, sqrt
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from model.alignment import warp
from model.detection import Net, suppress_by_union
from model.faces import Box, DetectedFace, Landmarks

STRIDES = (8, 16, 32)
SMALL_SIDE, WHOLE_SIDE, DETAIL_SIDE = 160, 256, 640
"""Lengths of the longer side of an input: a thumbnail, any other picture as a whole, and in detail."""
LARGEST_SIDE = 3840  # the longest input when small faces are asked for: it takes 1 GB

_THUMBNAIL = 128  # the longer side of a thumbnail at most, in pixels
_WHOLE_IS_ENOUGH = 400  # the longer side up to which `WHOLE_SIDE` loses no detail, in pixels
_MIN_FACE_PIXELS = 10  # the smallest face that these networks find, in pixels (YuNet, section 4)
_SECOND_LOOKS = 100  # faces of a picture that are detected a second time at most, the largest first
_LARGEST_EXPONENT = 7.0
"""The limit of a size's exponent, in strides: beyond any input, and small enough for float32."""
_ASTRAY = 0.2  # a face farther than this share of the side from the middle of a second input is another face
_BATCH, _BATCH_PIXELS = 8, 640 * 640  # inputs in a batch, and their pixels together; they bound the memory

Floats = NDArray[np.float32]


class GridReading(Protocol):
    """How a network's inputs are made and its outputs are read.

    `GridDetector` reads the networks that have this in common; any other needs a `Detector` of its own:

    - a grid for each of `STRIDES`: A entries, `anchors` for each cell, the cells row by row;
    - outputs `bbox_<stride>` (N, A, 4) and `kps_<stride>` (N, A, 10);
    - boxes that depend on the cell and not on which of its anchors gave them;
    - five points as (x, y) offsets from the cell, in strides.
    """

    anchors: int
    """How many entries each cell has."""
    outputs: tuple[str, ...]
    """The network's outputs in their order: `<kind>_<stride>`, with the kinds `bbox`, `kps` and those of `scores`."""

    def pixels(self, canvases: NDArray[np.uint8]) -> Floats:
        """Return the network's input (N, 3, H, W) for RGB canvases (N, H, W, 3)."""

    def scores(self, outputs: Mapping[str, Floats], stride: int) -> Floats:
        """Return the scores (N, A) of a grid's entries, 0 to 1."""

    def boxes(self, values: Floats, cells: Floats, stride: int) -> Floats:
        """Return boxes (K, 4) as corners in pixels, from the network's values (K, 4) and the cells' (column, row)."""


class YuNet:
    """YuNet of March 2023 as OpenCV Zoo publishes it: BGR from 0 to 255, one face a cell, sizes as exponents."""

    anchors = 1
    outputs = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)

    def pixels(self, canvases: NDArray[np.uint8]) -> Floats:
        """Return the canvases as BGR."""
        return np.asarray(cv2.dnn.blobFromImages(list(canvases), swapRB=True), dtype=np.float32)

    def scores(self, outputs: Mapping[str, Floats], stride: int) -> Floats:
        """Return the geometric mean of class and objectness."""
        product = outputs[f"cls_{stride}"][..., 0] * outputs[f"obj_{stride}"][..., 0]
        return np.asarray(np.sqrt(product.clip(0, 1)), dtype=np.float32)

    def boxes(self, values: Floats, cells: Floats, stride: int) -> Floats:
        """Return centre and size as corners."""
        centres = (cells + values[:, :2]) * stride
        halves = np.exp(values[:, 2:].clip(max=_LARGEST_EXPONENT)) * (stride / 2)
        return np.concatenate([centres - halves, centres + halves], axis=1)


class Scrfd:
    """SCRFD with keypoints: RGB from -1 to 1, two faces a cell, distances to the four sides."""

    anchors = 2
    outputs = tuple(f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES)

    def pixels(self, canvases: NDArray[np.uint8]) -> Floats:
        """Return (x - 127.5) / 128."""
        blob = cv2.dnn.blobFromImages(list(canvases), 1 / 128, mean=(127.5, 127.5, 127.5))
        return np.asarray(blob, dtype=np.float32)

    def scores(self, outputs: Mapping[str, Floats], stride: int) -> Floats:
        """Return the network's own scores."""
        return outputs[f"score_{stride}"][..., 0]

    def boxes(self, values: Floats, cells: Floats, stride: int) -> Floats:
        """Return the four sides from their distances to the cell's corner."""
        corners = cells * stride
        return np.concatenate([corners - values[:, :2] * stride, corners + values[:, 2:] * stride], axis=1)


READINGS: dict[str, type[GridReading]] = {"yunet": YuNet, "scrfd": Scrfd}
"""By a pack's `detector.kind`. docs/architecture.md lists what else a new detector touches."""


@dataclass(frozen=True, slots=True)
class _View:
    """One picture at one size."""

    picture: int
    scale: float
    """Pixels of the view per pixel of the picture."""
    width: int
    height: int
    canvas: tuple[int, int]
    """Height and width of the network's input, at least the view's."""


class _Answers(NamedTuple):
    """The faces that a network found, in pixels of its input."""

    scores: Floats
    """(K,)."""
    boxes: Floats
    """(K, 4)."""
    points: Floats
    """(K, 10), five times x and y."""


class GridDetector:
    """A `Detector` of one network.

    `threshold` is the least score of a face, `overlap` the intersection over union above which two boxes are one face.
    A face is detected a second time, closer, if its score is below `doubtful`, or if its points show a turn above
    `upright_degrees`; it is turned back by `turn_factor` times that turn. A doubtful face that is not found the second
    time is dropped.
    """

    def __init__(
        self,
        net: Net,
        reading: GridReading,
        *,
        threshold: float,
        overlap: float,
        doubtful: float = 0.0,
        upright_degrees: float = 180.0,
        turn_factor: float = 1.0,
    ) -> None:
        self._net = net
        self._reading = reading
        self._threshold = threshold
        self._overlap = overlap
        self._doubtful = doubtful
        self._upright = radians(upright_degrees)
        self._turn_factor = turn_factor

    def min_side(self, width: int, height: int, min_face_pixels: int | None) -> int | None:
        """Return the longer side of the network's largest input.

        Without `min_face_pixels` it shows faces of a 64th of the longer side.
        """
        longer = max(width, height)
        if longer <= _THUMBNAIL:
            side = SMALL_SIDE
        elif longer <= _WHOLE_IS_ENOUGH:
            side = WHOLE_SIDE
        else:
            side = DETAIL_SIDE
        needed = 0 if min_face_pixels is None else _whole_cells(longer * _MIN_FACE_PIXELS / min_face_pixels)
        return min(max(side, needed), LARGEST_SIDE)

    def detect_batch(
        self, images: Sequence[NDArray[np.uint8]], sides: Sequence[int | None]
    ) -> list[list[DetectedFace]]:
        """Return the faces of each picture; the network processes views of equal shape together."""
        views = defaultdict(list)
        for number, (image, side) in enumerate(zip(images, sides, strict=True)):
            for view in _views(number, image, side or max(image.shape)):
                views[view.canvas].append(view)
        found: list[list[_Answers]] = [[] for _ in images]
        for (height, width), alike in views.items():
            at_once = max(1, min(_BATCH, _BATCH_PIXELS // (height * width)))
            for first in range(0, len(alike), at_once):
                group = alike[first : first + at_once]
                canvases = np.zeros((len(group), height, width, 3), dtype=np.uint8)
                for canvas, view in zip(canvases, group, strict=True):
                    canvas[: view.height, : view.width] = resized(images[view.picture], view.width, view.height)
                for view, (scores, boxes, points) in zip(group, self._look(canvases), strict=True):
                    scale = np.float32(view.scale)
                    found[view.picture].append(_Answers(scores, boxes / scale, points / scale))
        return self._closer(images, [self._merged(answers) for answers in found])

    def _look(self, canvases: NDArray[np.uint8]) -> Iterator[_Answers]:
        """Yield the faces that the network finds in each canvas (N, H, W, 3)."""
        outputs = dict(zip(self._reading.outputs, self._net(self._reading.pixels(canvases)), strict=True))
        owners, parts = [], []
        for stride in STRIDES:
            scores = self._reading.scores(outputs, stride)
            owner, place = np.nonzero(scores > self._threshold)
            columns = canvases.shape[2] // stride
            cell = place // self._reading.anchors
            cells = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32)
            owners.append(owner)
            parts.append(
                (
                    scores[owner, place],
                    self._reading.boxes(outputs[f"bbox_{stride}"][owner, place], cells, stride),
                    (np.tile(cells, 5) + outputs[f"kps_{stride}"][owner, place]) * np.float32(stride),
                )
            )
        owner, (scores, boxes, points) = np.concatenate(owners), map(np.concatenate, zip(*parts, strict=True))
        for number in range(len(canvases)):
            mine = owner == number
            yield _Answers(scores[mine], boxes[mine], points[mine])

    def _merged(self, views: Sequence[_Answers]) -> list[DetectedFace]:
        """Return the faces of one picture, each once, the largest first."""
        scores, boxes, points = (np.concatenate(parts) for parts in zip(*views, strict=True))
        kept = suppress_by_union(boxes, scores, self._overlap)
        sides = boxes[kept, 2:] - boxes[kept, :2]
        largest_first = kept[np.argsort(-sides.prod(axis=1), kind="stable")]
        return [
            DetectedFace(Box(*boxes[face].tolist()), float(scores[face]), _pairs(points[face]))
            for face in largest_first
        ]

    def _closer(
        self, images: Sequence[NDArray[np.uint8]], faces: Sequence[Sequence[DetectedFace]]
    ) -> list[list[DetectedFace]]:
        """Return the faces after a second detection of those that are doubtful or turned in the plane."""
        second = [
            (picture, face)
            for picture, found in enumerate(faces)
            for face in found[:_SECOND_LOOKS]
            if face.probability < self._doubtful or abs(_turn(face)) > self._upright
        ]
        seen: dict[tuple[int, DetectedFace], DetectedFace | None] = {}
        for first in range(0, len(second), _BATCH):
            group = second[first : first + _BATCH]
            matrices = [_upright(face, self._turn_factor) for _, face in group]
            canvases = [
                warp(images[picture], matrix, SMALL_SIDE) for (picture, _), matrix in zip(group, matrices, strict=True)
            ]
            looks = self._look(np.stack(canvases))
            for (picture, face), matrix, (_, boxes, points) in zip(group, matrices, looks, strict=True):
                astray = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - SMALL_SIDE / 2).max(axis=1, initial=0)
                if len(astray) and astray.min() <= _ASTRAY * SMALL_SIDE:
                    shown = points[astray.argmin()].reshape(5, 2) - matrix[:, 2]
                    landmarks = _pairs(shown @ np.linalg.inv(matrix[:, :2]).T)
                    seen[picture, face] = replace(face, landmarks=landmarks)
                else:
                    seen[picture, face] = None if face.probability < self._doubtful else face
        return [
            [kept for face in found if (kept := seen.get((picture, face), face)) is not None]
            for picture, found in enumerate(faces)
        ]


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return an RGB picture scaled to a size; below half the size it is averaged, so that nothing aliases."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = 2 * width < image.shape[1] or 2 * height < image.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def _views(number: int, image: NDArray[np.uint8], side: int) -> Iterator[_View]:
    """Yield a picture's views: as a whole, and in detail if `side` asks for more."""
    height, width = image.shape[:2]
    for longer in (side,) if side <= WHOLE_SIDE else (WHOLE_SIDE, side):
        scale = longer / max(height, width)
        shown = max(1, round(width * scale)), max(1, round(height * scale))
        yield _View(number, scale, *shown, (_whole_cells(shown[1]), _whole_cells(shown[0])))


def _whole_cells(pixels: float) -> int:
    """Return the length rounded up to a multiple of the coarsest stride."""
    return ceil(pixels / STRIDES[-1]) * STRIDES[-1]


def _pairs(points: NDArray[np.floating]) -> Landmarks:
    return tuple((x, y) for x, y in points.reshape(5, 2).tolist())


def _turn(face: DetectedFace) -> float:
    """Return the angle of the line between the eyes, in radians; 0 is level."""
    (left_x, left_y), (right_x, right_y) = face.landmarks[:2]
    return atan2(right_y - left_y, right_x - left_x)


def _upright(face: DetectedFace, turn_factor: float) -> NDArray[np.float64]:
    """Return the (2, 3) matrix that turns a face back, centred in `SMALL_SIDE` and half as large."""
    box, turn = face.box, turn_factor * _turn(face)
    side = max(hypot(box.x_max - box.x_min, box.y_max - box.y_min) / sqrt(2), 1.0)
    rotation = SMALL_SIDE / 2 / side * np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]])
    centre = np.array([box.x_min + box.x_max, box.y_min + box.y_max]) / 2
    return np.concatenate([rotation, (SMALL_SIDE / 2 - rotation @ centre)[:, np.newaxis]], axis=1)
