"""The Rekognition-compatible API: `POST /` with the header `X-Amz-Target`, as boto3 sends it to its `endpoint_url`."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from flask import Blueprint, Response, g, request

from facerec.api_keys import Scope
from facerec.web.api.rekognition import collections, faces, searches
from facerec.web.api.rekognition.calls import Calls
from facerec.web.api.rekognition.errors import RekognitionError, as_json, error_response, of_denial, of_status
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import needs
from facerec.web.auth.denials import Denial

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger(__name__)

SERVICE = "rekognition"
"""What clients sign for."""
UNSEARCHED = "X-Facerec-Unsearched-Faces"
"""The response header with the number of faces that a search left out; boto3 shows it, unlike the additional field."""
_PATH = "/rekognition/"
_TARGET = re.compile(r"RekognitionService\.([A-Za-z]{1,64})")

_OPERATIONS: dict[str, tuple[Scope, Callable[[Calls], dict[str, Any]]]] = {
    "CreateCollection": (Scope.ENROL, collections.create_collection),
    "DeleteCollection": (Scope.ENROL, collections.delete_collection),
    "ListCollections": (Scope.RECOGNISE, collections.list_collections),
    "DescribeCollection": (Scope.RECOGNISE, collections.describe_collection),
    "IndexFaces": (Scope.ENROL, faces.index_faces),
    "ListFaces": (Scope.ENROL, faces.list_faces),
    "DeleteFaces": (Scope.ENROL, faces.delete_faces),
    "SearchFacesByImage": (Scope.RECOGNISE, searches.search_faces_by_image),
    "SearchFaces": (Scope.RECOGNISE, searches.search_faces),
    "DetectFaces": (Scope.RECOGNISE, searches.detect_faces),
    "CompareFaces": (Scope.RECOGNISE, searches.compare_faces),
}


class ByTarget:
    """A WSGI application that gives each operation, which the header names, a path of its own.

    So the operations are ordinary routes, with scopes and metrics, and an upload to the same path is not affected.
    """

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Pass the request on."""
        found = _TARGET.fullmatch(environ.get("HTTP_X_AMZ_TARGET", ""))
        if found and environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO") in {"", "/"}:
            environ["PATH_INFO"] = f"{_PATH}{found[1]}"
        return self._application(environ, start_response)


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the operations."""
    api = Blueprint("rekognition", __name__)
    calls = Calls(services)
    for name, (scope, operation) in _OPERATIONS.items():
        api.add_url_rule(f"{_PATH}{name}", name, _view(calls, scope, operation), methods=["POST"])

    @api.post(f"{_PATH}<operation>")
    @needs(None)
    def unknown_operation(operation: str) -> Response:
        return error_response(RekognitionError("UnknownOperationException", f"there is no operation {operation}"))

    @api.errorhandler(RekognitionError)
    def refuse(error: RekognitionError) -> Response:
        log.info("call_refused", operation=request.endpoint, error=error.kind, reason=str(error))
        return error_response(error)

    @api.after_request
    def name_request(response: Response) -> Response:
        response.headers["x-amzn-RequestId"] = str(g.request_id if "request_id" in g else uuid4())
        return response

    return api


def is_call(path: str) -> bool:
    """Whether a path is that of an operation."""
    return path.startswith(_PATH)


def denied(denial: Denial) -> Response:
    """Return the response to a call that the auth hook denies."""
    return error_response(of_denial(denial))


def failed(status: int, sentence: str) -> Response:
    """Return the response to a call that failed in another way."""
    return error_response(of_status(status, sentence))


def _view(calls: Calls, scope: Scope, operation: Callable[[Calls], dict[str, Any]]) -> Callable[[], Response]:
    @needs(scope, signed_for=SERVICE)
    def view() -> Response:
        answer = operation(calls)
        response = as_json(answer)
        if unsearched := answer.get("UnsearchedFaces"):
            response.headers[UNSEARCHED] = str(len(unsearched))
        return response

    return view
