"""Requests with a photo: their body, the question to the app tier, and the answer."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

from flask import Response, abort, request
from pydantic import BaseModel, Field, ValidationError
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from facerec.api_answers import REFUSAL_STATUS, Pending
from facerec.errors import ObjectMissing
from facerec.message_base import CollectionName, problems
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import input_key, request_prefix
from facerec.operations import Operation
from facerec.stored_results import result_of_request
from facerec.web import replies, uploads
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import Body, Query, as_json
from facerec.web.api.v1.models import Result
from facerec.web.asking import Answer, Question
from facerec.web.auth.access import presented_key
from facerec.web.auth.collections import may_use_or_owns, own_collection
from facerec.web.auth.request_ids import may_read
from facerec.web.forms import Photo, allow_body, decode_photo, read_photos
from facerec.web.replies import Declined, Reply, results_path
from facerec.web.results import json_error

JSON = "application/json"
FILE, PAIR = "file", ("source", "target")
"""The fields of forms."""
B = TypeVar("B", bound=BaseModel)
Base64 = Annotated[str, Field(min_length=1, json_schema_extra={"format": "byte"})]


class CollectionQuery(Query):
    """The collection of a request."""

    collection: CollectionName | None = None
    """Another one than the key's, for scope `admin`, in open mode, or for a collection that the key has created."""


class PhotoBody(Body):
    """A photo in JSON."""

    photo: Base64
    """The bytes of the file, as base64."""
    filename: str = "photo"


class PhotoPairBody(Body):
    """Two photos in JSON, each as base64."""

    source: Base64
    target: Base64


class EarlierPhoto(Body):
    """The photo of an earlier request of this key."""

    request_id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]


def photo_body(*fields: str, json: type[Body] = PhotoBody, or_json: type[Body] | None = None) -> dict[str, Any]:
    """Return the description of a body with photos: files in these fields of a form, or JSON of either model."""
    names = list(fields) or [FILE]
    form = {
        "type": "object",
        "properties": {name: {"type": "string", "format": "binary"} for name in names},
        "required": names,
    }
    schemas = [model.model_json_schema() for model in (json, or_json) if model is not None]
    content = {
        "multipart/form-data": {"schema": form},
        JSON: {"schema": {"anyOf": schemas} if len(schemas) > 1 else schemas[0]},
    }
    return {"requestBody": {"content": content, "required": True}}


def chosen_collection(services: ApiServices, query: CollectionQuery) -> str:
    """Return the collection of a request; ends it with 403 if the key may not use the one that it names."""
    key = presented_key()
    collection = query.collection or own_collection(key)
    if not may_use_or_owns(key, collection, services.collections):
        abort(json_error(403, f"this API key may not use the collection {collection}: leave the collection out"))
    return collection


def read_photo(limit: int) -> list[Photo]:
    """Return the one photo of the body; raises `Declined`."""
    if request.mimetype != JSON:
        return read_photos(request, [FILE], limit)
    body = parse_json(PhotoBody, limit)
    return [decode_photo(body.photo, body.filename, limit)]


def read_pair(limit: int) -> list[Photo]:
    """Return the two photos of the body; raises `Declined`."""
    if request.mimetype != JSON:
        return read_photos(request, PAIR, limit)
    body = parse_json(PhotoPairBody, limit)
    return [decode_photo(body.source, "source", limit), decode_photo(body.target, "target", limit)]


def parse_json(model: type[B], limit: int) -> B:
    """Return the body, which is JSON; raises `Declined`."""
    try:
        return model.model_validate_json(request.get_data(cache=False))
    except RequestEntityTooLarge as exc:
        raise Declined(replies.too_large(limit)) from exc
    except ClientDisconnected as exc:
        raise Declined(Reply(400, "the body is incomplete: send it again", "unreadable_form")) from exc
    except ValidationError as exc:
        raise Declined(Reply(400, problems(exc), "unreadable_form")) from exc


