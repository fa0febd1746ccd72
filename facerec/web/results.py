"""The JSON API: a stored result by its request id, and the form of every error under `/api/`."""

from uuid import UUID

from flask import Blueprint, Response, jsonify

from facerec.api_keys import Scope
from facerec.errors import ConfigurationError, Refused, Transient
from facerec.object_keys import request_prefix
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.stored_results import stored_result_json
from facerec.web.auth.access import UNDEFINED, needs, presented_key
from facerec.web.auth.request_ids import may_read
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS


def blueprint(settings: Settings, store: ObjectStore) -> Blueprint:
    """Make the route `/api/v1/results/<request_id>`."""
    api = Blueprint("api", __name__)

    @api.get("/api/v1/results/<request_id>")
    @needs(Scope.RECOGNISE)
    def result(request_id: str) -> Response:
        try:
            known = UUID(request_id)
        except ValueError:
            return json_error(404, "there is no such request: its id is a UUID, as the upload's reply gave it")
        unknown = f"there is no request {known}, or its result has expired"
        if not may_read(presented_key(), known):
            # The same reply, so that it confirms no id.
            return json_error(404, unknown)
        try:
            stored = stored_result_json(store, settings.output_bucket, known)
            if stored is not None:
                return Response(stored, content_type="application/json")
            pending = bool(store.keys(settings.input_bucket, request_prefix(known)))
        except (Transient, ConfigurationError, Refused):
            response = json_error(503, "results cannot be read right now: ask again in a few seconds")
            response.headers["Retry-After"] = str(UNAVAILABLE_RETRY_SECONDS)
            return response
        if pending:
            response = jsonify(request_id=str(known), status="pending")
            response.status_code = 202
            return response
        return json_error(404, unknown)

    return api


def json_error(status: int, message: str, code: int = UNDEFINED) -> Response:
    """Make a JSON error, with CompreFace's code if it has one."""
    response = jsonify(message=message, code=code)
    response.status_code = status
    return response
