"""`POST /api/v1/people/<name>/not`: "this is not X", which is remembered."""

from functools import partial
from typing import Annotated

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, RootModel

from facerec.api_answers import Pending, Rejected
from facerec.api_keys import Scope
from facerec.gallery.names import valid_identity
from facerec.operations import Reject
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import as_json, described, errors
from facerec.web.api.v1.people import RULE, PersonPath, answer_name_errors
from facerec.web.api.v1.photo_requests import (
    JSON,
    CollectionQuery,
    EarlierPhoto,
    PhotoBody,
    ask,
    chosen_collection,
    earlier_photo,
    parse_json,
    photo_body,
    read_photo,
    respond,
)
from facerec.web.auth.access import needs
from facerec.web.forms import Photo, decode_photo

MAX_FACES = 4096
"""Far more than a photo shows."""


class NotQuery(CollectionQuery):
    """Which face is not the person."""

    face: Annotated[int, Field(ge=0, le=MAX_FACES)] = 0
    """Its place in `faces` of the result."""


def routes(services: ApiServices) -> APIBlueprint:
    """Make the route."""
    api = described("rejections", __name__, "Faces that are not a person's.")
    answer_name_errors(api)

    @api.post(
        "/people/<person:name>/not",
        responses={200: Rejected, 202: Pending, **errors(404, 409, 413, 415, 422, 501)},
        openapi_extensions=photo_body(or_json=EarlierPhoto),
        **RULE,
    )
    @needs(Scope.ENROL)
    def reject(path: PersonPath, query: NotQuery) -> Response:
        """Remember that a face is not this person.

        The face is one of a photo in the body, or of an earlier request. A face that is at least as similar to it as to
        the person's photos is not given the person's name any more.
        """
        collection = chosen_collection(services, query)
        operation = Reject(identity=valid_identity(path.name), face=query.face)
        asked = ask(services, operation, collection, read=partial(_rejected_photo, services))
        return respond(asked, lambda _: as_json(Rejected(name=path.name, face=query.face, request_id=asked[0])))

    return api


def _rejected_photo(services: ApiServices, limit: int) -> list[Photo]:
    """Return the photo of the body, or that of the earlier request it names; raises `Declined`."""
    if request.mimetype != JSON:
        return read_photo(limit)
    body = parse_json(RootModel[PhotoBody | EarlierPhoto], limit).root
    if isinstance(body, EarlierPhoto):
        return [earlier_photo(services, body.request_id)]
    return [decode_photo(body.photo, body.filename, limit)]
