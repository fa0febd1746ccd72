"""A client asks the app tier something about a photo, and waits for the result. Every API uses this one way."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from uuid import UUID

import structlog

from facerec.access_records import LOGGED_OPERATIONS, AccessRecord
from facerec.errors import ConfigurationError, QueueMissing, Refused, Transient
from facerec.message_base import DEFAULT_COLLECTION, ObjectRef
from facerec.messages import OPERATION_VERSION, VERSION, RecognitionRequest, RecognitionResult
from facerec.object_keys import input_key, output_key, safe_name, target_key
from facerec.operations import Compare, Operation, Recognise
from facerec.ports import ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.web import replies
from facerec.web.admission import Admission
from facerec.web.forms import Photo
from facerec.web.inbox import Waiter, Waiters
from facerec.web.replies import Declined, Reply
from facerec.web.turns import Turns
from model.header import CONTENT_TYPES, InvalidImage, read_header

log = structlog.get_logger(__name__)

UPLOADS_IN_MEMORY = 16
"""Uploads that one process brings from the connection to the store at once; clients take turns."""

LARGE_BYTES = 1_000_000
"""Uploads from this size on are limited on their own, so that small ones do not wait behind them."""

LARGE_IN_MEMORY = 2
"""Storing a large upload takes much CPU time, and the upload is in memory up to three times."""

_BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a client asks."""

    photo: Photo
    """Empty for an operation without a photo."""
    target: Photo | None = None
    """The second photo: the operation is `Compare` then."""
    operation: Operation = field(default_factory=Recognise)
    collection: str = DEFAULT_COLLECTION
    threshold: float | None = None


NO_PHOTO = Photo("search", b"")
"""For an operation without a photo: its empty object marks the request as pending."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question."""

    reply: Reply
    """As one line of text."""
    result: RecognitionResult | None = None
    """The worker's result, whatever its outcome; `None` if `reply` says why there is none."""


@dataclass(slots=True)
class UploadRecord:
    """What happened to an upload, for its log line and the metrics; None is unknown."""

    filename: str | None = None
    bytes: int | None = None
    operation: str | None = None
    """Set if it is another one than recognition."""
    collection: str | None = None
    took_in_ms: int | None = None
    """From the start until the task is submitted."""
    waited_ms: int = 0
    """The wait for the result."""
    total_ms: int | None = None
    answered: bool = False
    """Whether a worker's result came."""
    reason: str | None = None
    """Why the store or the queue did not take it."""


