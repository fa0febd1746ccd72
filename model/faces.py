"""The faces of a picture as plain frozen values, which cross process boundaries by pickle."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Landmarks = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture; it may extend beyond the picture by a few pixels."""

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
    """A face found by the detector.

    `probability` is between the detector's threshold and 1. `landmarks` are five (x, y) points in pixels: left eye,
    right eye, nose, left and right corner of the mouth, where left is the picture's left.
    """

    box: Box
    probability: float
    landmarks: Landmarks


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the photo of a face suits recognition (`model.quality`).

    `score` is from 0, useless, to 1, no loss of similarity; `reasons` has the worst first.
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
    """None if it was not assessed."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageAnalysis:
    """The faces of one picture: the primary one first, the others by the same rule in descending order.

    `width` and `height` are those of the upright picture. `timings_ms` has the wall time of the stages `decode`,
    `detect` and `embed` in milliseconds. The time of a batch is shared: in detection by the pictures' pixels, in
    embedding equally by the faces. `more_faces` is the number of smaller faces that were found but not embedded.
    """

    width: int
    height: int
    faces: tuple[EmbeddedFace, ...]
    timings_ms: Mapping[str, float]
    more_faces: int = 0
