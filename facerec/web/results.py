"""Results by request id, and the health checks of load balancers, as JSON."""

from uuid import UUID

from flask import Blueprint, Response, jsonify

from facerec.api_keys import Scope
from facerec.errors import ConfigurationError, Transient
from facerec.object_keys import request_prefix
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.stored_results import stored_result_json
from facerec.web.auth.access import UNDEFINED, needs
from facerec.web.readiness import Readiness
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS


def blueprint(*, settings: Settings, store: ObjectStore, readiness: Readiness, open_to_all: bool) -> Blueprint:
    """Make the routes `/api/v1/results/<request_id>`, `/healthz` and `/readyz`."""
    api = Blueprint("api", __name__)

    @api.get("/api/v1/results/<request_id>")
    @needs(Scope.RECOGNISE)
    def result(request_id: str) -> Response:
        try:
            known = UUID(request_id)
        except ValueError:
            return error(404, "there is no such request: its id is a UUID, as the upload's reply gave it")
        try:
            stored = stored_result_json(store, settings.output_bucket, known)
            if stored is not None:
                return Response(stored, content_type="application/json")
            pending = bool(store.keys(settings.input_bucket, request_prefix(known)))
        except (Transient, ConfigurationError):
            response = error(503, "results cannot be read right now: ask again in a few seconds")
            response.headers["Retry-After"] = str(UNAVAILABLE_RETRY_SECONDS)
            return response
        if pending:
            response = jsonify(request_id=str(known), status="pending")
            response.status_code = 202
            return response
        return error(404, f"there is no request {known}, or its result has expired")

    @api.get("/healthz")
    @needs(None)
    def alive() -> Response:
        return jsonify(status="ok")

    @api.get("/readyz")
    @needs(None)
    def ready() -> Response:
        problems = readiness.problems()
        response = jsonify(
            status="unready" if any(problems.values()) else "ok",
            # The reasons name buckets and endpoints: with keys they are in the log only.
            checks={
                name: (problem if open_to_all else "failed") if problem else "ok" for name, problem in problems.items()
            },
        )
        response.status_code = 503 if any(problems.values()) else 200
        return response

    return api


def error(status: int, message: str, code: int = UNDEFINED) -> Response:
    """Make a JSON error, with CompreFace's code if it has one."""
    response = jsonify(message=message, code=code)
    response.status_code = status
    return response
