"""The detection function's URL: a photo as JSON, answered with its result, or with the word that its faces went onward.

`POST {"request_id": UUID, "content": base64, "filename": text}`; an error is `{"error": sentence, "code": word}`.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog

from facerec.celery_sqs.envelope import task_message
from facerec.delivery.driver import DeliveryRecord, TaskDelivery, TaskDriver
from facerec.errors import FacerecError
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest
from facerec.object_keys import base_name, input_key, output_key, safe_name
from facerec.ports import ObjectStore
from facerec.serverless.invocation import Invocation, Unfinished
from facerec.settings import Settings
from facerec.text import megabytes, one_line
from model.header import CONTENT_TYPES, InvalidImage, read_header

log = structlog.get_logger(__name__)

LARGEST_BODY_BYTES = 6 * 1024 * 1024
"""Lambda's limit of a request; a photo in base64 is a third larger than its bytes."""
_RETRY_SECONDS = 5
_FIELDS = '{"request_id": a UUID, "content": the picture in base64, "filename": its name}'


class UrlError(Exception):
    """A call that is answered without the use case."""

    def __init__(self, status: int, code: str, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Photo:
    """What a call brings."""

    request_id: UUID
    filename: str
    content: bytes = field(repr=False)
    content_type: str


class PhotoUrl:
    """Answers events of a Function URL (payload format 2.0); `driver` makes the driver of an invocation's deliveries.

    The photo is stored under its request id, as the web tier stores an upload, and delivered like a task. A call that
    comes a second time gets the stored result, which is published again. Without a result there is no answer in the
    response queue: the client calls again with the same request id.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        driver: Callable[[Invocation], TaskDriver[Any]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._store = store
        self._driver = driver
        self._now = now

    def answer(self, event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
        """Return the HTTP response; it never raises."""
        try:
            photo = read_photo(event, self._settings)
            record = invocation.do(lambda photo: self._deliver(photo, invocation), photo)
            return _answer(record, photo.request_id)
        except UrlError as exc:
            return _error(exc)
        except (FacerecError, Unfinished) as exc:
            log.warning("url_unavailable", reason=str(exc))
            sentence = "the picture could not be processed for now: send it again with the same request_id"
            retry = {"Retry-After": str(_RETRY_SECONDS)}
            return _error(UrlError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", sentence, **retry))
        except Exception:
            log.exception("url_failed")
            sentence = "the function made a mistake that it has noted: try again later"
            return _error(UrlError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", sentence))

    def _deliver(self, photo: Photo, invocation: Invocation) -> DeliveryRecord:
        settings = self._settings
        again = self._store.exists(settings.output_bucket, output_key(photo.request_id, photo.filename))
        key = input_key(photo.request_id, photo.filename)
        if not again:
            self._store.put(settings.input_bucket, key, photo.content, photo.content_type)
            if settings.key_style == "filename":
                self._store.put(settings.input_bucket, safe_name(photo.filename), photo.content, photo.content_type)
        request = RecognitionRequest(
            request_id=photo.request_id,
            input=ObjectRef(bucket=settings.input_bucket, key=key, size=len(photo.content)),
            filename=photo.filename,
            reply_to=settings.response_queue,
            submitted_at=self._now(),
        )
        body = task_message(request)
        # From the second attempt on, the use case looks for a stored result.
        return self._driver(invocation).handle(TaskDelivery(body, body, str(photo.request_id), 2 if again else 1))


def read_photo(event: Mapping[str, Any], settings: Settings) -> Photo:
    """Read the photo of a call; raises `UrlError`, which says what is wrong with it."""
    method = event["requestContext"]["http"].get("method")
    if method != "POST":
        sentence = f"{one_line(str(method))} is not possible here: use POST"
        raise UrlError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", sentence, Allow="POST")
    fields = _fields(_body(event))
    try:
        request_id = UUID(_text(fields, "request_id"))
    except ValueError as exc:
        raise UrlError(HTTPStatus.BAD_REQUEST, "bad_request_id", "the request_id is not a UUID") from exc
    filename, encoded = base_name(_text(fields, "filename")), _text(fields, "content")
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError as exc:
        raise UrlError(HTTPStatus.BAD_REQUEST, "bad_content", "the content is not base64") from exc
    if not content:
        raise UrlError(HTTPStatus.BAD_REQUEST, "empty_content", "the content is empty: send a picture")
    if len(content) > settings.web.max_upload_bytes:
        sentence = f"the picture is too large: send one of at most {megabytes(settings.web.max_upload_bytes)}"
        raise UrlError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", sentence)
    try:
        header = read_header(content, settings.max_megapixels)
    except InvalidImage as exc:
        raise UrlError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, Outcome.INVALID_IMAGE, one_line(str(exc))) from exc
    return Photo(request_id, filename, content, CONTENT_TYPES[header.format])


def _body(event: Mapping[str, Any]) -> bytes:
    body = event.get("body") or ""
    if len(body) > LARGEST_BODY_BYTES:
        sentence = f"the request is too large: Lambda takes at most {megabytes(LARGEST_BODY_BYTES)}"
        raise UrlError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", sentence)
    try:
        data = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
    except ValueError as exc:
        raise UrlError(HTTPStatus.BAD_REQUEST, "bad_body", "the body cannot be read") from exc
    if not data.strip():
        raise UrlError(HTTPStatus.BAD_REQUEST, "empty_body", f"the body is empty: send {_FIELDS}")
    return data


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UrlError(HTTPStatus.BAD_REQUEST, "not_json", f"the body is not JSON: send {_FIELDS}") from exc
    if not isinstance(fields, dict):
        raise UrlError(HTTPStatus.BAD_REQUEST, "not_json", f"the body is not a JSON object: send {_FIELDS}")
    return fields


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        what = "is not a text" if name in fields else "is missing"
        raise UrlError(HTTPStatus.BAD_REQUEST, f"no_{name}", f"the field {name} {what}: send {_FIELDS}")
    return value


def _answer(record: DeliveryRecord, request_id: UUID) -> dict[str, Any]:
    if record.forwarded is not None:
        faces = {"request_id": str(request_id), "faces": record.forwarded.faces}
        return _response(HTTPStatus.ACCEPTED, json.dumps(faces))
    result = record.result
    if result is None or result.outcome is Outcome.FAILED:
        sentence = "this picture could not be processed, and trying again will not help; report it with its request_id"
        if result is not None and result.retryable and result.detail:
            sentence = one_line(result.detail)
        raise UrlError(HTTPStatus.INTERNAL_SERVER_ERROR, Outcome.FAILED, sentence)
    if result.outcome is Outcome.INVALID_IMAGE:
        sentence = one_line(result.detail or "the file is not a picture that can be read")
        raise UrlError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, result.outcome, sentence)
    return _response(HTTPStatus.OK, result.to_json())


def _error(error: UrlError) -> dict[str, Any]:
    return _response(error.status, json.dumps({"error": str(error), "code": error.code}), error.headers)


def _response(status: int, body: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "statusCode": int(status),
        "headers": {"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
        "body": body,
        "isBase64Encoded": False,
    }
