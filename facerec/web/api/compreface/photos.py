"""CompreFace's calls with a photo: each is one operation of a request that a worker does."""

from collections.abc import Sequence
from typing import NoReturn

from flask import Blueprint, Response, jsonify, request

from facerec.api_keys import Scope
from facerec.gallery.names import KnownNames, valid_identity
from facerec.gallery.people import shown_id
from facerec.messages import Enrolment, RecognitionResult
from facerec.operations import Detect, Enrol, Operation, Recognise, Verify
from facerec.web import replies, uploads
from facerec.web.api.compreface import codes
from facerec.web.api.compreface.codes import ApiError
from facerec.web.api.compreface.faces import entry_of
from facerec.web.api.compreface.faces_json import face_json, similarity_json, subjects_json, versions, wanted
from facerec.web.api.compreface.queries import flag, photo_query, share, subject_of
from facerec.web.api.services import ApiServices
from facerec.web.asking import Question
from facerec.web.auth.access import needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.forms import Photo, allow_body, decode_photo, read_json, read_photos

ONE = ("file",)
TWO = ("source_image", "target_image")
"""The fields of the photos, in forms and in JSON."""


def add_routes(api: Blueprint, services: ApiServices) -> None:
    """Add the calls with a photo."""

    @api.post("/recognition/recognize")
    @needs(Scope.RECOGNISE)
    def recognize() -> Response:
        query = photo_query(request.args)
        result = _ask(services, ONE, Recognise(nearest=query.prediction_count))
        faces = [
            face_json(face, query, result) | {"subjects": subjects_json(face, query)}
            for face in wanted(result.faces, query)
        ]
        return jsonify(result=faces, **versions(result, query))

    @api.post("/detection/detect")
    @needs(Scope.RECOGNISE)
    def detect() -> Response:
        query = photo_query(request.args)
        result = _ask(services, ONE, Detect())
        faces = [face_json(face, query, result) for face in wanted(result.faces, query)]
        return jsonify(result=faces, **versions(result, query))

    @api.post("/recognition/faces/<image_id>/verify")
    @needs(Scope.RECOGNISE)
    def verify(image_id: str) -> Response:
        query = photo_query(request.args)
        entry = entry_of(services.persons, image_id)
        result = _ask(services, ONE, Verify(template_id=entry.template_id))
        faces = [
            face_json(face, query, result) | {"subject": entry.identity, "similarity": similarity_json(face, result)}
            for face in wanted(result.faces, query)
        ]
        return jsonify(result=faces, **versions(result, query))

    @api.post("/verification/verify")
    @needs(Scope.RECOGNISE)
    def compare() -> Response:
        query = photo_query(request.args)
        result = _ask(services, TWO)
        source = wanted(result.source_faces, query)
        if len(source) > 1 or source[0] is not result.source_faces[0]:
            raise codes.too_many_faces()
        matches = [
            face_json(face, query, result) | {"similarity": similarity_json(face, result)}
            for face in wanted(result.faces, query)
        ]
        compared = {"source_image_face": face_json(source[0], query, result), "face_matches": matches}
        return jsonify(result=[compared | versions(result, query)])

    @api.post("/recognition/faces")
    @needs(Scope.ENROL)
    def add_face() -> Response:
        subject = valid_identity(subject_of(request.args))
        kept = KnownNames(services.persons.records.names(own_collection(presented_key()))).spellings(subject)
        operation = Enrol(
            identity=kept[0] if kept else subject,
            faces="only",
            force=flag(request.args, "force"),
            min_probability=share(request.args, "det_prob_threshold"),
        )
        enrolment = _ask(services, ONE, operation).enrolments[0]
        if enrolment.status not in {"enrolled", "duplicate"} or enrolment.template_id is None:
            _refuse(enrolment)
        response = jsonify(image_id=shown_id(enrolment.template_id), subject=enrolment.identity)
        response.status_code = 201
        return response


def _ask(services: ApiServices, fields: Sequence[str], operation: Operation | None = None) -> RecognitionResult:
    """Ask the workers about the photos in these fields; two photos are compared. Raises `ApiError`."""
    collection = own_collection(presented_key())

    def read() -> Question:
        photos = _photos(fields, services.settings.web.max_upload_bytes)
        return Question(
            photo=photos[0],
            target=photos[1] if len(photos) > 1 else None,
            operation=operation or Recognise(),
            collection=collection,
        )

    _, answer = uploads.ask(services.asker, read)
    return codes.done(answer)


def _photos(fields: Sequence[str], max_upload_bytes: int) -> list[Photo]:
    """Read the photos, from a form or as base64 text from JSON; raises `Declined`."""
    in_json = request.mimetype == "application/json"
    allow_body(request, max_upload_bytes, photos=len(fields), base64=in_json)
    if not in_json:
        return read_photos(request, fields, max_upload_bytes)
    body = read_json(request, max_upload_bytes)
    if not isinstance(body, dict):
        raise replies.Declined(replies.no_file(fields[0]))
    for field in fields:
        if field not in body:
            raise replies.Declined(replies.no_file(field))
    return [decode_photo(body[field], field, max_upload_bytes) for field in fields]


def _refuse(enrolment: Enrolment) -> NoReturn:
    """Raise `ApiError` with the reason."""
    match enrolment.status:
        case "no_face":
            raise codes.no_face()
        case "several_faces":
            raise codes.too_many_faces()
        case "invalid_image":
            raise ApiError(400, enrolment.detail, codes.BAD_EXTENSION)
        case "too_small" | "poor_quality":
            raise ApiError(400, f"{enrolment.detail}: send a better photo, or add force=true to the query")
        case "other_name":
            raise ApiError(400, f"this photo is already enrolled for {enrolment.enrolled_for!r}")
        case _:
            raise ApiError(400, enrolment.detail)
