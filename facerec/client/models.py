"""What the API answers, as the client reads it. Pure: unknown fields, of later servers, are ignored.

A test compares the fields with those of the API's document.
"""

from uuid import UUID

from facerec.message_base import Message
from facerec.messages import Face, FaceQuality, RecognitionResult, ResultBox, ResultMatch


class FoundFace(Face):
    """A face of a photo."""

    primary: bool = False
    """Whether it is the photo's subject, which decides `result` and `outcome`."""


class Recognition(RecognitionResult):
    """What was found on a photo: the document's `Result`."""

    faces: tuple[FoundFace, ...] = ()
    source_faces: tuple[FoundFace, ...] = ()


class Enrolled(Message):
    """What became of a photo that was to be enrolled."""

    status: str
    detail: str
    id: UUID | None
    name: str
    enrolled_for: str | None
    look_alikes: tuple[ResultMatch, ...]
    box: ResultBox | None
    quality: FaceQuality | None
    request_id: UUID