class Asker:
    """Admits a request, stores its photos, submits its task, and awaits the result; safe for many threads."""

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
        on_access: Callable[[AccessRecord], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._queue = queue
        self._reply_to = reply_to
        self._waiters = waiters
        self._admission = admission
        self._now = now
        self._on_end = on_end
        self._on_access = on_access
        self._turns = Turns(UPLOADS_IN_MEMORY)
        self._large_turns = Turns(LARGE_IN_MEMORY)

    def ask(
        self,
        request_id: UUID,
        client: str,
        read: Callable[[], Question],
        *,
        content_length: int = 0,
        close: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Answer when the result has come or the wait is over, and log the request; clients share the places.

        `read` parses the body of `content_length` bytes; it may raise `Declined`. `close` frees the body's memory as
        soon as the photos are stored.
        """
        started = time.monotonic()
        record = UploadRecord()
        # Before the body is parsed, so that a refusal is cheap.
        refusal = self._admission.enter(client)
        if refusal is not None:
            answer = Answer(replies.refused(refusal))
        else:
            try:
                answer = self._handle(request_id, client, read, content_length, close, record)
            finally:
                self._admission.leave(client, answered=record.answered)
        record.total_ms = _ms_since(started)
        reply = answer.reply
        level = log.warning if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
        known = {name: value for name, value in asdict(record).items() if value is not None}
        level("upload", request_id=str(request_id), outcome=reply.outcome, status=reply.status, **known)
        self._on_end(reply, record)
        if record.collection is not None and (operation := record.operation or "recognise") in LOGGED_OPERATIONS:
            at = self._now()
            self._on_access(_access(answer, at, client, record.collection, operation, request_id))
        return answer

    def submit(
        self, request_id: UUID, question: Question, *, reply_to: str | None = None, submitted_at: datetime | None = None
    ) -> RecognitionRequest:
        """Store the photos and send the task, without a wait.

        Raises `Declined` for a photo that is none, `Transient`, `QueueMissing`, `ConfigurationError` and `Refused`.
        """
        request = self._stored(request_id, question, reply_to, submitted_at or self._now())
        self._queue.submit(request)
        return request

    def _handle(
        self,
        request_id: UUID,
        client: str,
        read: Callable[[], Question],
        content_length: int,
        close: Callable[[], None],
        record: UploadRecord,
    ) -> Answer:
        started = time.monotonic()
        deadline = started + self._settings.web.wait_seconds
        try:
            # Registered before the task is sent, so that no result comes too early.
            with self._waiters.expecting(request_id) as waiter:
                self._store_and_submit(waiter, client, read, content_length, close, record)
                record.took_in_ms = _ms_since(started)
                return self._await_result(waiter, deadline, record)
        except Declined as exc:
            return Answer(exc.reply)
        except (Transient, QueueMissing, ConfigurationError, Refused) as exc:
            record.reason = str(exc)
            return Answer(replies.unavailable())

    def _store_and_submit(
        self,
        waiter: Waiter,
        client: str,
        read: Callable[[], Question],
        content_length: int,
        close: Callable[[], None],
        record: UploadRecord,
    ) -> None:
        """Store the photos and send the task; then their memory is free."""
        turns = self._large_turns if content_length >= LARGE_BYTES else self._turns
        if not turns.acquire(client, self._settings.web.wait_seconds):
            raise Transient("earlier uploads have not reached the store in time")
        try:
            question = read()
            record.filename, record.bytes = question.photo.filename, len(question.photo.body)
            record.collection = question.collection
            if question.operation.kind != "recognise":
                record.operation = question.operation.kind
            # Set before the send: if the queue is lost right after it, the task is sent again.
            waiter.request = self._stored(waiter.request_id, question, self._reply_to, self._now())
            self._queue.submit(waiter.request)
        finally:
            close()
            turns.release()

    def _stored(
        self, request_id: UUID, question: Question, reply_to: str | None, submitted_at: datetime
    ) -> RecognitionRequest:
        operation = question.operation
        photo = self._put(input_key(request_id, question.photo.filename), question.photo)
        if question.target is not None:
            key = target_key(request_id, question.target.filename)
            operation = Compare(target=self._put(key, question.target))
        if self._settings.key_style == "filename" and operation.kind == "recognise":
            content_type = CONTENT_TYPES[read_header(question.photo.body, self._settings.max_megapixels).format]
            key = safe_name(question.photo.filename)
            self._store.put(self._settings.input_bucket, key, question.photo.body, content_type)
        return RecognitionRequest(
            version=VERSION if operation.kind == "recognise" else OPERATION_VERSION,
            request_id=request_id,
            input=photo,
            filename=question.photo.filename,
            operation=operation,
            collection=question.collection,
            threshold=question.threshold,
            reply_to=reply_to,
            submitted_at=submitted_at,
        )

    def _put(self, key: str, photo: Photo) -> ObjectRef:
        return put_photo(self._store, self._settings, key, photo)

    def _whole(self, result: RecognitionResult) -> RecognitionResult:
        """Return the stored result if the message has less."""
        if not result.shortened:
            return result
        key = output_key(result.request_id, result.filename)
        return stored_result(self._store, self._settings.output_bucket, key) or result

    def _await_result(self, waiter: Waiter, deadline: float, record: UploadRecord) -> Answer:
        started = time.monotonic()
        result = waiter.wait(max(0.0, deadline - started))
        record.waited_ms = _ms_since(started)
        if result is not None:
            record.answered = True
            result = self._whole(result)
            return Answer(replies.recognised(result, self._settings.reply_style), result)
        if self._waiters.given_up:
            return Answer(replies.stopping(waiter.request_id))
        return Answer(replies.late(waiter.request_id, self._settings.web.wait_seconds))


def put_photo(store: ObjectStore, settings: Settings, key: str, photo: Photo) -> ObjectRef:
    """Store a photo in the input bucket; raises `Declined` if it is none."""
    content_type = _BINARY
    if photo is not NO_PHOTO:
        try:
            header = read_header(photo.body, settings.max_megapixels)
        except InvalidImage as exc:
            raise Declined(replies.unsupported(str(exc))) from exc
        content_type = CONTENT_TYPES[header.format]
    store.put(settings.input_bucket, key, photo.body, content_type)
    return ObjectRef(bucket=settings.input_bucket, key=key, size=len(photo.body))


def _access(
    answer: Answer, at: datetime, client: str, collection: str, operation: str, request_id: UUID
) -> AccessRecord:
    """Return what the access log keeps of an answer."""
    result = answer.result
    return AccessRecord(
        at=at,
        client=client,
        collection=collection,
        operation=operation,
        request_id=request_id,
        outcome=answer.reply.outcome,
        faces=0 if result is None else len(result.faces),
        matches=0 if result is None else sum(1 for face in result.faces if face.matches),
        enrolled=0 if result is None else sum(1 for each in result.enrolments if each.status == "enrolled"),
    )


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
