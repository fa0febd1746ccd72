"""Unknown people: list, show, search by a photo, promote to a person, remove."""

from typing import Annotated

from flask import Response, abort
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from facerec.api_answers import Pending, Promoted, UnknownPage, UnknownRemoved, UnknownSummary
from facerec.api_keys import Scope
from facerec.gallery.unknown_people import NoSuchUnknown
from facerec.operations import SearchUnknown
from facerec.unknown_records import UnknownPerson
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import Body, as_json, described, errors
from facerec.web.api.v1.models import Result
from facerec.web.api.v1.pages import PageQuery, after, next_cursor
from facerec.web.api.v1.people import Name, answer_name_errors
from facerec.web.api.v1.photo_requests import CollectionQuery, ask, chosen_collection, photo_body, respond, shown
from facerec.web.auth.access import needs
from facerec.web.results import json_error


class UnknownPath(BaseModel):
    """An unknown person."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: Annotated[str, Field(json_schema_extra={"format": "unknown-id"})]
    """As a result gave it; an id that was merged into another one stays good."""


class PromoteBody(Body):
    """Who an unknown person is."""

    person: Name


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("unknown", __name__, "Unknown people, where their collection keeps them.")
    unknown = services.unknown
    answer_name_errors(api)
    api.register_error_handler(NoSuchUnknown, lambda exc: json_error(404, str(exc)))

    @api.get("/unknown", responses={200: UnknownPage})
    @needs(Scope.ENROL)
    def list_unknown(query: PageQuery) -> Response:
        """List the unknown people of the collection by id."""
        last = "" if query.cursor is None else after(query.cursor)
        found = unknown.page(chosen_collection(services, query), after=last, limit=query.limit + 1)
        page = tuple(map(_summary, found[: query.limit]))
        following = next_cursor(page[-1].unknown_id) if len(found) > query.limit else None
        return as_json(UnknownPage(unknown=page, next=following))

    @api.post(
        "/unknown/search",
        responses={200: Result, 202: Pending, **errors(409, 413, 415, 501)},
        openapi_extensions=photo_body(),
    )
    @needs(Scope.RECOGNISE)
    def search_unknown(query: CollectionQuery) -> Response:
        """Ask whether the faces of a photo were here before.

        Each face that was has its id in `unknown`, with the first and the last sight. The search counts as no sight.
        """
        collection = chosen_collection(services, query)
        if not services.settings.unknown.kept(collection):
            reason = f"unknown people are not kept in collection {collection}: see FACEREC_UNKNOWN__COLLECTIONS"
            abort(json_error(409, reason))
        return respond(ask(services, SearchUnknown(), collection), shown)

    @api.get("/unknown/<unknown:id>", responses={200: UnknownSummary, **errors(404)})
    @needs(Scope.ENROL)
    def get_unknown(path: UnknownPath, query: CollectionQuery) -> Response:
        """Show an unknown person."""
        return as_json(_summary(unknown.get(chosen_collection(services, query), path.id)))

    @api.post("/unknown/<unknown:id>/promote", responses={200: Promoted, **errors(404)})
    @needs(Scope.ENROL)
    def promote_unknown(path: UnknownPath, query: CollectionQuery, body: PromoteBody) -> Response:
        """Give the faces of an unknown person to a person, new or enrolled already. The id is gone then.

        The person has no photo of these faces: enrol one before the model is changed.
        """
        name, count = unknown.promote(chosen_collection(services, query), path.id, body.person)
        return as_json(Promoted(name=name, photos=count))

    @api.delete("/unknown/<unknown:id>", responses={200: UnknownRemoved, **errors(404)})
    @needs(Scope.ENROL)
    def remove_unknown(path: UnknownPath, query: CollectionQuery) -> Response:
        """Forget an unknown person. Who is seen again gets a new id."""
        return as_json(UnknownRemoved(faces=unknown.remove(chosen_collection(services, query), path.id)))

    return api


def _summary(record: UnknownPerson) -> UnknownSummary:
    return UnknownSummary(
        unknown_id=record.unknown_id,
        first_seen=record.first_seen,
        last_seen=record.last_seen,
        seen_count=record.seen,
        faces=len(record.views),
        aliases=record.aliases,
        expires_at=record.expires_at,
    )
