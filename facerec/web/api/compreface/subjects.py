"""CompreFace's calls about subjects, which are our people: add, list, rename, remove."""

from typing import NamedTuple

from flask import Blueprint, Response, jsonify, request

from facerec.api_keys import Scope
from facerec.gallery.names import KnownNames
from facerec.gallery.people import People, PersonExists
from facerec.web.api.compreface.codes import OUT_OF_RANGE, SUBJECT_EXISTS, ApiError, no_subject
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.forms import read_json


class Removed(NamedTuple):
    """What was removed."""

    subjects: int
    faces: int


def add_routes(api: Blueprint, services: ApiServices) -> None:
    """Add the calls about subjects."""
    people, max_upload_bytes = services.persons, services.settings.web.max_upload_bytes

    @api.get("/recognition/subjects", strict_slashes=False)
    @needs(Scope.RECOGNISE)
    def list_subjects() -> Response:
        return jsonify(subjects=_names(people, own_collection(presented_key())))

    @api.post("/recognition/subjects", strict_slashes=False)
    @needs(Scope.ENROL)
    def add_subject() -> Response:
        collection = own_collection(presented_key())
        try:
            name = people.add(collection, _subject_in_body(max_upload_bytes))
        except PersonExists as exc:
            raise ApiError(400, f"Subject {exc.name} already exists", SUBJECT_EXISTS) from exc
        response = jsonify(subject=name)
        response.status_code = 201
        return response

    # A slash in a name is not escaped by CompreFace's clients.
    @api.put("/recognition/subjects/<path:subject>")
    @needs(Scope.ENROL)
    def rename_subject(subject: str) -> Response:
        collection, new = own_collection(presented_key()), _subject_in_body(max_upload_bytes)
        if new in {"", subject}:
            return jsonify(updated=False)
        people.rename_or_merge(collection, subject, new, by=client_name())
        return jsonify(updated=True)

    @api.delete("/recognition/subjects/<path:subject>")
    @needs(Scope.ENROL)
    def remove_subject(subject: str) -> Response:
        known = KnownNames(_names(people, own_collection(presented_key()))).spellings(subject)
        if not known:
            raise no_subject(subject)
        remove_person(services, subject)
        return jsonify(subject=known[0])

    @api.delete("/recognition/subjects", strict_slashes=False)
    @needs(Scope.ENROL)
    def remove_subjects() -> Response:
        return jsonify(deleted=remove_everybody(services).subjects)


def remove_person(services: ApiServices, name: str) -> int:
    """Erase a person of the key's collection, if there is one; returns how many faces these were."""
    begun = services.erasures.begin(own_collection(presented_key()), name, client_name())
    return 0 if begun is None else begun.record.place("templates").removed


def remove_everybody(services: ApiServices) -> Removed:
    """Erase all people of the key's collection; those that are added meanwhile stay."""
    collection = own_collection(presented_key())
    names = _names(services.persons, collection)
    return Removed(len(names), services.erase_everybody(collection, client_name()))


def _names(people: People, collection: str) -> list[str]:
    return [person.name for person in people.persons(collection)]


def _subject_in_body(max_upload_bytes: int) -> str:
    body = read_json(request, max_upload_bytes)
    subject = body.get("subject") if isinstance(body, dict) else None
    if not isinstance(subject, str):
        raise ApiError(400, 'send a JSON object with the name as text: {"subject": "Jane Smith"}', OUT_OF_RANGE)
    return subject
