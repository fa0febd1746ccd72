"""CompreFace's calls about enrolled faces: list, show, remove."""

import math
from itertools import islice

from flask import Blueprint, Response, jsonify, request

from facerec.api_keys import Scope
from facerec.gallery.people import NoSuchPerson, People, as_template_id, shown_id
from facerec.ports import TemplateEntry
from facerec.web.api.compreface.codes import ApiError, no_embedding, no_photo
from facerec.web.api.compreface.queries import page_query
from facerec.web.api.compreface.subjects import remove_everybody, remove_person
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.forms import read_json
from facerec.web.results import photo_response


def add_routes(api: Blueprint, services: ApiServices) -> None:
    """Add the calls about faces."""
    people = services.persons

    @api.get("/recognition/faces")
    @needs(Scope.RECOGNISE)
    def list_faces() -> Response:
        page, size = page_query(request.args)
        total, shown = _page(people, own_collection(presented_key()), request.args.get("subject"), page, size)
        return jsonify(
            faces=[_face(template_id, subject) for template_id, subject in shown],
            page_number=page,
            page_size=size,
            total_pages=math.ceil(total / size),
            total_elements=total,
        )

    @api.delete("/recognition/faces")
    @needs(Scope.ENROL)
    def remove_faces_of_subject() -> Response:
        subject = request.args.get("subject")
        # Without a name, or with an empty one, CompreFace removes all faces.
        return jsonify(deleted=remove_person(services, subject) if subject else remove_everybody(services).faces)

    @api.delete("/recognition/faces/<image_id>")
    @needs(Scope.ENROL)
    def remove_face(image_id: str) -> Response:
        removed = _remove(services, [image_id])
        if not removed:
            raise no_embedding(image_id)
        return jsonify(removed[0])

    @api.post("/recognition/faces/delete")
    @needs(Scope.ENROL)
    def remove_listed_faces() -> Response:
        listed = read_json(request, services.settings.web.max_upload_bytes)
        if not isinstance(listed, list):
            raise ApiError(400, "send a JSON list of image ids")
        return jsonify(_remove(services, [str(image_id) for image_id in listed]))

    @api.get("/recognition/faces/<image_id>/img")
    @needs(Scope.ENROL)
    def show_photo(image_id: str) -> Response:
        photo = people.photo(entry_of(people, image_id))
        if photo is None:
            raise no_photo()
        return photo_response(photo)


def entry_of(people: People, image_id: str) -> TemplateEntry:
    """Return the face of the key's collection with this id; raises `ApiError`."""
    template_id = as_template_id(image_id)
    entry = None if template_id is None else people.enrolled.entry(own_collection(presented_key()), template_id)
    if entry is None:
        raise no_embedding(image_id)
    return entry


def _page(
    people: People, collection: str, subject: str | None, page: int, size: int
) -> tuple[int, list[tuple[str, str]]]:
    """Return the number of faces, and those of a page with their subjects, by id."""
    if subject:
        try:
            own = people.template_ids(collection, subject)
        except NoSuchPerson:
            own = {}
        return len(own), list(own.items())[page * size : (page + 1) * size]
    total = people.enrolled.count(collection)
    if page * size >= total:
        return total, []
    # Pages of the table are read until this one is full, and no further.
    shown = islice(people.enrolled.entries(collection), page * size, (page + 1) * size)
    return total, [(entry.template_id, entry.identity) for entry in shown]


def _remove(services: ApiServices, image_ids: list[str]) -> list[dict[str, str]]:
    """Remove those of the faces that exist, and return them."""
    collection = own_collection(presented_key())
    known = {template_id for image_id in image_ids if (template_id := as_template_id(image_id))}
    entries = [entry for each in sorted(known) if (entry := services.people.entry(collection, each))]
    services.erase_faces(collection, [entry.template_id for entry in entries], client_name())
    return [_face(entry.template_id, entry.identity) for entry in entries]


def _face(template_id: str, subject: str) -> dict[str, str]:
    return {"image_id": shown_id(template_id), "subject": subject}
