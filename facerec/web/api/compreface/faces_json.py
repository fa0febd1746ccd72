"""Faces in CompreFace's form. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from facerec.messages import Face, RecognitionResult
from facerec.web.api.compreface.codes import no_face
from facerec.web.api.compreface.queries import PhotoQuery

THRESHOLD = 0.5
"""Where CompreFace's users expect the same person to begin."""

_STEPS = 100_000
"""CompreFace gives similarities with five decimals."""

Json = dict[str, Any]


def scaled(similarity: float, threshold: float) -> float:
    """Return the similarity on CompreFace's scale from 0 to 1, on which our `threshold` is 0.5.

    It rises with the similarity, on two straight lines that meet at the threshold, and is rounded down. It is at least
    0.5 if, and only if, the similarity is at least the threshold.
    """
    if similarity < threshold:
        # A quotient just below 1 must not be rounded up to the threshold.
        return min(math.floor(THRESHOLD * similarity / threshold * _STEPS), math.ceil(THRESHOLD * _STEPS) - 1) / _STEPS
    share = (similarity - threshold) / (1 - threshold) if threshold < 1 else 1.0
    return math.floor((THRESHOLD + (1 - THRESHOLD) * share) * _STEPS) / _STEPS


def wanted(faces: Sequence[Face], query: PhotoQuery) -> list[Face]:
    """Return the faces that are probable enough, the largest first; raises `ApiError` if there is none."""
    found = sorted((face for face in faces if face.probability >= query.det_prob_threshold), key=_area, reverse=True)
    if not found:
        raise no_face()
    return found[: query.limit or None]


def face_json(face: Face, query: PhotoQuery, result: RecognitionResult) -> Json:
    """Return where the face is, in whole pixels, and what the query asks for beside it."""
    box = face.box
    shown: Json = {
        "box": {
            "probability": round(face.probability, 5),
            "x_max": round(box.x_max),
            "y_max": round(box.y_max),
            "x_min": round(box.x_min),
            "y_min": round(box.y_min),
        }
    }
    if query.landmarks:
        shown["landmarks"] = [[round(x), round(y)] for x, y in face.landmarks]
    if query.status:
        # Of the whole photo: its faces are computed together.
        times = result.timings_ms
        detector, calculator = times.get("decode", 0.0) + times.get("detect", 0.0), times.get("embed", 0.0)
        shown["execution_time"] = {"detector": round(detector, 3), "calculator": round(calculator, 3)}
    return shown


def subjects_json(face: Face, query: PhotoQuery) -> list[Json]:
    """Return the nearest people, the most similar first.

    With a threshold these are only people that are at least so similar. Who matches another face of the photo better is
    not among them.
    """
    near = face.nearest
    if query.similarity_threshold:
        ours = {match.identity for match in face.matches}
        near = tuple(match for match in near if match.similarity < match.threshold or match.identity in ours)
    shown = [(match.identity, scaled(match.similarity, match.threshold)) for match in near]
    return [
        {"subject": identity, "similarity": similarity}
        for identity, similarity in shown
        if similarity >= query.similarity_threshold
    ]


def similarity_json(face: Face, result: RecognitionResult) -> float:
    """Return how similar a face is to the one that it was compared with."""
    if face.similarity is None or result.threshold is None:
        raise ValueError(f"the result of {result.operation} has no similarity or no threshold")
    return scaled(face.similarity, result.threshold)


def versions(result: RecognitionResult, query: PhotoQuery) -> Json:
    """Return the model, which is detector and calculator in one, if the query asks for it."""
    if not query.status:
        return {}
    model = f"{result.model_id} ({result.engine}, {result.precision})"
    return {"plugins_versions": {"detector": model, "calculator": model}}


def _area(face: Face) -> float:
    return (face.box.x_max - face.box.x_min) * (face.box.y_max - face.box.y_min)
