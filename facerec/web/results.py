"""Responses that the APIs, and partly the pages, have in common: errors, an outage, an enrolled photo."""

from collections.abc import Callable
from math import inf

import structlog
from flask import Blueprint, Response, jsonify

from facerec.errors import ConfigurationError, FacerecError, QueueMissing, Refused, Transient
from facerec.web.auth.denials import UNDEFINED
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS
from model.header import CONTENT_TYPES, InvalidImage, read_header

log = structlog.get_logger(__name__)

OUTAGES = (Transient, ConfigurationError, Refused, QueueMissing)
"""What a store or a queue raises that cannot be used right now, whatever the request."""


def json_error(status: int, message: str, code: int = UNDEFINED, *, retry_after_seconds: int | None = None) -> Response:
    """Make a JSON error, with CompreFace's code if it has one."""
    response = jsonify(message=message, code=code)
    response.status_code = status
    if retry_after_seconds is not None:
        response.headers["Retry-After"] = str(retry_after_seconds)
    return response


def answer_outages(web: Blueprint, sentence: str, error: Callable[..., Response] = json_error) -> None:
    """Answer outages in the routes of a blueprint with 503 and this sentence, made by `error`; log their reasons."""

    def unavailable(exc: FacerecError) -> Response:
        log.warning("store_unreachable", reason=str(exc))
        return error(503, sentence, retry_after_seconds=UNAVAILABLE_RETRY_SECONDS)

    for outage in OUTAGES:
        web.register_error_handler(outage, unavailable)


def photo_response(photo: bytes) -> Response:
    """Make the response with a photo; imported files may be of a type that is not known."""
    return Response(photo, content_type=content_type(photo) or "application/octet-stream")


def content_type(photo: bytes) -> str | None:
    """Return the content type of a photo; `None` if it is not known."""
    try:
        return CONTENT_TYPES[read_header(photo, max_megapixels=inf).format]
    except InvalidImage:
        return None
