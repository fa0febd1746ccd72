"""Enrolled photos: list, add, show and remove."""

from operator import attrgetter
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BeforeValidator, Strict

from facerec.api_answers import ErasureBegun, Pending, PhotosPage, PhotoSummary
from facerec.api_keys import Scope
from facerec.errors import ObjectMissing
from facerec.gallery.names import valid_identity
from facerec.gallery.people import as_template_id
from facerec.message_base import SchemaOnce
from facerec.messages import FaceQuality, RecognitionResult, ResultBox
from facerec.operations import Enrol
from facerec.ports import TemplateEntry
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import ApiError, as_json, described, errors
from facerec.web.api.v1.erasures import erasure_begun
from facerec.web.api.v1.models import Match, PhotoPath, no_photo
from facerec.web.api.v1.pages import PageQuery, after, next_cursor
from facerec.web.api.v1.people import RULE, PersonPath, answer_name_errors
from facerec.web.api.v1.photo_requests import (
    CollectionQuery,
    ask,
    chosen_collection,
    photo_body,
    refused_error,
    respond,
)
from facerec.web.auth.access import client_name, needs
from facerec.web.auth.denials import UNDEFINED
from facerec.web.results import json_error, photo_response
from model.header import CONTENT_TYPES

Status = Literal[
    "enrolled",
    "duplicate",
    "other_name",
    "no_face",
    "several_faces",
    "too_small",
    "poor_quality",
    "invalid_image",
]
"""Those of `facerec.gallery.enrolment.EnrolmentStatus`, which the web tier cannot import."""

_PICTURE = {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in CONTENT_TYPES.values()}}
_SUCCESS: dict[str, int] = {"enrolled": 201, "duplicate": 200}
_REFUSED: dict[str, int] = {"other_name": 409, "invalid_image": 415}
_WORDS = {"true": True, "false": False}

Flag = Annotated[bool, BeforeValidator(lambda value: _WORDS.get(value, value), json_schema_input_type=bool), Strict()]
"""`true` or `false` in a query."""


class Enrolled(SchemaOnce):
    """What became of a photo that was to be enrolled."""

    status: Status
    detail: str
    """One sentence for people."""
    id: UUID | None
    """Of the enrolled photo, also if it was enrolled before."""
    name: str
    """The person, as the name is spelled in this collection."""
    enrolled_for: str | None
    """The person whose photo it is already, with `other_name`."""
    look_alikes: list[Match]
    """Other people who are similar enough to be taken for this one: the same person twice, or a look-alike."""
    box: ResultBox | None
    """The chosen face, in pixels."""
    quality: FaceQuality | None
    """Of the chosen face, with reasons in words."""
    request_id: UUID


class NotEnrolled(ApiError, Enrolled):
    """An error, with what became of the photo."""


class EnrolQuery(CollectionQuery):
    """How a photo is enrolled."""

    faces: Literal["dominant", "primary", "only"] = "dominant"
    """Which face of several: one that is much larger than the others, the photo's subject, or none."""
    force: Flag = False
    """Enrol in spite of a poor quality."""


def routes(services: ApiServices) -> APIBlueprint:
    """Make the routes."""
    api = described("photos", __name__, "The enrolled photos of people.")
    persons = services.persons
    answer_name_errors(api)

    @api.get("/people/<person:name>/photos", responses={200: PhotosPage, **errors(404)}, **RULE)
    @needs(Scope.ENROL)
    def list_photos(path: PersonPath, query: PageQuery) -> Response:
        """List the enrolled photos of a person."""
        entries = sorted(
            persons.person(chosen_collection(services, query), path.name).entries, key=attrgetter("template_id")
        )
        last = "" if query.cursor is None else after(query.cursor)
        following = [each for each in entries if each.template_id > last]
        page = following[: query.limit]
        more = len(following) > len(page)
        cursor = next_cursor(page[-1].template_id) if more else None
        return as_json(PhotosPage(photos=tuple(map(_summary, page)), next=cursor))

    @api.post(
        "/people/<person:name>/photos",
        responses={
            200: Enrolled,
            201: Enrolled,
            202: Pending,
            409: NotEnrolled,
            422: NotEnrolled,
            **errors(413, 415, 501),
        },
        openapi_extensions=photo_body(),
        **RULE,
    )
    @needs(Scope.ENROL)
    def add_photo(path: PersonPath, query: EnrolQuery) -> Response:
        """Enrol a photo for a person, who is added with the first photo.

        `status` says what became of it. 201: enrolled. 200: enrolled before. 409: it is another person's photo. 422: it
        has no face, several, or one of poor quality.
        """
        operation = Enrol(identity=valid_identity(path.name), faces=query.faces, force=query.force)
        return respond(ask(services, operation, chosen_collection(services, query)), _enrolled, _not_enrolled)

    @api.get("/photos/<id>", responses={200: _PICTURE, **errors(404)})
    @needs(Scope.ENROL)
    def get_photo(path: PhotoPath, query: CollectionQuery) -> Response:
        """Read an enrolled photo, as it was sent."""
        entry = _entry(services, chosen_collection(services, query), path.id)
        if entry is None:
            return no_photo(path)
        try:
            photo = persons.photo(entry)
        except ObjectMissing:
            photo = None
        if photo is None:
            return json_error(404, f"the photo {path.id} is not kept: its face was imported without it")
        return photo_response(photo)

    @api.delete("/photos/<id>", responses={202: ErasureBegun, **errors(404)})
    @needs(Scope.ENROL)
    def remove_photo(path: PhotoPath, query: CollectionQuery) -> Response:
        """Erase an enrolled photo with its template. A person without another photo is erased, too."""
        collection, template_id = chosen_collection(services, query), as_template_id(path.id)
        ids = [] if template_id is None else [template_id]
        begun = services.erasures.begin_photos(collection, ids, f"API, {client_name()}", photos_now=True)
        return no_photo(path) if begun is None else erasure_begun(begun)

    return api


def _entry(services: ApiServices, collection: str, photo_id: str) -> TemplateEntry | None:
    template_id = as_template_id(photo_id)
    return None if template_id is None else services.people.entry(collection, template_id)


def _summary(entry: TemplateEntry) -> PhotoSummary:
    return PhotoSummary(
        id=UUID(entry.template_id),
        name=entry.identity,
        filename=entry.source,
        enrolled_at=entry.enrolled_at,
        probability=entry.probability,
        model_id=entry.model_id,
        kept=entry.photo is not None,
        external_id=entry.external_id,
    )


def _facts(result: RecognitionResult) -> dict[str, Any]:
    enrolment = result.enrolments[0]
    face = None if enrolment.face is None else result.faces[enrolment.face]
    return {
        "status": enrolment.status,
        "detail": enrolment.detail,
        "id": enrolment.template_id,
        "name": enrolment.identity,
        "enrolled_for": enrolment.enrolled_for,
        "look_alikes": [match.model_dump() for match in enrolment.look_alikes],
        "box": face and face.box,
        "quality": face and face.quality,
        "request_id": result.request_id,
    }


def _enrolled(result: RecognitionResult) -> Response:
    answer = Enrolled.model_validate(_facts(result))
    return as_json(answer, _SUCCESS[answer.status])


def _not_enrolled(result: RecognitionResult) -> Response:
    if not result.enrolments:
        return refused_error(result)
    facts = _facts(result)
    answer = NotEnrolled.model_validate({**facts, "message": facts["detail"], "code": UNDEFINED})
    return as_json(answer, _REFUSED.get(answer.status, 422))
