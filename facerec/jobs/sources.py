"""Where the files of a job come from: uploads that are stored already, a zip, or a prefix of another bucket.

All but a zip have a manifest in the input bucket, so that a file keeps its place whichever process reads it.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO, Protocol
from uuid import UUID

from facerec.errors import FacerecError, ObjectMissing
from facerec.job_records import Job
from facerec.jobs.zip_files import BadEntry, PhotoZip, ZipLimits
from facerec.message_base import Message, ObjectRef
from facerec.object_keys import job_prefix
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.text import megabytes, one_line

_ZIP_MARK = b"PK\x03\x04"


class SourceUnusable(FacerecError):
    """The job has failed: its files cannot be listed."""


class Entry(Message):
    """One file of a job."""

    path: str
    """As the client knows it: its file name, its path in the zip, its key."""
    folder: str = ""
    """The name of the folder that it is in, which may name a person."""
    problem: str | None = None
    """Why it is skipped."""
    object: ObjectRef | None = None
    """Where it is stored; `None` in a zip, and with a problem."""


class Manifest(Message):
    """The files of a job, in their places."""

    entries: tuple[Entry, ...]


class Source(Protocol):
    """The files of a job; `read` is safe for many threads."""

    @property
    def entries(self) -> Sequence[Entry]:
        """The files, in their places."""

    def read(self, index: int) -> bytes | ObjectRef:
        """Return the bytes of a file, or where it is in the input bucket; raises `ObjectMissing` and `BadEntry`."""


class ZipSource:
    """The files of an uploaded zip, in a temporary file; a context manager's `stack` removes it."""

    def __init__(self, store: ObjectStore, settings: Settings, job: Job, stack: ExitStack) -> None:
        file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        store.download(settings.input_bucket, zip_key(job.job_id), file)
        self._zip = open_zip(file, settings)
        self.entries = [
            Entry(path=entry.path, folder=folder_of(entry.path), problem=entry.problem) for entry in self._zip.entries
        ]

    def read(self, index: int) -> bytes:
        """Return the bytes of a file."""
        body = self._zip.read(index)
        if body.startswith(_ZIP_MARK):
            raise BadEntry("a zip within the zip is not opened")
        return body


class ListedSource:
    """The files of a manifest."""

    def __init__(self, store: ObjectStore, settings: Settings, manifest: Manifest) -> None:
        self._store = store
        self._input_bucket = settings.input_bucket
        self.entries = manifest.entries

    def read(self, index: int) -> bytes | ObjectRef:
        """Return where an upload is stored, or the bytes of an object of another bucket."""
        stored = self.entries[index].object
        if stored is None:
            raise BadEntry("it was not stored")
        return stored if stored.bucket == self._input_bucket else self._store.get(stored.bucket, stored.key)


def open_source(store: ObjectStore, settings: Settings, job: Job, stack: ExitStack) -> Source:
    """Open a job's source; raises `SourceUnusable`, `BadZip` and `ObjectMissing`."""
    if job.source == "zip":
        return ZipSource(store, settings, job, stack)
    key = manifest_key(job.job_id)
    try:
        manifest = Manifest.parse(store.get(settings.input_bucket, key))
    except ObjectMissing:
        if job.source == "files":
            raise
        manifest = _listed(store, settings, str(job.bucket), job.prefix or "")
        put_manifest(store, settings, job.job_id, manifest)
    return ListedSource(store, settings, manifest)


def put_manifest(store: ObjectStore, settings: Settings, job_id: UUID, manifest: Manifest) -> None:
    """Store the manifest of a job."""
    store.put(settings.input_bucket, manifest_key(job_id), manifest.to_json().encode(), "application/json")


def remove_source(store: ObjectStore, settings: Settings, job_id: UUID) -> None:
    """Remove what belongs to the job beside its requests; idempotent."""
    for key in (manifest_key(job_id), zip_key(job_id)):
        store.delete(settings.input_bucket, key)


def manifest_key(job_id: UUID) -> str:
    """`jobs/<job_id>/files.json`."""
    return f"{job_prefix(job_id)}files.json"


def zip_key(job_id: UUID) -> str:
    """`jobs/<job_id>/files.zip`."""
    return f"{job_prefix(job_id)}files.zip"


def open_zip(file: BinaryIO, settings: Settings) -> PhotoZip:
    """Open a zip within the limits of the settings; raises `BadZip`."""
    limits = ZipLimits(settings.jobs.max_files, settings.web.max_upload_bytes, settings.jobs.max_unpacked_bytes)
    return PhotoZip(file, limits)


def folder_of(path: str) -> str:
    """Return the name of the folder that a file is in; empty without one."""
    parts = path.replace("\\", "/").split("/")
    folder = parts[-2].strip() if len(parts) > 1 else ""
    return "" if folder in {".", ".."} else folder


def _listed(store: ObjectStore, settings: Settings, bucket: str, prefix: str) -> Manifest:
    """List a prefix of another bucket; folders' own objects are left out."""
    entries: list[Entry] = []
    most, above = settings.jobs.max_files, prefix.rfind("/") + 1
    limit = settings.web.max_upload_bytes
    for key, size in store.sizes(bucket, prefix):
        if key.endswith("/"):
            continue
        if len(entries) == most:
            raise SourceUnusable(f"more than {most} objects have this prefix, which is the most of one job: split it")
        problem = f"it is larger than {megabytes(limit)}" if size > limit else None if size else "it is empty"
        stored = None if problem else ObjectRef(bucket=bucket, key=key, size=size)
        entries.append(Entry(path=one_line(key), folder=folder_of(key[above:]), problem=problem, object=stored))
    return Manifest(entries=tuple(entries))
