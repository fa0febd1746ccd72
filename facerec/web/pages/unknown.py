"""Unknown people, where their collection keeps them: list, search by a photo, promote to a person, remove."""

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from facerec.api_keys import Scope
from facerec.gallery.unknown_people import NoSuchUnknown
from facerec.messages import RecognitionResult
from facerec.object_keys import input_key
from facerec.operations import SearchUnknown
from facerec.unknown_records import UnknownPerson
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.photo_requests import ask, own_result
from facerec.web.auth.access import needs
from facerec.web.pages.enrol import answered
from facerec.web.pages.layout import CAMERA, error_page, may, page_collection, render, view_blueprint
from facerec.web.pages.paging import requested_part


@dataclass(frozen=True, slots=True)
class Sight:
    """The photo that an unknown person was seen on last."""

    result: RecognitionResult
    face: int | None
    """Its place in the result; `None` if the result does not tell."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("unknown", __name__, "/unknown")
    web.register_error_handler(NoSuchUnknown, lambda exc: error_page(404, str(exc)))
    unknown = services.unknown

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        collection = page_collection(services)
        if not services.settings.unknown.kept(collection):
            return render("unknown_off.html", collection=collection)
        return _listed(services, collection)

    @web.get("/<unknown:unknown_id>")
    @needs(Scope.ENROL, page=True)
    def person(unknown_id: str) -> Response:
        record = unknown.get(page_collection(services), unknown_id)
        return render("unknown_person.html", record=record)

    @web.get("/<unknown:unknown_id>/sight")
    @needs(Scope.ENROL, page=True)
    def sight(unknown_id: str) -> Response:
        """Show the photo of the last sight, if it is kept and the reader's own."""
        record = unknown.get(page_collection(services), unknown_id)
        return render("unknown_sight.html", record=record, sight=_last_sight(services, record))

    @web.post("/search")
    @needs(Scope.RECOGNISE, page=True)
    def search() -> Response:
        """Ask whether the faces of a photo were here before; it counts as no sight."""
        result = answered(ask(services, SearchUnknown(), page_collection(services)))
        seen = [place for place, face in enumerate(result.faces) if face.unknown]
        return render("unknown_found.html", result=result, seen=seen)

    @web.post("/<unknown:unknown_id>/promote")
    @needs(Scope.ENROL, page=True)
    def promote(unknown_id: str) -> Response:
        collection, name = page_collection(services), request.form.get("name", "")
        person, count = unknown.promote(collection, unknown_id, name)
        return render("unknown_gone.html", unknown_id=unknown_id, name=person, count=count)

    @web.post("/<unknown:unknown_id>/remove")
    @needs(Scope.ENROL, page=True)
    def remove(unknown_id: str) -> Response:
        count = unknown.remove(page_collection(services), unknown_id)
        return render("unknown_gone.html", unknown_id=unknown_id, name=None, count=count)

    return web


def _listed(services: ApiServices, collection: str) -> Response:
    everybody, part = services.unknown.newest(collection), requested_part()
    values: dict[str, Any] = {"records": everybody[part.start : part.stop], "part": part, "total": len(everybody)}
    if part.appended:
        return render("unknown_cards.html", **values)
    return render(
        "unknown.html",
        headers=CAMERA,
        **values,
        days=services.settings.unknown.days,
        may_search=may(Scope.RECOGNISE),
    )


def _last_sight(services: ApiServices, record: UnknownPerson) -> Sight | None:
    result = own_result(services, record.last_request)
    if result is None:
        return None
    if not services.store.exists(services.settings.input_bucket, input_key(record.last_request, result.filename)):
        return None
    own = {record.unknown_id, *record.aliases}
    faces = (place for place, face in enumerate(result.faces) if face.unknown and face.unknown.unknown_id in own)
    return Sight(result, next(faces, None))
