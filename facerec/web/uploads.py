"""`POST /`: an upload that is answered on the same connection with the worker's result."""

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import IO
from uuid import UUID

import structlog
from flask import Blueprint, Request, Response, g, request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from facerec.api_keys import Scope
from facerec.errors import ConfigurationError, QueueMissing, Refused, Transient
from facerec.messages import ObjectRef, RecognitionRequest
from facerec.object_keys import base_name, input_key, safe_name
from facerec.ports import ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.web import replies
from facerec.web.admission import Admission
from facerec.web.auth.access import client_name, needs, presented_key
from facerec.web.auth.request_ids import new_request_id
from facerec.web.inbox import Waiter, Waiters
from facerec.web.replies import Declined, Reply
from facerec.web.turns import Turns
from model.header import CONTENT_TYPES, InvalidImage, read_header

log = structlog.get_logger(__name__)

FIELD = "inputFile"

FORM_OVERHEAD_BYTES = 64 * 1024
"""The part of a body beside its file: boundaries, part headers with a long file name, a few small fields."""

FORM_MEMORY_BYTES = 256 * 1024
"""The limit of all small fields together. Werkzeug applies it to its read buffer, too, which has 64 KiB and a part of a
boundary also while it reads a file: a limit near that size would refuse files by chance."""

UPLOADS_IN_MEMORY = 16
"""Uploads that one process brings from the connection to the store at once; clients take turns."""

LARGE_BYTES = 1_000_000
"""Uploads from this size on are limited on their own, so that small ones do not wait behind them."""

LARGE_IN_MEMORY = 2
"""Storing a large upload takes much CPU time, and the upload is in memory up to three times."""

_EMPTY_EXTENDED = re.compile(r"(?:utf-8|iso-8859-1)'[a-z0-9-]*'", re.IGNORECASE)
"""An extended value (RFC 8187) without characters."""


class UploadRequest(Request):
    """A request whose files stay in memory, and whose malformed form is an error instead of an empty one."""

    def make_form_data_parser(self) -> FormDataParser:
        """Return Werkzeug's parser, set to raise errors."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Keep a file in memory: the body's size is limited already, and the file lives only until it is stored."""
        del total_content_length, content_type, filename, content_length
        return BytesIO()

    def close(self) -> None:
        """Free the files and the body, which the server would keep until the request is answered."""
        super().close()
        self.environ["wsgi.input"].close()


@dataclass(frozen=True, slots=True)
class Upload:
    """The one file of a form."""

    filename: str
    """As the client sent it: the last path part, without control characters."""
    body: bytes = field(repr=False)


@dataclass(slots=True)
class UploadRecord:
    """What happened to an upload, for its log line and the metrics; None is unknown."""

    filename: str | None = None
    bytes: int | None = None
    took_in_ms: int | None = None
    """From the start until the task is submitted."""
    waited_ms: int = 0
    """The wait for the result."""
    total_ms: int | None = None
    answered: bool = False
    """Whether a worker's result came."""
    reason: str | None = None
    """Why the store or the queue did not take it."""


