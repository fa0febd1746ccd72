"""The errors of the Rekognition API: their names, their status codes and their form on the wire."""

import json
from http import HTTPStatus
from typing import Any

from flask import Response

from facerec.errors import FacerecError
from facerec.messages import Outcome, RecognitionResult, Refusal
from facerec.web.auth.denials import Denial
from facerec.web.replies import Reply

CONTENT_TYPE = "application/x-amz-json-1.1"

INTERNAL = "InternalServerError"
INVALID_PARAMETER = "InvalidParameterException"
_BY_STATUS = {
    HTTPStatus.UNAUTHORIZED: "UnrecognizedClientException",
    HTTPStatus.FORBIDDEN: "AccessDeniedException",
    HTTPStatus.NOT_FOUND: "UnknownOperationException",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "ImageTooLargeException",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "InvalidImageFormatException",
    HTTPStatus.MISDIRECTED_REQUEST: "AccessDeniedException",
    HTTPStatus.TOO_MANY_REQUESTS: "ThrottlingException",
}
_BY_REFUSAL = {
    Refusal.UNSUPPORTED: "AccessDeniedException",
}
"""The others name a parameter that is wrong."""


class RekognitionError(FacerecError):
    """A call is not done; `kind` is the service's name for the reason, and the text is for the client."""

    def __init__(self, kind: str, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_seconds = retry_after_seconds


def error_response(error: RekognitionError) -> Response:
    """Return the error as the service sends it: 400, and 500 for a fault, after which clients try again."""
    response = as_json({"__type": error.kind, "Message": str(error)})
    response.status_code = 500 if error.kind == INTERNAL else 400
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def as_json(document: Any) -> Response:
    """Return a response in the protocol's type."""
    return Response(json.dumps(document), content_type=CONTENT_TYPE)


def of_status(status: int, sentence: str) -> RekognitionError:
    """Return the error for an HTTP status; without a name of its own it is a wrong parameter, or a fault."""
    fault = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return RekognitionError(_BY_STATUS.get(HTTPStatus(status), INTERNAL if fault else INVALID_PARAMETER), sentence)


def of_denial(denial: Denial) -> RekognitionError:
    """Return the error for a request that the auth hook denies."""
    if denial.reason == "no_key":
        return RekognitionError("MissingAuthenticationTokenException", "sign the request, or send an API key")
    if denial.reason.endswith("_signature"):
        return RekognitionError("InvalidSignatureException", denial.sentence)
    return of_status(denial.status, denial.sentence)


def of_reply(reply: Reply) -> RekognitionError:
    """Return the error for a request that got no result."""
    if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return RekognitionError("ThrottlingException", reply.text, reply.retry_after_seconds)
    return of_status(reply.status, reply.text)


def check_outcome(result: RecognitionResult) -> None:
    """Raise the error of a result that answers nothing."""
    match result.outcome:
        case Outcome.INVALID_IMAGE:
            raise RekognitionError("InvalidImageFormatException", result.detail or "this is not an image")
        case Outcome.FAILED if result.retryable:
            raise RekognitionError(INTERNAL, result.detail or "the image could not be processed: try again")
        case Outcome.FAILED:
            sentence = f"this image could not be processed; report it with its request id {result.request_id}"
            raise RekognitionError("InvalidImageFormatException", sentence)
        case Outcome.REFUSED if result.refusal is not Refusal.NOT_ENROLLED:
            kind = INVALID_PARAMETER if result.refusal is None else _BY_REFUSAL.get(result.refusal, INVALID_PARAMETER)
            raise RekognitionError(kind, result.detail or "refused")
        case _:
            return
