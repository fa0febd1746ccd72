"""What the engine finds in a picture: plain frozen values that cross process boundaries by pickle."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Landmarks = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture; it may reach over the picture's edge by a few pixels."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def area(self) -> float:
        """In square pixels."""
        return (self.x_max - self.x_min) * (self.y_max - self.y_min)


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face as the detector sees it.

    `probability` is the last network's, between its threshold and 1. `landmarks` are five (x, y) points in pixels:
    left eye, right eye, nose, left and right corner of the mouth, where left is the picture's left.
    """

    box: Box
    probability: float
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a face can be recognised by how it was taken (`model.quality`).

    `score` is 1 for a photo that costs no similarity, 0 for one that is of no use; `reasons` has the worst first.
    """

    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFace:
    """A detected face with its embedding, float32 (D,), L2-normalised; D is the model's dimension."""

    box: Box
    probability: float
    landmarks: Landmarks
    embedding: NDArray[np.float32]
    quality: Quality | None = None
    """How well it can be recognised, where that was looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageAnalysis:
    """The faces of one picture, the primary one first, the others by the same rule in descending order.

    `width` and `height` are those of the upright picture. `timings_ms` has the wall time of the stages `decode`,
    `detect` and `embed` in milliseconds; of a detection shared by a batch each picture bears a part as large as its
    share of the pixels, of a shared embedding each face an equal part. `more_faces` is how many further ones were seen
    and not embedded, the smallest.
    """

    width: int
    height: int
    faces: tuple[EmbeddedFace, ...]
    timings_ms: Mapping[str, float]
    more_faces: int = 0
