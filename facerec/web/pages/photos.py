"""Enrolled photos: the picture, its face, the large view, and their removal."""

from flask import Blueprint, Response, abort, render_template, request

from facerec.api_keys import Scope
from facerec.errors import ObjectMissing
from facerec.gallery.people import NoSuchPerson, as_template_id
from facerec.ports import TemplateEntry
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import client_name, needs
from facerec.web.pages.erasures import render_erasure
from facerec.web.pages.layout import error_page, page_collection, render, view_blueprint
from facerec.web.pages.person import answer_missing_people, newest_first, render_person
from facerec.web.pages.texts import markup, text
from facerec.web.results import content_type
from model.header import CONTENT_TYPES

SHOWN = {CONTENT_TYPES[form] for form in ("JPEG", "PNG", "WEBP")}
"""What every browser shows; what else was enrolled is never sent as its own type."""
SMALL_BYTES = 300_000
"""A photo of this size stands for the face where no thumbnail of it is kept."""
_KEPT = "private, max-age=3600"


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the photos."""
    web = view_blueprint("photos", __name__, "/photos")
    answer_missing_people(web, services)
    persons = services.persons

    @web.get("/<template_id>")
    @needs(Scope.ENROL, page=True)
    def photo(template_id: str) -> Response:
        entry = _entry(services, template_id)
        return _unchanged(entry) or _picture(entry, _photo(services, entry))

    @web.get("/<template_id>/face")
    @needs(Scope.ENROL, page=True)
    def face(template_id: str) -> Response:
        entry = _entry(services, template_id)
        if unchanged := _unchanged(entry):
            return unchanged
        thumbnail = persons.face(entry)
        if thumbnail is None and entry.photo is not None and entry.photo.size <= SMALL_BYTES:
            thumbnail = _photo(services, entry)
        return _picture(entry, thumbnail)

    @web.get("/<template_id>/view")
    @needs(Scope.ENROL, page=True)
    def view(template_id: str) -> Response:
        entry = _entry(services, template_id)
        entries = newest_first(persons.person(entry.collection, entry.identity).entries)
        place = [each.template_id for each in entries].index(entry.template_id)
        return render(
            "photo_view.html",
            entry=entry,
            place=place,
            count=len(entries),
            previous=entries[place - 1],
            following=entries[(place + 1) % len(entries)],
        )

    @web.post("/<template_id>/delete")
    @needs(Scope.ENROL, page=True)
    def delete(template_id: str) -> Response:
        entry = _entry(services, template_id)
        by = f"page, {client_name()}"
        begun = services.erasures.begin_photos(entry.collection, [entry.template_id], by, photos_now=True)
        if begun is None:
            abort(_gone())
        notice = markup("photo.deleted", file=entry.source)
        try:
            return render_person(services, entry.collection, entry.identity, notice=notice, erasure=begun.record)
        except NoSuchPerson:
            return render_erasure(services, begun.record, subject_key=begun.subject_key, name=entry.identity)

    return web


def _entry(services: ApiServices, template_id: str) -> TemplateEntry:
    collection, identifier = page_collection(services), as_template_id(template_id)
    entry = None if identifier is None else services.people.entry(collection, identifier)
    if entry is None:
        abort(_gone())
    return entry


def _gone() -> Response:
    return error_page(404, text("photo.gone"))


def _photo(services: ApiServices, entry: TemplateEntry) -> bytes | None:
    try:
        return services.persons.photo(entry)
    except ObjectMissing:
        return None


def _unchanged(entry: TemplateEntry) -> Response | None:
    """Return the response to a browser that has the picture already: those of a template never change."""
    if entry.template_id not in request.if_none_match:
        return None
    response = Response(status=304, headers={"Cache-Control": _KEPT})
    response.set_etag(entry.template_id)
    return response


def _picture(entry: TemplateEntry, body: bytes | None) -> Response:
    """Make the response with a picture, or with a drawing where there is none that a browser shows."""
    kind = None if body is None else content_type(body)
    if kind not in SHOWN:
        drawn = render_template("drawing.svg", name=entry.identity)
        return Response(drawn, headers={"Cache-Control": _KEPT}, content_type="image/svg+xml; charset=utf-8")
    response = Response(body, headers={"Cache-Control": _KEPT}, content_type=kind)
    response.set_etag(entry.template_id)
    return response
