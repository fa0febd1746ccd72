"""SearchFacesByImage, SearchFaces, DetectFaces and CompareFaces."""

from typing import Any

from flask import request

from facerec.gallery.people import shown_id
from facerec.operations import Detect, Recognise, SearchTemplate
from facerec.web.api.rekognition import shapes
from facerec.web.api.rekognition.calls import Calls
from facerec.web.api.rekognition.errors import INVALID_PARAMETER, RekognitionError
from facerec.web.api.rekognition.requests import CompareFaces, DetectFaces, SearchFaces, SearchFacesByImage
from facerec.web.asking import NO_PHOTO, Question

SEARCH_ALL = "X-Facerec-Search-All"
"""The request header with which a search takes all faces of the image, and not the largest alone."""
_NO_FACE = "There are no faces in the image. Should be at least 1."


def search_faces_by_image(calls: Calls) -> dict[str, Any]:
    """Search the largest face of an image, or all its faces, among those of a collection."""

    def question(call: SearchFacesByImage) -> Question:
        calls.usable(call.collection_id)
        search = Recognise(nearest=call.max_faces)
        return Question(photo=calls.photo(call.image), operation=search, collection=call.collection_id)

    call, result = calls.ask(SearchFacesByImage, question)
    if not result.faces:
        raise RekognitionError(INVALID_PARAMETER, _NO_FACE)
    picture, largest = shapes.picture_of(result), shapes.largest(result.faces)
    every = request.headers.get(SEARCH_ALL, "").lower() == "true"
    places = sorted(range(len(result.faces)), key=lambda place: place != largest)
    searched = [result.faces[place] for place in (places if every else places[:1])]
    unsearched = [] if every else [result.faces[place] for place in places[1:]]
    rated = [shapes.at_least(face.nearest, call.face_match_threshold) for face in searched]
    answer = {
        "SearchedFaceBoundingBox": picture.box(searched[0].box),
        "SearchedFaceConfidence": searched[0].probability * 100,
        "FaceMatches": calls.face_matches(call.collection_id, [each for own in rated for each in own], call.max_faces),
        "FaceModelVersion": result.model_id,
        "UnsearchedFaces": [picture.found(face) for face in unsearched],
    }
    if every:
        # Two faces of one image are never one person, who goes to the most similar face.
        best: dict[str, float] = {}
        for similarity, match in (each for own in rated for each in own):
            best[match.identity] = max(similarity, best.get(match.identity, 0.0))
        rated = [[each for each in own if each[0] >= best[each[1].identity]] for own in rated]
        answer["SearchedFaces"] = [
            picture.found(face) | {"FaceMatches": calls.face_matches(call.collection_id, own, call.max_faces)}
            for face, own in zip(searched, rated, strict=True)
        ]
    return answer


def search_faces(calls: Calls) -> dict[str, Any]:
    """Search an enrolled face among the others of its collection."""

    def question(call: SearchFaces) -> Question:
        calls.usable(call.collection_id)
        search = SearchTemplate(template_id=call.face_id, nearest=call.max_faces)
        return Question(photo=NO_PHOTO, operation=search, collection=call.collection_id)

    call, result = calls.ask(SearchFaces, question)
    rated = shapes.at_least(result.matches, call.face_match_threshold)
    return {
        "SearchedFaceId": shown_id(call.face_id),
        "FaceMatches": calls.face_matches(call.collection_id, rated, call.max_faces),
        "FaceModelVersion": result.model_id,
    }


def detect_faces(calls: Calls) -> dict[str, Any]:
    """Find the faces of an image."""
    _, result = calls.ask(DetectFaces, lambda call: Question(photo=calls.photo(call.image), operation=Detect()))
    picture = shapes.picture_of(result)
    return {"FaceDetails": [picture.detail(face) for face in result.faces]}


def compare_faces(calls: Calls) -> dict[str, Any]:
    """Compare the largest face of an image with all faces of another."""

    def question(call: CompareFaces) -> Question:
        source, target = calls.photo(call.source_image, "source"), calls.photo(call.target_image, "target")
        return Question(photo=source, target=target)

    call, result = calls.ask(CompareFaces, question)
    if not result.source_faces or not result.faces:
        raise RekognitionError(
            INVALID_PARAMETER, "Request has invalid parameters: there is no face in one of the images"
        )
    source = shapes.Picture(result.source_width, result.source_height)
    target = shapes.picture_of(result)
    matches: list[dict[str, Any]] = []
    unmatched: list[dict[str, Any]] = []
    for face in result.faces:
        similarity = shapes.percent(face.similarity or 0.0, result.threshold or 0.0)
        if similarity >= call.similarity_threshold:
            matches.append({"Similarity": similarity, "Face": target.detail(face)})
        else:
            unmatched.append(target.detail(face))
    return {
        "SourceImageFace": source.found(result.source_faces[0]),
        "FaceMatches": sorted(matches, key=lambda match: -match["Similarity"]),
        "UnmatchedFaces": unmatched,
        "UnsearchedFaces": [source.found(face) for face in result.source_faces[1:]],
    }
