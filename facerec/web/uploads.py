"""`POST /`: the classic upload, answered on the same connection with the worker's result."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from uuid import UUID, uuid4

import structlog
from flask import Blueprint, Request, Response, g, request

from facerec.api_keys import Scope
from facerec.errors import ConfigurationError, QueueMissing, Transient
from facerec.messages import ObjectRef, RecognitionRequest
from facerec.object_keys import input_key, safe_name
from facerec.ports import ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.web import replies
from facerec.web.admission import Admission
from facerec.web.auth.hook import needs
from facerec.web.forms import Upload, read_upload
from facerec.web.inbox import Waiter, Waiters
from facerec.web.replies import Declined, Reply
from model.header import InvalidImage, read_header

log = structlog.get_logger(__name__)

TAKING_IN = 16
"""Uploads of one process that are in memory at once, on their way to the store; the others wait their turn."""

LARGE_BYTES = 1_000_000
"""Uploads from this size on have places of their own, so that the others do not wait behind them."""

LARGE_AT_ONCE = 2
"""Storing them takes the CPU from the others, and each is in memory up to three times."""

CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "HEIF": "image/heif"}

Record = dict[str, object]
"""What the log line of an upload tells, filled in as it becomes known."""


class Uploads:
    """An upload's way: admitted, stored, submitted, awaited. Safe for many threads."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: ObjectStore,
        queue: TaskQueue,
        reply_to: str,
        waiters: Waiters,
        admission: Admission,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        watch: Callable[[Reply, Record], None] = lambda _reply, _record: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._reply_to = reply_to
        self._waiters = waiters
        self._admission = admission
        self._now = now
        self._watch = watch
        self._taking_in = threading.BoundedSemaphore(TAKING_IN)
        self._taking_in_large = threading.BoundedSemaphore(LARGE_AT_ONCE)

    def answer(self, request_id: UUID, form: Request) -> Reply:
        """Hold the request until its result has come or the wait is over, and log how it went."""
        began = time.monotonic()
        record: Record = {"filename": None, "bytes": None, "took_in_ms": None, "waited_ms": 0, "answered": False}
        # Asked before the body is parsed, so that a refusal costs next to nothing.
        refusal = self._admission.enter()
        if refusal is not None:
            reply = replies.refused(refusal)
        else:
            try:
                reply = self._handled(request_id, form, record)
            finally:
                self._admission.leave(answered=bool(record["answered"]))
        record["total_ms"] = _ms(time.monotonic() - began)
        tell = log.warning if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
        tell("upload", request_id=str(request_id), outcome=reply.outcome, status=reply.status, **record)
        self._watch(reply, record)
        return reply

    def _handled(self, request_id: UUID, form: Request, record: Record) -> Reply:
        deadline = time.monotonic() + self._settings.web.wait_seconds
        try:
            # Registered before the task is sent: no result comes too early.
            with self._waiters.expecting(request_id) as waiter:
                began = time.monotonic()
                self._take_in(waiter, form, record)
                record["took_in_ms"] = _ms(time.monotonic() - began)
                return self._awaited(waiter, deadline, record)
        except Declined as exc:
            return exc.reply
        except (Transient, QueueMissing, ConfigurationError) as exc:
            record["reason"] = str(exc)
            return replies.unavailable()

    def _take_in(self, waiter: Waiter, form: Request, record: Record) -> None:
        """Bring the picture from the connection to the store; what it held in memory is free on return."""
        large = (form.content_length or 0) >= LARGE_BYTES
        places = self._taking_in_large if large else self._taking_in
        if not places.acquire(timeout=self._settings.web.wait_seconds):
            raise Transient("the uploads before this one are stuck on their way to the store")
        try:
            upload = read_upload(form, self._settings.web.max_upload_bytes)
            record |= {"filename": upload.filename, "bytes": len(upload.body)}
            self._submit(waiter, upload)
        finally:
            form.close()
            places.release()

    def _submit(self, waiter: Waiter, upload: Upload) -> None:
        settings = self._settings
        try:
            header = read_header(upload.body, settings.max_megapixels)
        except InvalidImage as exc:
            raise Declined(replies.unsupported(str(exc))) from exc
        content_type = CONTENT_TYPES.get(header.format, "application/octet-stream")
        key = input_key(waiter.request_id, upload.filename)
        self._store.put(settings.input_bucket, key, upload.body, content_type)
        if settings.key_style == "filename":
            self._store.put(settings.input_bucket, safe_name(upload.filename), upload.body, content_type)
        # Noted before the send: should the queue be lost right after it, the task is sent again.
        waiter.request = RecognitionRequest(
            request_id=waiter.request_id,
            input=ObjectRef(bucket=settings.input_bucket, key=key, size=len(upload.body)),
            filename=upload.filename,
            reply_to=self._reply_to,
            submitted_at=self._now(),
        )
        self._queue.submit(waiter.request)

    def _awaited(self, waiter: Waiter, deadline: float, record: Record) -> Reply:
        started = time.monotonic()
        result = waiter.wait(max(0.0, deadline - started))
        record["waited_ms"] = _ms(time.monotonic() - started)
        if result is not None:
            record["answered"] = True
            return replies.recognised(result, self._settings.reply_style)
        if self._waiters.given_up:
            return replies.interrupted(waiter.request_id)
        return replies.late(waiter.request_id, self._settings.web.wait_seconds)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def blueprint(uploads: Uploads) -> Blueprint:
    """The route of uploads."""
    web = Blueprint("uploads", __name__)

    @web.post("/")
    @needs(Scope.RECOGNISE)
    def upload() -> Response:
        request_id = g.request_id = uuid4()
        with structlog.contextvars.bound_contextvars(request_id=str(request_id)):
            return as_text(uploads.answer(request_id, request), request_id)

    return web


def as_text(reply: Reply, request_id: UUID) -> Response:
    """A reply as plain text; the request id goes along so that a report can name it."""
    response = Response(reply.text, status=reply.status, content_type="text/plain; charset=utf-8")
    response.headers["X-Request-Id"] = str(request_id)
    if reply.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(reply.retry_after_seconds)
    return response
