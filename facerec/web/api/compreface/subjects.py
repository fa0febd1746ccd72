"""CompreFace's calls about subjects, which are our people: add, list, rename, remove."""

from typing import NamedTuple

from flask import Blueprint, Response, jsonify, request

from facerec.api_keys import Scope
from facerec.gallery.names import KnownNames, valid_identity
from facerec.gallery.people import NoSuchPerson, People
from facerec.web.api.compreface.codes import OUT_OF_RANGE, SUBJECT_EXISTS, ApiError, no_subject
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.forms import read_json


class Removed(NamedTuple):
    """What was removed."""

    subjects: int
    faces: int


def add_routes(api: Blueprint, people: People, max_upload_bytes: int) -> None:
    """Add the calls about subjects."""

    @api.get("/recognition/subjects", strict_slashes=False)
    @needs(Scope.RECOGNISE)
    def list_subjects() -> Response:
        return jsonify(subjects=_names(people, own_collection(presented_key())))

    @api.post("/recognition/subjects", strict_slashes=False)
    @needs(Scope.ENROL)
    def add_subject() -> Response:
        collection, name = own_collection(presented_key()), valid_identity(_subject_in_body(max_upload_bytes))
        if known := KnownNames(_names(people, collection)).spellings(name):
            raise ApiError(400, f"Subject {known[0]} already exists", SUBJECT_EXISTS)
        people.records.add_name(collection, name)
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
        people.rename_or_merge(collection, subject, new, by=f"CompreFace API, {client_name()}")
        return jsonify(updated=True)

    @api.delete("/recognition/subjects/<path:subject>")
    @needs(Scope.ENROL)
    def remove_subject(subject: str) -> Response:
        collection = own_collection(presented_key())
        known = KnownNames(_names(people, collection)).spellings(subject)
        if not known:
            raise no_subject(subject)
        remove_person(people, collection, subject)
        return jsonify(subject=known[0])

    @api.delete("/recognition/subjects", strict_slashes=False)
    @needs(Scope.ENROL)
    def remove_subjects() -> Response:
        return jsonify(deleted=remove_everybody(people, own_collection(presented_key())).subjects)


def remove_person(people: People, collection: str, name: str) -> int:
    """Remove a person with all faces, if there is one; returns how many faces these were."""
    try:
        return people.remove(collection, name)
    except NoSuchPerson:
        return 0


def remove_everybody(people: People, collection: str) -> Removed:
    """Remove all people of a collection."""
    names = _names(people, collection)
    # All faces at once, which is quicker; then what else is known of each person.
    faces = people.remove_photos(collection, list(people.enrolled.owners(collection)))
    for name in names:
        remove_person(people, collection, name)
        people.records.forget(collection, name)
    return Removed(len(names), faces)


def _names(people: People, collection: str) -> list[str]:
    return [person.name for person in people.persons(collection)]


def _subject_in_body(max_upload_bytes: int) -> str:
    body = read_json(request, max_upload_bytes)
    subject = body.get("subject") if isinstance(body, dict) else None
    if not isinstance(subject, str):
        raise ApiError(400, 'send a JSON object with the name as text: {"subject": "Jane Smith"}', OUT_OF_RANGE)
    return subject
