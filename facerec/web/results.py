"""The form of every error under `/api/`."""

from flask import Response, jsonify

from facerec.web.auth.access import UNDEFINED
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS


def json_error(status: int, message: str, code: int = UNDEFINED) -> Response:
    """Make a JSON error, with CompreFace's code if it has one."""
    response = jsonify(message=message, code=code)
    response.status_code = status
    return response


def json_unavailable(message: str) -> Response:
    """Make the JSON error of a store or queue that cannot be reached."""
    response = json_error(503, message)
    response.headers["Retry-After"] = str(UNAVAILABLE_RETRY_SECONDS)
    return response
