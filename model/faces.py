"""The faces of a picture as plain frozen values, which cross process boundaries by pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # A process that only hands packed faces on has no need of numpy.
    import numpy as np
    from numpy.typing import NDArray

Landmarks = tuple[tuple[float, float], ...]


class PictureToEnrol(bytes):
    """A picture whose faces are to be enrolled: each comes with a thumbnail. Otherwise it is like any other picture."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture."""

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
    """A face found by the detector; box and landmarks may lie beyond the picture's edges.

    `probability` is between the detector's threshold and 1. `landmarks` are five (x, y) points in pixels: left eye,
    right eye, nose, left and right corner of the mouth, where left is the picture's left.
    """

    box: Box
    probability: float
    landmarks: Landmarks

    def clipped(self, width: int, height: int) -> "DetectedFace | None":
        """Return the face within a picture of this size: what lies beyond an edge is moved to it.

        None if no part of the box is inside, or if a coordinate is not finite.
        """
        xs, ys = zip((self.box.x_min, self.box.y_min), (self.box.x_max, self.box.y_max), *self.landmarks, strict=True)
        if not all(map(isfinite, (*xs, *ys))):
            return None
        xs, ys = (
            tuple(min(max(0.0, value), float(side)) for value in values) for values, side in ((xs, width), (ys, height))
        )
        if xs[0] >= xs[1] or ys[0] >= ys[1]:
            return None
        box = Box(x_min=xs[0], y_min=ys[0], x_max=xs[1], y_max=ys[1])
        return DetectedFace(box, self.probability, tuple(zip(xs[2:], ys[2:], strict=True)))


class QualityFactor(NamedTuple):
    """One property's share in the quality, from 0 to 1, and the reason that a low one gives (`model.quality`)."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the photo of a face suits recognition (`model.quality`).

    `score` is from 0, useless, to 1, no loss of similarity; `reasons` has the worst first.
    """

    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeasuredFace:
    """A face before it is embedded; box and landmarks lie within the picture."""

    box: Box
    probability: float
    landmarks: Landmarks
    factors: tuple[QualityFactor, ...]
    """Those that the photo gives; none for a face without a pixel in the picture."""
    thumbnail: bytes | None = None
    """A JPEG (`model.thumbnails`), of a face of a `PictureToEnrol`."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureFaces:
    """The faces of one picture before they are embedded; order, size, timings and `more_faces` as in `ImageAnalysis`.

    `crops` are uint8 (N, S, S, 3), one per face, in the size that the embedder takes; S is 0 without a face.
    """

    width: int
    height: int
    faces: tuple[MeasuredFace, ...]
    crops: "NDArray[np.uint8]"
    timings_ms: Mapping[str, float]
    more_faces: int = 0


@dataclass(frozen=True, slots=True)
class PackedFaces:
    """`PictureFaces` whose crops were packed by `facerec.faces_message`: plain values and bytes."""

    width: int
    height: int
    faces: tuple[MeasuredFace, ...]
    crop_side: int
    """S; 0 without a face."""
    crops: bytes
    timings_ms: Mapping[str, float]
    more_faces: int = 0


@dataclass(frozen=True, slots=True)
class JpegFaces:
    """`PictureFaces` whose crops are JPEG files from elsewhere, one per face, which are not trusted: plain values."""

    width: int
    height: int
    faces: tuple[MeasuredFace, ...]
    crops: tuple[bytes, ...]
    more_faces: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFace:
    """A face with its embedding, float32 (D,), L2-normalised; D is the model's dimension.

    Box and landmarks lie within the picture: those of a face that an edge cuts end at the edge.
    """

    box: Box
    probability: float
    landmarks: Landmarks
    embedding: "NDArray[np.float32]"
    quality: Quality | None = None
    """None if it was not assessed."""
    thumbnail: bytes | None = None
    """As in `MeasuredFace`."""


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
