"""Faces compared with the gallery: the threshold that applies, and the identities that match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from facerec.matching_rules import match_faces
from facerec.messages import (
    Face,
    FaceQuality,
    LeftOut,
    RecognitionRequest,
    Request,
    ResultBox,
    ResultMatch,
    ThresholdSource,
)
from facerec.operations import Recognise
from model.faces import EmbeddedFace, ImageAnalysis, MeasuredFace, PackedFaces
from model.tail import ImpostorTail, identification_threshold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.matching import GalleryIndex, Match

MATCHES_PER_FACE = 5
"""The most identities at or above the threshold that a result lists for each face."""


class GalleryReader(Protocol):
    """The gallery as it is now; its owner keeps it fresh. Every method may raise `Transient`."""

    def index(self, collection: str) -> "GalleryIndex":
        """The searchable templates of a collection; empty if it has none."""

    def search(self, collection: str, queries: "NDArray[np.float32]", limit: int) -> "list[list[Match]]":
        """The nearest people of faces (F, D), as many as the limit, the most similar first."""

    def threshold(self, collection: str) -> float | None:
        """The collection's calibrated threshold for the model in use; `None` if it was not calibrated."""

    def rejections(self, collection: str) -> "Mapping[str, NDArray[np.float32]]":
        """The faces (K, D), L2-normalised, that are not a person, by the person; usually empty."""


class UnknownSights(Protocol):
    """What knows unknown people again (`facerec.app_tier.unknown_faces`)."""

    def seen(self, request: Request, faces: Sequence[EmbeddedFace], comparison: "Comparison") -> "Comparison":
        """Return the comparison with the unknown person of each face without a match; does not fail."""


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
    width: int | None = None
    """Of the upright picture, in pixels; `None` for one that was not recognised."""
    height: int | None = None


NOT_COMPARED = Comparison()
"""That of a picture that was not recognised."""


def compare(
    request: Request, analysis: ImageAnalysis, gallery: GalleryReader, thresholds: ModelThresholds
) -> Comparison:
    """Compare each face with the request's collection; may raise `Transient`."""
    if not analysis.faces:
        return not_compared(analysis)
    import numpy as np  # the detection function compares nothing

    index = gallery.index(request.collection)
    threshold = applying_threshold(request, index.identities, gallery, thresholds)
    found = match_faces(
        np.stack([face.embedding for face in analysis.faces]),
        partial(gallery.search, request.collection),
        gallery.rejections(request.collection),
        threshold.value,
        most=MATCHES_PER_FACE,
        nearest=_nearest(request),
    )
    faces = tuple(
        result_face(
            face,
            matches=[result_match(match, threshold) for match in own.matches],
            nearest=[result_match(match, threshold) for match in own.nearest],
            left_out=[
                LeftOut(identity=match.identity, similarity=match.similarity, reason=rule)
                for match, rule in own.left_out
            ],
        )
        for face, own in zip(analysis.faces, found, strict=True)
    )
    return Comparison(faces, threshold, analysis.more_faces, analysis.width, analysis.height)


def not_compared(seen: ImageAnalysis | PackedFaces) -> Comparison:
    """The faces of a picture, which were compared with nobody."""
    faces = tuple(result_face(face) for face in seen.faces)
    return Comparison(faces, None, seen.more_faces, seen.width, seen.height)


def result_match(hit: "Match", threshold: Threshold) -> ResultMatch:
    """A person that was found, as a result has it."""
    return ResultMatch(
        identity=hit.identity, similarity=hit.similarity, threshold=threshold.value, template_id=hit.template_id
    )


def result_face(
    face: EmbeddedFace | MeasuredFace,
    *,
    matches: Sequence[ResultMatch] = (),
    nearest: Sequence[ResultMatch] = (),
    left_out: Sequence[LeftOut] = (),
    similarity: float | None = None,
) -> Face:
    """A face as a result has it; one that was not embedded has no quality."""
    box = ResultBox(x_min=face.box.x_min, y_min=face.box.y_min, x_max=face.box.x_max, y_max=face.box.y_max)
    quality = face.quality if isinstance(face, EmbeddedFace) else None
    return Face(
        box=box,
        probability=face.probability,
        landmarks=face.landmarks,
        matches=tuple(matches),
        nearest=tuple(nearest),
        left_out=tuple(left_out),
        similarity=similarity,
        quality=None if quality is None else FaceQuality(score=quality.score, reasons=quality.reasons),
    )


def _nearest(request: Request) -> int:
    operation = request.operation if isinstance(request, RecognitionRequest) else None
    return operation.nearest if isinstance(operation, Recognise) else 0


def applying_threshold(
    request: Request, identities: int, gallery: GalleryReader, thresholds: ModelThresholds
) -> Threshold:
    """The request's threshold, or the collection's, or the model's: the first that exists; may raise `Transient`."""
    if request.threshold is not None:
        return Threshold(request.threshold, "request", identities)
    calibrated = gallery.threshold(request.collection)
    if calibrated is not None:
        return Threshold(calibrated, "collection", identities)
    return thresholds.threshold(identities)
