"""The faces of a result as a page shows them. Pure."""

from dataclasses import dataclass

from facerec.messages import Face, RecognitionResult, ResultMatch

_SHOWN_FROM = 0.005
"""A lower similarity would be shown as 0.00."""


@dataclass(frozen=True, slots=True)
class ShownFace:
    """A face with what its place on the page says."""

    place: int
    """In the result's `faces`; 0 is the primary face."""
    face: Face
    below: tuple[ResultMatch, ...]
    """The nearest people below the threshold, the most similar first."""

    @property
    def name(self) -> str | None:
        """Who it is; `None` if it matches nobody."""
        return self.face.matches[0].identity if self.face.matches else None

    @property
    def measured(self) -> ResultMatch | None:
        """The match whose similarity is drawn beside the threshold: the first one, or the nearest person below."""
        return next(iter((*self.face.matches, *self.below)), None)

    @property
    def width(self) -> float:
        """Of the box, in pixels."""
        return self.face.box.x_max - self.face.box.x_min

    @property
    def height(self) -> float:
        """Of the box, in pixels."""
        return self.face.box.y_max - self.face.box.y_min


def shown_faces(result: RecognitionResult) -> tuple[ShownFace, ...]:
    """Return the faces of a recognition, the primary one first."""
    return tuple(
        ShownFace(place, face, tuple(near for near in face.nearest if _SHOWN_FROM <= near.similarity < near.threshold))
        for place, face in enumerate(result.faces)
    )
