"""CompreFace's errors: a sentence and a code, with the status that CompreFace gives to the code."""

from flask import Response

from facerec.messages import Outcome, RecognitionResult, Refusal
from facerec.web.asking import Answer
from facerec.web.auth.denials import UNDEFINED
from facerec.web.results import json_error

NO_IMAGE, BAD_EXTENSION, OUT_OF_RANGE, NO_FACE, TOO_MANY_FACES = 11, 21, 26, 28, 31
MISSING_PARAMETER, NO_SUBJECT, SUBJECT_EXISTS, NO_EMBEDDING = 33, 42, 43, 44

_REFUSALS = {
    Refusal.NO_SUCH_TEMPLATE: (404, NO_EMBEDDING),
    Refusal.OTHER_MODEL: (404, NO_EMBEDDING),
    Refusal.NO_SUCH_PERSON: (404, NO_SUBJECT),
    Refusal.INVALID_NAME: (400, OUT_OF_RANGE),
    Refusal.UNSUPPORTED: (501, UNDEFINED),
}


class ApiError(Exception):
    """A request that is not done: status, sentence and code of its reply."""

    def __init__(
        self, status: int, message: str, code: int = UNDEFINED, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.retry_after_seconds = retry_after_seconds

    def response(self) -> Response:
        """Make the reply."""
        return json_error(self.status, self.message, self.code, retry_after_seconds=self.retry_after_seconds)


def done(answer: Answer) -> RecognitionResult:
    """Return the result of an operation; raises `ApiError` if it was not done, except for `NOT_ENROLLED`."""
    reply, result = answer.reply, answer.result
    if reply.outcome == Outcome.INVALID_IMAGE:
        raise ApiError(400, reply.text, BAD_EXTENSION)
    if result is None or result.outcome is Outcome.FAILED:
        raise ApiError(reply.status, reply.text, retry_after_seconds=reply.retry_after_seconds)
    if result.outcome is Outcome.REFUSED and result.refusal is not Refusal.NOT_ENROLLED:
        status, code = _REFUSALS.get(result.refusal, (400, UNDEFINED)) if result.refusal else (400, UNDEFINED)
        raise ApiError(status, result.detail or "this cannot be done", code)
    return result


def no_face() -> ApiError:
    """Say so in CompreFace's words, which its clients compare."""
    return ApiError(400, "No face is found in the given image", NO_FACE)


def too_many_faces() -> ApiError:
    """Say that the photo must show one face."""
    return ApiError(400, "More than one face in the image: send a photo of the one person alone", TOO_MANY_FACES)


def no_subject(name: str) -> ApiError:
    """Say that nobody has this name."""
    return ApiError(404, f"Subject {name} not found", NO_SUBJECT)


def no_embedding(image_id: str) -> ApiError:
    """Say that no face has this id."""
    return ApiError(404, f"Image {image_id} not found", NO_EMBEDDING)


def no_photo() -> ApiError:
    """Say that the photo of a face was not kept."""
    return ApiError(
        404, "there is no photo of this face: it was imported without one, or the photo was deleted", NO_IMAGE
    )
