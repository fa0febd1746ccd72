"""The body of a call that creates a job, read as a stream: one file at a time is in memory, however many there are."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, BinaryIO, TypeVar
from uuid import UUID

from flask import Request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from facerec.errors import FacerecError
from facerec.job_records import SourceKind
from facerec.jobs.sources import Entry, Manifest, folder_of, open_zip, put_manifest, zip_key
from facerec.object_keys import base_name, input_key
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.text import megabytes, one_line
from facerec.web.asking import put_photo
from facerec.web.forms import FORM_MEMORY_BYTES, FORM_OVERHEAD_BYTES, Photo
from facerec.web.jobs.files import file_request_id
from facerec.web.replies import Declined
from facerec.web.turns import Turns

T = TypeVar("T")

CHUNK_BYTES = 64 * 1024
STORED_AT_ONCE = 4
"""Uploaded files of one job that are stored at the same time."""
INTAKES_AT_ONCE = 4
"""Jobs whose bodies one process reads at once; clients take turns."""
ZIP_TYPES = frozenset({"application/zip", "application/x-zip-compressed"})


class JobRefused(FacerecError):
    """A call about a job cannot be served; the text says why, or what to send."""

    def __init__(self, sentence: str, status: int = 400, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a body."""

    source: SourceKind
    total: int


@dataclass(slots=True)
class JobIntake:
    """Reads bodies, and stores what they hold; safe for many threads."""

    settings: Settings
    store: ObjectStore
    turns: Turns = field(default_factory=lambda: Turns(INTAKES_AT_ONCE))

    def allow_body(self, request: Request) -> None:
        """Let the body of this request have the size of a job."""
        request.max_content_length = self.settings.jobs.max_bytes + FORM_OVERHEAD_BYTES

    def take(self, request: Request, job_id: UUID, owner: str) -> Taken:
        """Read and store the files of a job; raises `JobRefused`, `BadZip` and the errors of the store."""
        try:
            if request.mimetype in ZIP_TYPES:
                with tempfile.TemporaryFile() as file:
                    for chunk in _chunks(request.stream):
                        file.write(chunk)
                    return self._take_zip(file, job_id)
            if request.mimetype == "multipart/form-data":
                return self._take_form(request, job_id, owner)
        except RequestEntityTooLarge as exc:
            most = megabytes(self.settings.jobs.max_bytes)
            raise JobRefused(f"the body is larger than {most}: send several jobs, or an S3 prefix", 413) from exc
        except ClientDisconnected as exc:
            raise JobRefused("the body is incomplete: send it again") from exc
        raise JobRefused(
            "send files as multipart/form-data, a zip as application/zip, or a bucket and prefix as JSON", 415
        )

    def _take_zip(self, file: BinaryIO, job_id: UUID) -> Taken:
        opened = open_zip(file, self.settings)
        if not opened.entries:
            raise JobRefused("there are no files in the zip")
        self.store.upload(self.settings.input_bucket, zip_key(job_id), file, "application/zip")
        return Taken("zip", len(opened.entries))

    def _take_form(self, request: Request, job_id: UUID, owner: str) -> Taken:
        boundary = request.mimetype_params.get("boundary", "").encode("ascii", errors="ignore")
        if not boundary:
            raise JobRefused("the form has no boundary: let your HTTP library write the Content-Type")
        with ExitStack() as stack:
            files = stack.enter_context(self._files(job_id, owner))
            zipped: IO[bytes] | None = None
            for part in _Parts(request.stream, boundary, self.settings.jobs.max_files):
                if not _is_zip(part.name, part.filename):
                    files.add(part)
                    continue
                if zipped is not None:
                    raise JobRefused("send one zip in a job")
                zipped = stack.enter_context(tempfile.TemporaryFile())
                for chunk in part.chunks():
                    zipped.write(chunk)
            if zipped is not None:
                if files.count:
                    raise JobRefused("send either files or a zip in one job, not both")
                return self._take_zip(zipped, job_id)  # type: ignore[arg-type] # a temporary file in binary mode
            entries = files.entries()
        if not entries:
            raise JobRefused("there are no files in the form: send each as a part with a file name")
        put_manifest(self.store, self.settings, job_id, Manifest(entries=tuple(entries)))
        return Taken("files", len(entries))

    @contextmanager
    def _files(self, job_id: UUID, owner: str) -> Iterator["_StoredFiles"]:
        with ThreadPoolExecutor(STORED_AT_ONCE, "job-intake") as threads:
            yield _StoredFiles(self, job_id, owner, threads)