def own_result(services: ApiServices, request_id: UUID) -> RecognitionResult | None:
    """Return the stored result of an earlier request that the key may read; `None` if it is not there."""
    if not may_read(presented_key(), request_id):
        return None
    return result_of_request(services.store, services.settings.output_bucket, request_id)


def is_pending(services: ApiServices, request_id: UUID) -> bool:
    """Whether an earlier request that the key may read, and that has no result, will have one."""
    if not may_read(presented_key(), request_id):
        return False
    return bool(services.store.keys(services.settings.input_bucket, request_prefix(request_id)))


def earlier_photo(services: ApiServices, written: str) -> Photo:
    """Return the photo of an earlier request whose result is there; raises `Declined`."""
    unknown = Declined(Reply(404, f"there is no request {written}, or its result has expired", "no_request"))
    try:
        request_id = UUID(written)
    except ValueError:
        raise unknown from None
    result = own_result(services, request_id)
    if result is None:
        raise unknown
    if result.operation in {"compare", "search_template"}:
        reason = "the faces of this result are not those of the request's photo: send the photo instead"
        raise Declined(Reply(409, reason, "other_photo"))
    try:
        key = input_key(request_id, result.filename)
        return Photo(result.filename, services.store.get(services.settings.input_bucket, key))
    except ObjectMissing as exc:
        reason = f"the photo of request {request_id} is no longer kept: send it instead"
        raise Declined(Reply(404, reason, "photo_expired")) from exc


def ask(
    services: ApiServices,
    operation: Operation,
    collection: str,
    *,
    read: Callable[[int], Sequence[Photo]] = read_photo,
    photos: int = 1,
    threshold: float | None = None,
) -> tuple[UUID, Answer]:
    """Ask the app tier about the photos in the body; returns the id of the request and the answer.

    `read` returns `photos` photos of at most so many bytes each, and may raise `Declined`.
    """
    limit = services.settings.web.max_upload_bytes

    def question() -> Question:
        first, *others = read(limit)
        target = others[0] if others else None
        return Question(photo=first, target=target, operation=operation, collection=collection, threshold=threshold)

    allow_body(request, limit, photos=photos, base64=request.mimetype == JSON)
    return uploads.ask(services.asker, question)


def respond(
    asked: tuple[UUID, Answer],
    done: Callable[[RecognitionResult], Response],
    refused: Callable[[RecognitionResult], Response] | None = None,
) -> Response:
    """Make the response: of `done` from a result, the error of a request that was not done, or 202 without a result.

    `refused` makes that of an operation that the worker refused; without it the refusal decides the status.
    """
    request_id, (reply, result) = asked[0], (asked[1].reply, asked[1].result)
    if result is None:
        response = _without_result(request_id, reply)
    elif result.outcome is Outcome.REFUSED:
        response = (refused or refused_error)(result)
    elif result.outcome in {Outcome.INVALID_IMAGE, Outcome.FAILED}:
        response = json_error(reply.status, reply.text)
    else:
        response = done(result)
    response.headers["X-Request-Id"] = str(request_id)
    return response


def _without_result(request_id: UUID, reply: Reply) -> Response:
    if reply.status == 504:  # noqa: PLR2004 - that of an upload; here the request goes on, and its address is known
        return as_json(Pending(request_id=request_id), 202, {"Location": results_path(request_id)})
    return json_error(reply.status, reply.text, retry_after_seconds=reply.retry_after_seconds)


def refusal_status(result: RecognitionResult) -> int:
    """Return the status of an operation that the worker refused."""
    return 422 if result.refusal is None else REFUSAL_STATUS[result.refusal]


def refused_error(result: RecognitionResult) -> Response:
    """Make the error of an operation that the worker refused."""
    return json_error(refusal_status(result), result.detail or "the request cannot be done")


def shown(result: RecognitionResult) -> Response:
    """Make the response of a worker's result."""
    return as_json(Result.of(result))
