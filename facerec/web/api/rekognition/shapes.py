"""The parts of the Rekognition API's answers: faces as ratios of the picture, and similarities from 0 to 100. Pure."""

import math
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from facerec.gallery.people import shown_id
from facerec.messages import Face, RecognitionResult, ResultBox, ResultMatch
from facerec.ports import TemplateEntry

OUR_THRESHOLD = 80.0
"""The similarity that our threshold becomes: the service's default threshold."""
_STEEPNESS = 4
"""So that the thresholds 90, 95 and 99, which clients use, lie among the similarities of one person (ADR 38)."""
_LANDMARKS = ("eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight")


def percent(similarity: float, threshold: float) -> float:
    """Return a similarity from 0 to 100, which rises with ours: at least 80 if, and only if, it is a match."""
    if similarity < threshold:
        return min(OUR_THRESHOLD * similarity / threshold, math.nextafter(OUR_THRESHOLD, 0))
    left = (1 - similarity) / (1 - threshold) if threshold < 1 else 0.0
    return 100 - (100 - OUR_THRESHOLD) * left**_STEEPNESS


def image_id(entry: TemplateEntry) -> str:
    """Return the id of the image that a face comes from: the faces of one call have the time of the call."""
    return str(uuid5(NAMESPACE_URL, f"facerec/{entry.collection}/{entry.source}/{entry.enrolled_at.isoformat()}"))


def indexed_face(entry: TemplateEntry) -> dict[str, Any]:
    """Return a `Face`."""
    return {
        "FaceId": shown_id(entry.template_id),
        "ImageId": image_id(entry),
        "ExternalImageId": external_image_id(entry.identity, entry.external_id),
        "Confidence": entry.probability * 100,
        "IndexFacesModelVersion": entry.model_id,
    }


def external_image_id(identity: str, external_id: str | None) -> str:
    """Return what the client gave, or whom the face was enrolled for by another way."""
    return identity if external_id is None else external_id


class Picture:
    """The size of a picture, in which its faces are described."""

    def __init__(self, width: int | None, height: int | None) -> None:
        if width is None or height is None:
            raise ValueError("the result does not have the size of the picture")
        self._width, self._height = width, height

    def box(self, box: ResultBox) -> dict[str, float]:
        """Return a `BoundingBox`."""
        return {
            "Width": (box.x_max - box.x_min) / self._width,
            "Height": (box.y_max - box.y_min) / self._height,
            "Left": box.x_min / self._width,
            "Top": box.y_min / self._height,
        }

    def found(self, face: Face) -> dict[str, Any]:
        """Return where a face is, and how sure that is."""
        return {"BoundingBox": self.box(face.box), "Confidence": face.probability * 100}

    def detail(self, face: Face) -> dict[str, Any]:
        """Return a `FaceDetail`, or a `ComparedFace`: what is known of it."""
        points = zip(_LANDMARKS, face.landmarks, strict=False)
        landmarks = [{"Type": kind, "X": x / self._width, "Y": y / self._height} for kind, (x, y) in points]
        return self.found(face) | {"Landmarks": landmarks}


def picture_of(result: RecognitionResult) -> Picture:
    """Return the picture of a result; of a comparison, the target."""
    return Picture(result.width, result.height)


def largest(faces: Sequence[Face]) -> int:
    """Return the place of the largest face."""
    return max(range(len(faces)), key=lambda place: _area(faces[place].box))


def _area(box: ResultBox) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)


def at_least(matches: Sequence[ResultMatch], least_percent: float) -> list[tuple[float, ResultMatch]]:
    """Return the matches with at least this similarity, each with it, best first."""
    rated = [(percent(match.similarity, match.threshold), match) for match in matches]
    return sorted((each for each in rated if each[0] >= least_percent), key=lambda each: -each[0])
