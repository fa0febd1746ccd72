"""The errors of the client. Each is a `FacerecError`, whose text is one sentence that says what to do.

- `ApiError`: the server answered with an error
  - `Forbidden` (401, 403), `NotFound` (404), `Conflict` (409), `InvalidPhoto` (413, 415)
  - `NotDone` (422, 501): the photo does not allow it, or the app tier cannot do it
  - `NotEnrolled` (409, 415, 422): with what became of the photo
  - `Unavailable` (429, 503): still so after the retries
- `Unreachable`: no answer, by a connection that failed or a time limit
- `StillPending`: the result is not there yet; `request_id` says where it will be
"""

import json
from typing import Any
from uuid import UUID

from facerec.client.models import Enrolled
from facerec.errors import FacerecError
from facerec.text import one_line


class ApiError(FacerecError):
    """The server answered with an error. `code` is CompreFace's code of it, or 0."""

    def __init__(self, status: int, message: str, code: int = 0, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.request_id = request_id


class Forbidden(ApiError):
    """The key is missing, unknown, or may not do this."""


class NotFound(ApiError):
    """There is no such person, photo, job or result."""


class Conflict(ApiError):
    """It contradicts the state of the collection, such as a name that another person has."""


class InvalidPhoto(ApiError):
    """The file is too large, or no picture that the server reads."""


class NotDone(ApiError):
    """The operation was not done: the photo does not allow it, or the app tier cannot do it."""


class NotEnrolled(ApiError):
    """The photo was not enrolled; `enrolment` says what became of it."""

    def __init__(self, status: int, enrolment: Enrolled, request_id: str | None = None) -> None:
        super().__init__(status, enrolment.detail, 0, request_id)
        self.enrolment = enrolment


class Unavailable(ApiError):
    """The server was busy or limited the rate for as long as the client retried."""


class Unreachable(FacerecError):
    """The server did not answer; `connected` tells whether there was a connection."""

    def __init__(self, message: str, *, connected: bool) -> None:
        super().__init__(message)
        self.connected = connected


class StillPending(FacerecError):
    """The result is not there yet: `Client.result` finds it later."""

    def __init__(self, request_id: UUID) -> None:
        super().__init__(f"the result of request {request_id} is not there yet: ask for it again later")
        self.request_id = request_id


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidPhoto,
    415: InvalidPhoto,
    422: NotDone,
    429: Unavailable,
    501: NotDone,
    503: Unavailable,
}


def error_of(status: int, body: bytes, request_id: str | None = None) -> ApiError:
    """Return the error that a response is; one of a proxy in front may be no JSON."""
    text = body.decode(errors="replace")
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        message = text if text.strip() and "<" not in text else f"the server answered with status {status}"
        found = {"message": message}
    if "status" in found and "look_alikes" in found:
        return NotEnrolled(status, Enrolled.parse(found), request_id)
    message, code = str(found.get("message") or f"the server answered with status {status}"), found.get("code")
    return with_status(status, message, code if isinstance(code, int) else 0, request_id)


def with_status(status: int, message: str, code: int = 0, request_id: str | None = None) -> ApiError:
    """Return the error of a status."""
    return _BY_STATUS.get(status, ApiError)(status, one_line(message), code, request_id)
