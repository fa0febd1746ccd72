"""IndexFaces, ListFaces and DeleteFaces."""

from itertools import islice
from typing import Any

from facerec.gallery.people import shown_id
from facerec.messages import Enrolment, Face, RecognitionResult
from facerec.operations import Enrol
from facerec.web.api.rekognition import shapes
from facerec.web.api.rekognition.calls import Calls, reaching
from facerec.web.api.rekognition.errors import INVALID_PARAMETER, RekognitionError
from facerec.web.api.rekognition.requests import MAX_PAGE, DeleteFaces, IndexFaces, ListFaces, last_of, token_of
from facerec.web.asking import Question
from facerec.web.auth.access import client_name

LOW_QUALITY = "LOW_FACE_QUALITY"
"""Of a reason without a name of its own."""
REASONS = {
    "blurred": "LOW_SHARPNESS",
    "too dark": "LOW_BRIGHTNESS",
    "too bright": LOW_QUALITY,
    "low contrast": LOW_QUALITY,
    "hardly a face to the detector": "LOW_CONFIDENCE",
    "tilted": "EXTREME_POSE",
    "turned to the side": "EXTREME_POSE",
    "turned up or down": "EXTREME_POSE",
    "no front of a face": "EXTREME_POSE",
    "little that tells this face from others": LOW_QUALITY,
    "outside of the picture": "SMALL_BOUNDING_BOX",
    "small": "SMALL_BOUNDING_BOX",
}
"""The service's names of the reasons for a quality, without what follows a colon (`model.quality_factors`)."""
ENROLLED = frozenset({"enrolled", "duplicate"})
"""As `facerec.gallery.enrolment.EnrolmentStatus`, which needs numpy; so are the others below."""
OTHER_NAME = "other_name"
TOO_SMALL = "too_small"
POOR_QUALITY = "poor_quality"


def index_faces(calls: Calls) -> dict[str, Any]:
    """Enrol the faces of an image."""

    def question(call: IndexFaces) -> Question:
        calls.usable(call.collection_id)
        name = call.external_image_id
        enrol = Enrol(
            identity=name,
            faces="all",
            max_faces=call.max_faces,
            exact_name=True,
            force=call.quality_filter == "NONE",
            external_id=name,
        )
        photo = calls.photo(call.image, name or "image")
        return Question(photo=photo, operation=enrol, collection=call.collection_id)

    call, result = calls.ask(IndexFaces, question)
    taken = {enrolment.face: enrolment for enrolment in result.enrolments if enrolment.face is not None}
    for enrolment in taken.values():
        if enrolment.status == OTHER_NAME:
            message = f"{enrolment.detail}; its FaceId is {shown_id(enrolment.template_id or '')}"
            raise RekognitionError(INVALID_PARAMETER, message)
    indexed = [each for each in taken.values() if each.status in ENROLLED]
    with reaching():
        entries = calls.services.people.find(call.collection_id, [each.template_id or "" for each in indexed])
    picture = shapes.picture_of(result)
    records: list[dict[str, Any]] = []
    unindexed: list[dict[str, Any]] = []
    for place, face in enumerate(result.faces):
        entry = entries.get(taken[place].template_id or "") if place in taken else None
        if entry is None:
            unindexed.append({"Reasons": _reasons(taken.get(place), face), "FaceDetail": picture.detail(face)})
        else:
            box = {"BoundingBox": picture.box(face.box)}
            records.append({"Face": shapes.indexed_face(entry) | box, "FaceDetail": picture.detail(face)})
    return {"FaceRecords": records, "UnindexedFaces": unindexed, "FaceModelVersion": _model(result)}


def list_faces(calls: Calls) -> dict[str, Any]:
    """List the faces of a collection, by their ids."""
    call = calls.body(ListFaces)
    calls.usable(call.collection_id)
    size = call.max_results or MAX_PAGE
    after = last_of(call.next_token)
    with reaching():
        people = calls.services.people
        if call.user_id is not None:
            entries = []  # users are not kept
        elif call.face_ids is not None:
            found = people.find(call.collection_id, call.face_ids)
            entries = [found[each] for each in sorted(found) if each > after]
        else:
            entries = list(islice(people.entries(call.collection_id, after, size + 1), size + 1))
        model = calls.model_of(call.collection_id)
    shown = entries[:size]
    last = shown[-1].template_id if len(entries) > size else None
    return {"Faces": [shapes.indexed_face(entry) for entry in shown], "FaceModelVersion": model} | token_of(last)


def delete_faces(calls: Calls) -> dict[str, Any]:
    """Remove faces with their photos."""
    call = calls.body(DeleteFaces)
    calls.usable(call.collection_id)
    with reaching():
        known = calls.services.people.find(call.collection_id, call.face_ids)
        calls.services.erase_faces(call.collection_id, list(known), f"Rekognition API, {client_name()}")
    wanted = list(dict.fromkeys(call.face_ids))
    return {
        "DeletedFaces": [shown_id(each) for each in wanted if each in known],
        "UnsuccessfulFaceDeletions": [
            {"FaceId": shown_id(each), "Reasons": ["FACE_NOT_FOUND"]} for each in wanted if each not in known
        ],
    }


def _reasons(enrolment: Enrolment | None, face: Face) -> list[str]:
    if enrolment is None:
        return ["EXCEEDS_MAX_FACES"]
    if enrolment.status == TOO_SMALL:
        return ["SMALL_BOUNDING_BOX"]
    words = () if face.quality is None or enrolment.status != POOR_QUALITY else face.quality.reasons
    named = [REASONS.get(reason.partition(":")[0], LOW_QUALITY) for reason in words]
    return list(dict.fromkeys(named)) or [LOW_QUALITY]


def _model(result: RecognitionResult) -> str:
    return result.model_id or ""