class Uploads:
    """Admits, stores and submits an upload, and awaits its result; safe for many threads."""

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
        on_end: Callable[[Reply, UploadRecord], None] = lambda _reply, _record: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._reply_to = reply_to
        self._waiters = waiters
        self._admission = admission
        self._now = now
        self._on_end = on_end
        self._turns = Turns(UPLOADS_IN_MEMORY)
        self._large_turns = Turns(LARGE_IN_MEMORY)

    def answer(self, request_id: UUID, form: Request, client: str) -> Reply:
        """Answer when the result has come or the wait is over, and log the upload; clients share the places."""
        started = time.monotonic()
        record = UploadRecord()
        # Before the body is parsed, so that a refusal is cheap.
        refusal = self._admission.enter(client)
        if refusal is not None:
            reply = replies.refused(refusal)
        else:
            try:
                reply = self._handle(request_id, form, client, record)
            finally:
                self._admission.leave(client, answered=record.answered)
        record.total_ms = _ms_since(started)
        level = log.warning if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
        known = {name: value for name, value in asdict(record).items() if value is not None}
        level("upload", request_id=str(request_id), outcome=reply.outcome, status=reply.status, **known)
        self._on_end(reply, record)
        return reply

    def _handle(self, request_id: UUID, form: Request, client: str, record: UploadRecord) -> Reply:
        started = time.monotonic()
        deadline = started + self._settings.web.wait_seconds
        try:
            # Registered before the task is sent, so that no result comes too early.
            with self._waiters.expecting(request_id) as waiter:
                self._store_and_submit(waiter, form, client, record)
                record.took_in_ms = _ms_since(started)
                return self._await_result(waiter, deadline, record)
        except Declined as exc:
            return exc.reply
        except (Transient, QueueMissing, ConfigurationError, Refused) as exc:
            record.reason = str(exc)
            return replies.unavailable()

    def _store_and_submit(self, waiter: Waiter, form: Request, client: str, record: UploadRecord) -> None:
        """Store the picture and send its task; then its memory is free."""
        large = (form.content_length or 0) >= LARGE_BYTES
        turns = self._large_turns if large else self._turns
        if not turns.acquire(client, self._settings.web.wait_seconds):
            raise Transient("earlier uploads have not reached the store in time")
        try:
            upload = read_upload(form, self._settings.web.max_upload_bytes)
            record.filename, record.bytes = upload.filename, len(upload.body)
            self._submit(waiter, upload)
        finally:
            form.close()
            turns.release()

    def _submit(self, waiter: Waiter, upload: Upload) -> None:
        settings = self._settings
        try:
            header = read_header(upload.body, settings.max_megapixels)
        except InvalidImage as exc:
            raise Declined(replies.unsupported(str(exc))) from exc
        content_type = CONTENT_TYPES[header.format]
        key = input_key(waiter.request_id, upload.filename)
        self._store.put(settings.input_bucket, key, upload.body, content_type)
        if settings.key_style == "filename":
            self._store.put(settings.input_bucket, safe_name(upload.filename), upload.body, content_type)
        # Set before the send: if the queue is lost right after it, the task is sent again.
        waiter.request = RecognitionRequest(
            request_id=waiter.request_id,
            input=ObjectRef(bucket=settings.input_bucket, key=key, size=len(upload.body)),
            filename=upload.filename,
            reply_to=self._reply_to,
            submitted_at=self._now(),
        )
        self._queue.submit(waiter.request)

    def _await_result(self, waiter: Waiter, deadline: float, record: UploadRecord) -> Reply:
        started = time.monotonic()
        result = waiter.wait(max(0.0, deadline - started))
        record.waited_ms = _ms_since(started)
        if result is not None:
            record.answered = True
            return replies.recognised(result, self._settings.reply_style)
        if self._waiters.given_up:
            return replies.stopping(waiter.request_id)
        return replies.late(waiter.request_id, self._settings.web.wait_seconds)


def read_upload(form: Request, max_upload_bytes: int) -> Upload:
    """Return the form's one file; raises `Declined` with the reply that says what is wrong with the form."""
    if form.mimetype != "multipart/form-data":
        # Not parsed: a large urlencoded body would cost seconds and hundreds of megabytes.
        raise Declined(replies.no_file())
    try:
        files = form.files
    except RequestEntityTooLarge as exc:
        whole = form.content_length is None or form.content_length > max_upload_bytes + FORM_OVERHEAD_BYTES
        reply = replies.too_large if whole else replies.form_too_large
        raise Declined(reply(max_upload_bytes)) from exc
    except UnicodeDecodeError as exc:
        raise Declined(replies.unreadable_form("a name in it is not UTF-8")) from exc
    except ValueError as exc:
        raise Declined(replies.unreadable_form("it is damaged or incomplete")) from exc
    chosen = [(field, part) for field, part in files.items(multi=True) if not _is_left_empty(part)]
    part = next((part for field, part in chosen if field == FIELD), None)
    if part is None:
        raise Declined(replies.no_file())
    if len(chosen) > 1:
        raise Declined(replies.several_files())
    body = part.read()
    if not body:
        raise Declined(replies.empty_file())
    if len(body) > max_upload_bytes:
        raise Declined(replies.too_large(max_upload_bytes))
    return Upload(base_name(_file_name(part)), body)


def _is_left_empty(part: FileStorage) -> bool:
    """Return whether a file input was left empty: without a file name and without a byte it is no file."""
    if _file_name(part) or part.stream.read(1):
        part.stream.seek(0)
        return False
    return True


def _file_name(part: FileStorage) -> str:
    """Return the part's file name; Werkzeug takes an empty `filename*=UTF-8''` for a name."""
    name = part.filename or ""
    return "" if _EMPTY_EXTENDED.fullmatch(name) else name


def blueprint(uploads: Uploads) -> Blueprint:
    """Make the route of uploads."""
    web = Blueprint("uploads", __name__)

    @web.post("/")
    @needs(Scope.RECOGNISE)
    def upload() -> Response:
        request_id = g.request_id = new_request_id(presented_key())
        with structlog.contextvars.bound_contextvars(request_id=str(request_id)):
            return as_text(uploads.answer(request_id, request, client_name()), request_id)

    return web


def as_text(reply: Reply, request_id: UUID) -> Response:
    """Make a plain-text response with the request id, so that a report can name it."""
    response = Response(reply.text, status=reply.status, content_type="text/plain; charset=utf-8")
    response.headers["X-Request-Id"] = str(request_id)
    if reply.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(reply.retry_after_seconds)
    return response


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
