"""`GET /api/v1/results/<request_id>`: the result of an earlier request."""

from typing import Annotated
from uuid import UUID

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from facerec.api_answers import Pending
from facerec.api_keys import Scope
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import as_json, described, errors
from facerec.web.api.v1.models import Result
from facerec.web.api.v1.photo_requests import is_pending, own_result
from facerec.web.auth.access import needs
from facerec.web.results import json_error


class ResultPath(BaseModel):
    """The id of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    request_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    """As the reply gave it, also in its header `X-Request-Id`."""


def routes(services: ApiServices) -> APIBlueprint:
    """Make the route."""
    api = described("results", __name__, "Results of earlier requests.")

    @api.get("/results/<request_id>", responses={200: Result, 202: Pending, **errors(404)})
    @needs(Scope.RECOGNISE, Scope.ENROL)
    def get_result(path: ResultPath) -> Response:
        """Read the result of an earlier request.

        Only the key that sent the request reads it, and scope `admin`.
        """
        try:
            known = UUID(path.request_id)
        except ValueError:
            return json_error(404, "there is no such request: its id is a UUID, as the upload's reply gave it")
        result = own_result(services, known)
        if result is not None:
            return as_json(Result.of(result))
        if is_pending(services, known):
            return as_json(Pending(request_id=known), 202)
        # The same for the request of another key, so that it confirms no id.
        return json_error(404, f"there is no request {known}, or its result has expired")

    return api
