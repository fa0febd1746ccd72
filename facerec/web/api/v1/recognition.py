"""Photos are recognised, compared and verified."""

from typing import Annotated

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from facerec.api_answers import Pending
from facerec.api_keys import Scope
from facerec.gallery.people import as_template_id
from facerec.message_base import Ratio
from facerec.operations import Detect, Recognise, Verify
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import Query, described, errors
from facerec.web.api.v1.models import PhotoPath, Result, no_photo
from facerec.web.api.v1.photo_requests import (
    PAIR,
    CollectionQuery,
    PhotoPairBody,
    ask,
    chosen_collection,
    photo_body,
    read_pair,
    respond,
    shown,
)
from facerec.web.auth.access import needs, presented_key
from facerec.web.auth.collections import own_collection

MAX_NEAREST = 1000
"""The nearest people that one request lists, for each face."""


class ThresholdQuery(CollectionQuery):
    """From which similarity on two faces are one person."""

    threshold: Ratio | None = None
    """Without it the collection's or the model's applies, and the result names it."""


class RecogniseQuery(ThresholdQuery):
    """How faces are recognised."""

    nearest: Annotated[int, Field(ge=0, le=MAX_NEAREST)] = 0
    """How many of the nearest people to list for each face, whatever their similarity."""


class VerifyQuery(ThresholdQuery):
    """Whom the faces are compared with."""

    person: Annotated[str, Field(min_length=1, json_schema_extra={"format": "person-name"})]
    """The name of a person; the most similar one of its photos counts."""


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("recognition", __name__, "Faces are found, compared and recognised.")
    answers = {200: Result, 202: Pending, **errors(413, 415, 501)}

    @api.post("/recognise", responses=answers, openapi_extensions=photo_body())
    @needs(Scope.RECOGNISE)
    def recognise(query: RecogniseQuery) -> Response:
        """Find out who is on a photo.

        All faces are listed, the primary one first, each with its quality and the people at or above the threshold.
        """
        operation = Recognise(nearest=query.nearest)
        return respond(ask(services, operation, chosen_collection(services, query), threshold=query.threshold), shown)

    @api.post("/detect", responses=answers, openapi_extensions=photo_body())
    @needs(Scope.RECOGNISE)
    def detect(query: Query) -> Response:
        """Find the faces of a photo, and compare them with nobody."""
        del query
        return respond(ask(services, Detect(), own_collection(presented_key())), shown)

    @api.post("/compare", responses=answers, openapi_extensions=photo_body(*PAIR, json=PhotoPairBody))
    @needs(Scope.RECOGNISE)
    def compare(query: Query) -> Response:
        """Compare the largest face of one photo, `source`, with every face of another, `target`.

        `faces` are those of the target, each with its similarity; the first of `source_faces` was compared with them.
        """
        del query
        return respond(ask(services, Recognise(), own_collection(presented_key()), read=read_pair, photos=2), shown)

    @api.post("/verify", responses={**answers, **errors(404, 409)}, openapi_extensions=photo_body())
    @needs(Scope.RECOGNISE)
    def verify(query: VerifyQuery) -> Response:
        """Compare every face of a photo with one person.

        Each face has its similarity; `threshold` says from which on two faces are one person.
        """
        operation = Verify(identity=query.person)
        return respond(ask(services, operation, chosen_collection(services, query), threshold=query.threshold), shown)

    @api.post("/photos/<id>/verify", responses={**answers, **errors(404, 409)}, openapi_extensions=photo_body())
    @needs(Scope.RECOGNISE)
    def verify_photo(path: PhotoPath, query: ThresholdQuery) -> Response:
        """Compare every face of a photo with the face of one enrolled photo, as `verify` with a person."""
        collection, template_id = chosen_collection(services, query), as_template_id(path.id)
        if template_id is None:
            return no_photo(path)
        return respond(ask(services, Verify(template_id=template_id), collection, threshold=query.threshold), shown)

    return api
