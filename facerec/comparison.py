"""Faces compared with the gallery: the threshold that applies, and the identities that match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facerec.messages import (
    Face,
    FaceQuality,
    Request,
    ResultBox,
    ResultMatch,
    ThresholdSource,
)
from model.faces import EmbeddedFace, ImageAnalysis
from model.tail import ImpostorTail, identification_threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.matching import GalleryIndex

MATCHES_PER_FACE = 5
"""The most identities at or above the threshold that a result lists for each face."""


class GalleryReader(Protocol):
    """The gallery as it is now; its owner keeps it fresh. Every method may raise `Transient`."""

    def index(self, collection: str) -> "GalleryIndex":
        """The searchable templates of a collection; empty if it has none."""

    def threshold(self, collection: str) -> float | None:
        """The collection's calibrated threshold for the model in use; `None` if it was not calibrated."""

    def rejections(self, collection: str) -> "Mapping[str, NDArray[np.float32]]":
        """The faces (K, D), L2-normalised, that are not a person, by the person; usually empty."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The least similarity of a match and where it comes from.

    `false_names` and `extrapolated` apply to the source `model` only.
    """

    value: float
    source: ThresholdSource
    identities: int
    false_names: float | None = None
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class ModelThresholds:
    """The thresholds of a model's table: at most the share `false_names` of strangers gets a name.

    `verification` is the threshold of a one-to-one comparison; no threshold of the table is lower.
    """

    tail: ImpostorTail
    verification: float
    false_names: float

    def threshold(self, identities: int) -> Threshold:
        """The threshold for a collection with this number of identities."""
        found = identification_threshold(self.tail, self.verification, self.false_names, identities)
        return Threshold(found.value, "model", identities, self.false_names, found.extrapolated)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The faces of one picture with their matches."""

    faces: tuple[Face, ...] = ()
    threshold: Threshold | None = None
    """`None` without a face."""
    more_faces: int = 0


NO_FACES = Comparison()
"""That of a picture without a face, or one that was not recognised."""


def compare(
    request: Request, analysis: ImageAnalysis, gallery: GalleryReader, thresholds: ModelThresholds
) -> Comparison:
    """Compare each face with the request's collection; may raise `Transient`."""
    if not analysis.faces:
        return Comparison(more_faces=analysis.more_faces)
    import numpy as np  # the detection function compares nothing

    index = gallery.index(request.collection)
    threshold = _threshold(request, index.identities, gallery, thresholds)
    found = index.search(np.stack([face.embedding for face in analysis.faces]), limit=MATCHES_PER_FACE)
    faces = tuple(
        _face(
            face,
            [
                ResultMatch(identity=m.identity, similarity=m.similarity, threshold=threshold.value)
                for m in matches
                if m.similarity >= threshold.value
            ],
        )
        for face, matches in zip(analysis.faces, found, strict=True)
    )
    return Comparison(faces, threshold, analysis.more_faces)


def _threshold(request: Request, identities: int, gallery: GalleryReader, thresholds: ModelThresholds) -> Threshold:
    """The request's threshold, or the collection's, or the model's: the first that exists."""
    if request.threshold is not None:
        return Threshold(request.threshold, "request", identities)
    calibrated = gallery.threshold(request.collection)
    if calibrated is not None:
        return Threshold(calibrated, "collection", identities)
    return thresholds.threshold(identities)


def _face(face: EmbeddedFace, matches: Sequence[ResultMatch]) -> Face:
    box = ResultBox(x_min=face.box.x_min, y_min=face.box.y_min, x_max=face.box.x_max, y_max=face.box.y_max)
    quality = None if face.quality is None else FaceQuality(score=face.quality.score, reasons=face.quality.reasons)
    return Face(
        box=box, probability=face.probability, landmarks=face.landmarks, matches=tuple(matches), quality=quality
    )
