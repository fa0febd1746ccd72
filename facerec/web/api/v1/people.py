"""The people of a collection: list, add, show, rename, merge, take a merge back, remove."""

from typing import Annotated, Any
from uuid import UUID

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from facerec.api_answers import ErasureBegun, Merge, PeoplePage, PersonSummary
from facerec.api_keys import Scope
from facerec.errors import FacerecError
from facerec.gallery.names import MAX_IDENTITY_LENGTH, InvalidName
from facerec.gallery.people import NoSuchMerge, NoSuchPerson, Person, PersonExists
from facerec.ports import MergeRecord
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import Body, as_json, described, errors
from facerec.web.api.v1.erasures import erasure_begun
from facerec.web.api.v1.pages import PageQuery, after, next_cursor
from facerec.web.api.v1.photo_requests import CollectionQuery, chosen_collection
from facerec.web.auth.access import client_name, needs
from facerec.web.results import json_error

Name = Annotated[str, Field(min_length=1, max_length=MAX_IDENTITY_LENGTH, json_schema_extra={"format": "person-name"})]

NAME_ERRORS = {NoSuchPerson: 404, NoSuchMerge: 404, PersonExists: 409, InvalidName: 400, FacerecError: 409}
"""The status for each error of the use cases; the last one is for what contradicts the state of the collection."""

RULE: dict[str, Any] = {"merge_slashes": False}
"""A name may hold slashes."""


class PersonPath(BaseModel):
    """A person."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, json_schema_extra={"format": "person-name"})]
    """Compared as people compare names: without regard to case, repeated blanks and Unicode form."""


class NameBody(Body):
    """The name of a person."""

    name: Name


class MergeBody(Body):
    """Whom a person is merged into."""

    into: Name


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("people", __name__, "The people of a collection.")
    persons = services.persons
    answer_name_errors(api)

    @api.get("/people", responses={200: PeoplePage})
    @needs(Scope.ENROL)
    def list_people(query: PageQuery) -> Response:
        """List the people of the collection by name."""
        last = None if query.cursor is None else after(query.cursor)
        found = persons.persons(chosen_collection(services, query), after=last, limit=query.limit + 1)
        page = tuple(map(_summary, found[: query.limit]))
        following = next_cursor(page[-1].name) if len(found) > query.limit else None
        return as_json(PeoplePage(people=page, next=following))

    @api.post("/people", responses={201: PersonSummary, **errors(409)})
    @needs(Scope.ENROL)
    def add_person(query: CollectionQuery, body: NameBody) -> Response:
        """Add a person without a photo. A photo for a new name adds its person, too."""
        name = persons.add(chosen_collection(services, query), body.name)
        return as_json(PersonSummary(name=name, photos=0, first_enrolled=None, last_enrolled=None), 201)

    @api.get("/people/<person:name>", responses={200: PersonSummary, **errors(404)}, **RULE)
    @needs(Scope.ENROL)
    def get_person(path: PersonPath, query: CollectionQuery) -> Response:
        """Show a person."""
        return as_json(_summary(persons.person(chosen_collection(services, query), path.name).summary()))

    @api.patch("/people/<person:name>", responses={200: PersonSummary, **errors(404, 409)}, **RULE)
    @needs(Scope.ENROL)
    def rename_person(path: PersonPath, query: CollectionQuery, body: NameBody) -> Response:
        """Give a person another name. If it is another person's, merge the two instead."""
        collection = chosen_collection(services, query)
        persons.rename(collection, path.name, body.name)
        return as_json(_summary(persons.person(collection, body.name).summary()))

    @api.delete("/people/<person:name>", responses={202: ErasureBegun, **errors(404)}, **RULE)
    @needs(Scope.ENROL)
    def remove_person(path: PersonPath, query: CollectionQuery) -> Response:
        """Erase a person: templates, photos and rejections at once, and what else names or shows the person.

        The erasure has a ledger, at the address in `Location`, of what is still owed.
        """
        collection = chosen_collection(services, query)
        begun = services.erasures.begin(collection, path.name, f"API, {client_name()}")
        if begun is None:
            raise NoSuchPerson(path.name, collection)
        return erasure_begun(begun)

    @api.post("/people/<person:name>/merge", responses={200: Merge, **errors(404, 409)}, **RULE)
    @needs(Scope.ENROL)
    def merge_person(path: PersonPath, query: CollectionQuery, body: MergeBody) -> Response:
        """Give all photos of a person to another one. It can be taken back."""
        by = f"API, {client_name()}"
        return _merge(persons.merge(chosen_collection(services, query), path.name, body.into, by=by))

    @api.post("/people/<person:name>/unmerge", responses={200: Merge, **errors(404)}, **RULE)
    @needs(Scope.ENROL)
    def unmerge_person(path: PersonPath, query: CollectionQuery) -> Response:
        """Take the latest merge of this person into another one back.

        The name is that of the merged person, or the id of a merge.
        """
        return _merge(persons.unmerge(chosen_collection(services, query), path.name))

    return api


def answer_name_errors(api: APIBlueprint) -> None:
    """Answer the errors of the people's use cases in the form of every error."""
    for error, status in NAME_ERRORS.items():
        api.register_error_handler(error, lambda exc, status=status: json_error(status, str(exc)))


def _summary(person: Person) -> PersonSummary:
    return PersonSummary(
        name=person.name,
        photos=person.templates,
        first_enrolled=person.first_enrolled,
        last_enrolled=person.last_enrolled,
    )


def _merge(record: MergeRecord) -> Response:
    return as_json(
        Merge(
            merge_id=UUID(record.merge_id),
            source=record.source,
            into=record.into,
            photos=len(record.template_ids),
            merged_at=record.merged_at,
        )
    )