class _StoredFiles:
    """Stores the files of a form, a few at a time, as uploads of the requests that they become."""

    def __init__(self, intake: JobIntake, job_id: UUID, owner: str, threads: ThreadPoolExecutor) -> None:
        self._intake = intake
        self._job_id = job_id
        self._owner = owner
        self._threads = threads
        self._storing: deque[Future[Entry]] = deque()
        self._stored: list[Entry] = []
        self.count = 0

    def add(self, part: "_Part") -> None:
        """Read a file, and have it stored; waits while enough others are being stored."""
        most = self._intake.settings.web.max_upload_bytes
        body = bytearray()
        for chunk in part.chunks():
            if len(body) <= most:
                body += chunk
        if not body and not part.filename:
            return  # a file input that was left empty
        while len(self._storing) >= STORED_AT_ONCE:
            self._stored.append(self._storing.popleft().result())
        self._storing.append(self._threads.submit(self._store, self.count, part.filename, bytes(body)))
        self.count += 1

    def entries(self) -> list[Entry]:
        """Return the files in their places, once all are stored; raises the error of one that could not be."""
        return self._stored + [storing.result() for storing in self._storing]

    def _store(self, index: int, filename: str, body: bytes) -> Entry:
        settings = self._intake.settings
        path = one_line(filename).replace("\\", "/")
        entry = Entry(path=path or "upload", folder=folder_of(path))
        most = settings.web.max_upload_bytes
        if len(body) > most:
            return entry.model_copy(update={"problem": f"it is larger than {megabytes(most)}"})
        if not body:
            return entry.model_copy(update={"problem": "it is empty"})
        name = base_name(path)
        key = input_key(file_request_id(self._owner, self._job_id, index), name)
        try:
            stored = put_photo(self._intake.store, settings, key, Photo(name, body))
        except Declined as exc:
            return entry.model_copy(update={"problem": exc.reply.text})
        return entry.model_copy(update={"object": stored})


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    filename: str
    parts: "_Parts"

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes; to be read before the next part."""
        while isinstance(event := self.parts.event(), Data):
            yield event.data
            if not event.more_data:
                return
        raise JobRefused("the form is damaged or incomplete")


class _Parts:
    """The files of a form, in turn; small fields are refused, because options belong into the query."""

    def __init__(self, stream: IO[bytes], boundary: bytes, most: int) -> None:
        self._stream = stream
        self._most = most
        self._decoder = MultipartDecoder(boundary, FORM_MEMORY_BYTES)

    def __iter__(self) -> Iterator[_Part]:
        count = 0
        while not isinstance(event := self.event(), Epilogue):
            if isinstance(event, Field):
                raise JobRefused(
                    f"the form has a field {one_line(event.name or '')!r}: options of a job belong into the query"
                )
            if isinstance(event, File):
                count += 1
                if count > self._most:
                    raise JobRefused(f"the form has more than {self._most} files, which is the most of one job", 413)
                yield _Part(event.name or "", event.filename, self)

    def event(self) -> object:
        """Return the next event of the parser; raises `JobRefused`."""
        while isinstance(event := self._parsed(self._decoder.next_event), NeedData):
            chunk = self._stream.read(CHUNK_BYTES) or None
            self._parsed(partial(self._decoder.receive_data, chunk))
        return event

    @staticmethod
    def _parsed(step: Callable[[], T]) -> T:
        try:
            return step()
        except RequestEntityTooLarge as exc:
            raise JobRefused("the form has very long headers: send files with shorter names", 413) from exc
        except ValueError as exc:
            raise JobRefused("the form is damaged or incomplete") from exc


def _is_zip(name: str, filename: str) -> bool:
    return name == "zip" or filename.lower().endswith(".zip")


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk
