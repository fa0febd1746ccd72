"""The places of an erasure, in the order in which they are worked off. Without numpy.

Photos and everything of the gallery go first; then the readers follow. Results are looked through twice: at once, and
again what was stored until no process could recognise the person any more.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import ClassVar, TypeVar

from facerec.dead_letters import DeadLetter, DeadLetterReader
from facerec.erasure_records import ErasureRecord, Place, PlaceState, ReaderKind, ReaderReport
from facerec.errors import InvalidMessage, ObjectMissing, QueueMissing
from facerec.gallery.erasure_marks import Marks, request_of
from facerec.gallery.removal import is_thumbnail, photo_prefix, thumbnail_key, withdraw
from facerec.job_records import Job, JobFile
from facerec.messages import RecognitionResult
from facerec.object_keys import SNAPSHOTS_PREFIX, copy_key, request_prefix, safe_name
from facerec.ports import (
    EnrolledPeople,
    GalleryReaders,
    Jobs,
    ListedObject,
    ObjectStore,
    PendingMessages,
    PersonRecords,
)
from facerec.text import counted
from facerec.unknown_records import companion

_T = TypeVar("_T")

AT_ONCE = 16
"""Calls to the object store side by side."""
_SCANNED_AT_ONCE = 512
"""Objects between two saves of a scan's position."""
_SILENT = timedelta(days=1)
"""A process that has not reported for so long has ended: its machine was stopped or lost."""
_LONGEST_WAIT = timedelta(days=4)
"""How long the request queue keeps a message; the others of `QueuesStep` keep it for a shorter time."""
_ENROLLING = timedelta(seconds=60)
"""More than an enrolment takes from its photo to its template."""
_CLOCKS = timedelta(seconds=5)
"""By how much the clock of the object store may be behind, and its rounding."""
_VERSION_DIGITS = 20
ERASED_FILE = "(erased)"
"""Instead of the path of a file, whose folder may be the person's name."""
_PHOTOS_ALONE = "single photos were removed; the person stays"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class GalleryStep:
    """Templates, rejections, records of people and published snapshots: they are removed when an erasure begins."""

    enrolled: EnrolledPeople
    people: PersonRecords
    objects: ObjectStore
    gallery_bucket: str
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("templates", "rejections", "records of people", "published snapshots")

    def run(self, record: ErasureRecord) -> Iterator[ErasureRecord]:
        """Remove everything, and note the version from which on the collection is without it."""
        if record.version:
            return
        collection, names = record.collection, set(record.names)
        owners = self.enrolled.owners(collection)
        own = [identifier for identifier, owner in owners.items() if record.everyone or owner in names]
        ids = list(dict.fromkeys([*record.template_ids, *own]))
        if not record.everyone and len(ids) > len(record.template_ids):
            # Before they are removed: nothing else would lead to the photos of those enrolled since the beginning.
            record = record.model_copy(update={"template_ids": tuple(ids)})
            yield record
        rejections = [
            each.rejection_id
            for each in self.enrolled.rejection_entries(collection)
            if record.everyone or each.identity in names
        ]
        if record.everyone:  # also those without a name; their records hold no face, and expire
            unknown = companion(collection)
            self.enrolled.remove(unknown, list(self.enrolled.owners(unknown)))
        counts = {
            "templates": self.enrolled.remove(collection, ids),
            "rejections": self.enrolled.remove_rejections(collection, rejections),
            "records of people": sum(self.people.forget(collection, name) for name in self._known(record)),
            # After the templates: a command that publishes at this moment sees their removal.
            "published snapshots": withdraw(self.objects, self.gallery_bucket, collection),
        }
        # A version of a collection without any change is 0; there is nothing to wait for then.
        version = max(1, self.enrolled.version(collection))
        # The ids of a whole collection are not kept: they could be more than an item of DynamoDB holds.
        record = record.model_copy(update={"version": version})
        for name, removed in counts.items():
            record = record.with_place(record.place(name).confirmed(self.now(), "stores", removed=removed))
        yield record

    def _known(self, record: ErasureRecord) -> Iterable[str]:
        if not record.everyone:
            return record.names
        merges = self.people.merges(record.collection)
        named = [each for merge in merges for each in (merge.source, merge.into)]
        return dict.fromkeys([*self.people.names(record.collection), *named])


@dataclass(frozen=True, kw_only=True)
class PhotosStep:
    """The enrolled photos in the gallery bucket, unless one was enrolled again since; thumbnails go uncounted."""

    enrolled: EnrolledPeople
    objects: ObjectStore
    gallery_bucket: str
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("photos",)

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Delete every object of the templates; for everyone, each of the collection from before."""
        place = record.place("photos")
        if not record.version or place.state is not PlaceState.OWED:
            return
        removed, left = place.removed, 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for found in _batched(self._found(record, pool)):
                # As late as possible: a photo may be enrolled again at any moment.
                current = self._current(record.collection, [each.key for each in found])
                gone = [each for each in found if each.key not in current]
                keys = [each.key for each in gone if not self._may_be_new(record, each)]
                list(pool.map(lambda key: self.objects.delete(self.gallery_bucket, key), keys))
                removed, left = removed + sum(not is_thumbnail(key) for key in keys), left + len(gone) - len(keys)
                yield place.owed(removed=removed)
        if left:
            yield place.owed(removed=removed, detail=f"{counted(left, 'object')} may be of an enrolment that runs")
        else:
            yield place.confirmed(self.now(), "stores", removed=removed, detail="")

    def _found(self, record: ErasureRecord, pool: ThreadPoolExecutor) -> Iterator[ListedObject]:
        """Yield the objects in the folders of the templates, or of the collection."""
        if record.everyone:
            yield from self.objects.listed(self.gallery_bucket, prefix=f"{record.collection}/")
            return
        folders = [photo_prefix(record.collection, each) for each in record.template_ids]
        for some in _batched(folders):
            for listing in pool.map(lambda folder: list(self.objects.listed(self.gallery_bucket, prefix=folder)), some):
                yield from listing

    def _current(self, collection: str, keys: Iterable[str]) -> set[str]:
        """Return the keys of the photos that templates have now, and of their thumbnails."""
        entries = self.enrolled.find(collection, list({key.split("/")[1] for key in keys}))
        photos = {name: entry.photo.key for name, entry in entries.items() if entry.photo is not None}
        return {*photos.values(), *(thumbnail_key(collection, name) for name in photos)}

    def _may_be_new(self, record: ErasureRecord, photo: ListedObject) -> bool:
        """Whether the photo of an enrolment since the removal may be here before its template."""
        removed_at = record.place("templates").confirmed_at or record.begun_at
        return photo.stored_at > removed_at and photo.stored_at > self.now() - _ENROLLING


@dataclass(frozen=True, kw_only=True)
class ReadersStep:
    """What holds the collection in memory or on a disk, each by its own report."""

    readers: GalleryReaders
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("readers",)

    def run(self, record: ErasureRecord) -> Iterator[ErasureRecord]:
        """Compare the reports with the version of the removal."""
        if not record.version or record.place("readers").state is not PlaceState.OWED:
            return
        now = self.now()
        reports = {_place_name(report): report for report in self.readers.reports()}
        processes = {name: report for name, report in reports.items() if report.kind is ReaderKind.PROCESS}
        for name, report in processes.items():
            record = record.with_place(self._process(record, record.place(name), report))
        for place in record.still_owed:
            if place.name.startswith(f"{ReaderKind.PROCESS} ") and place.name not in processes:
                record = record.with_place(place.confirmed(now, "its machine", detail="it has ended"))
            if place.name.startswith(f"{ReaderKind.DISK} ") and place.name not in reports:
                detail = "its last process has ended and left no snapshot"
                record = record.with_place(place.confirmed(now, "its machine", detail=detail))
        for name, report in reports.items():
            if report.kind is ReaderKind.DISK:
                record = record.with_place(self._disk(record, record.place(name), report))
        if not any(_is_reader(place) for place in record.still_owed):
            known = sum(map(_is_reader, record.places))
            record = record.with_place(record.place("readers").confirmed(now, "readers", detail=f"{known} known"))
        yield record

    def _process(self, record: ErasureRecord, place: Place, report: ReaderReport) -> Place:
        if place.state is not PlaceState.OWED:
            return place
        if report.written_off_by is not None:
            return _written_off(place, f"written off by {report.written_off_by}")
        if report.is_clean(record.collection, record.version):
            version = report.collections.get(record.collection)
            detail = "it does not hold the collection" if version is None else f"it has applied version {version}"
            return place.confirmed(report.reported_at, report.reader_id, detail=detail)
        if self.now() - report.reported_at > _SILENT:
            return _written_off(place, f"no report since {report.reported_at:%Y-%m-%d %H:%M} UTC: it has ended")
        return place.owed(detail="its memory may still have an embedding, without a name")

    def _disk(self, record: ErasureRecord, place: Place, report: ReaderReport) -> Place:
        if place.state is not PlaceState.OWED:
            return place
        if report.written_off_by is not None:
            return _written_off(place, f"written off by {report.written_off_by}")
        own = [each for each in record.places if each.name.startswith(f"{ReaderKind.PROCESS} {report.reader_id}/")]
        # A process that is behind may write an older snapshot once more, until it has confirmed itself.
        since = max([record.begun_at, *(each.confirmed_at for each in own if each.confirmed_at is not None)])
        behind = any(each.state is PlaceState.OWED for each in own)
        if not behind and report.reported_at > since and report.is_clean(record.collection, record.version):
            detail = "no snapshot on it is from before the removal"
            return place.confirmed(report.reported_at, report.reader_id, detail=detail)
        seen = f"{report.reported_at:%Y-%m-%d %H:%M:%S}"
        return place.owed(
            detail=f"last report {seen} UTC: a stopped machine deletes its snapshots when it starts; if its disk is "
            f"gone, `facerec people readers --write-off {report.reader_id}`"
        )


@dataclass(frozen=True, kw_only=True)
class ResultsStep:
    """The requests whose results name the person: results, uploads, crops and copies, in both buckets.

    `grace_seconds` is how long a request may take from its recognition to the stored result. `functions`: also Lambda
    functions recognise people, which do not report.
    """

    objects: ObjectStore
    input_bucket: str
    output_bucket: str
    grace_seconds: float
    functions: bool = False
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("results", "uploads")

    def run(self, record: ErasureRecord) -> Iterator[ErasureRecord]:
        """Look through the output bucket, a part of it at a time."""
        if not record.version or record.place("results").state is not PlaceState.OWED:
            return
        marks = Marks.of(record)
        if marks.empty:
            for name in self.places:
                record = record.with_place(record.place(name).confirmed(self.now(), "stores", detail=_PHOTOS_ALONE))
            yield record
            return
        scan = _Scan.parse(record.place("results").position) or _Scan(since=self.now() - _CLOCKS)
        if not scan.ended:
            record = yield from self._scan(record, marks, scan, datetime.min.replace(tzinfo=UTC), self.now())
            scan = _Scan(since=scan.since, ended=True)
        until = last_result_at(record, self.grace_seconds, functions=self.functions)
        if until is None or self.now() < until:
            detail = "looked through; once more when every process has applied the removal"
            yield record.with_place(record.place("results").owed(position=scan.to_json(), detail=detail))
            return
        record = yield from self._scan(record, marks, _Scan(since=scan.since, ended=True), scan.since, until)
        now = self.now()
        for name in self.places:
            record = record.with_place(record.place(name).confirmed(now, "stores", detail=""))
        yield record

    def _scan(
        self, record: ErasureRecord, marks: Marks, scan: "_Scan", since: datetime, until: datetime
    ) -> Generator[ErasureRecord, None, ErasureRecord]:
        """Erase what was stored from `since` to `until`, and return the record afterwards."""
        listed = (
            each.key for each in self.objects.listed(self.output_bucket, scan.after) if since <= each.stored_at <= until
        )
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for keys in _batched(listed):
                removed = {"results": 0, "uploads": 0}
                for counts in pool.map(lambda key: self._erase(marks, key), keys):
                    removed = {name: count + counts.get(name, 0) for name, count in removed.items()}
                if not scan.ended:
                    scan = _Scan(since=scan.since, after=keys[-1])
                for name, count in removed.items():
                    place = record.place(name)
                    position = scan.to_json() if name == "results" else None
                    record = record.with_place(place.owed(removed=place.removed + count, position=position))
                yield record
        return record

    def _erase(self, marks: Marks, key: str) -> Mapping[str, int]:
        """Delete what an object and its request have of the person; returns how many objects by place."""
        try:
            body = self.objects.get(self.output_bucket, key)
        except ObjectMissing:  # it belonged to a request that was just erased, or has expired
            return {}
        if not marks.mentioned(body):
            return {}
        request_id = request_of(key)
        if request_id is None:  # the bare name of `FACEREC_KEY_STYLE=filename`, or a list of many results
            rest = marks.without(body)
            if rest:
                content_type = self.objects.describe(self.output_bucket, key).content_type
                self.objects.put(self.output_bucket, key, rest, content_type)
            else:
                self.objects.delete(self.output_bucket, key)
            return {"results": 1}
        uploads = [
            (self.input_bucket, each) for each in self.objects.keys(self.input_bucket, request_prefix(request_id))
        ]
        results = [
            (self.output_bucket, each) for each in self.objects.keys(self.output_bucket, request_prefix(request_id))
        ]
        copies = self._copies(body)
        # The result that names the person goes last: an interrupted pass finds it again.
        last = (self.output_bucket, key)
        for bucket, each in [*uploads, *copies, *(place for place in results if place != last), last]:
            self.objects.delete(bucket, each)
        copied = sum(1 for bucket, _ in copies if bucket == self.input_bucket)
        return {"uploads": len(uploads) + copied, "results": len(results) + len(copies) - copied}

    def _copies(self, body: bytes) -> list[tuple[str, str]]:
        """Return the copies under the file's own name, if they still have this result."""
        try:
            result = RecognitionResult.parse(body)
            copy = self.objects.get(self.output_bucket, copy_key(result.filename))
        except (ObjectMissing, InvalidMessage):
            return []
        if copy.decode(errors="replace") != result.result:
            return []
        filename = result.filename
        own = (self.input_bucket, safe_name(filename))
        return [(self.output_bucket, copy_key(filename)), *([own] if self.objects.exists(*own) else [])]


@dataclass(frozen=True, kw_only=True)
class JobsStep:
    """The reports of jobs: the rows about the person lose everything but how the file ended.

    `grace_seconds` is how long after a recognition its row may be written.
    """

    jobs: Jobs
    grace_seconds: float
    functions: bool = False
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("reports of jobs",)

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Look through the rows, when no process can recognise the person any more."""
        place = record.place("reports of jobs")
        if not record.version or place.state is not PlaceState.OWED:
            return
        marks, until = Marks.of(record), last_result_at(record, self.grace_seconds, functions=self.functions)
        if until is None or self.now() < until:
            return
        removed = 0
        for job in self.jobs.every() if not marks.empty else ():
            if job.collection == record.collection:
                rows = [
                    _without_person(file) for file in self.jobs.files(job.job_id) if _row_mentions(marks, job, file)
                ]
                self.jobs.add_files(job.job_id, rows, job.expires_at)
                removed += len(rows)
                if job.person is not None and job.status.ended and (record.everyone or job.person in record.names):
                    self.jobs.put(job.next(person=None))
        yield place.confirmed(self.now(), "stores", removed=removed)


@dataclass(frozen=True, kw_only=True)
class LateSnapshotsStep:
    """A snapshot whose writer was killed between its upload and its look at the removals."""

    objects: ObjectStore
    gallery_bucket: str
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("late snapshots",)

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Delete snapshots of versions before the removal, when no process can write one any more."""
        place = record.place("late snapshots")
        if not record.version or place.state is not PlaceState.OWED or settled(record) is None:
            return
        removed = 0
        for key in self.objects.keys(self.gallery_bucket, f"{SNAPSHOTS_PREFIX}{record.collection}/"):
            version = key.rsplit("/", 1)[-1][:_VERSION_DIGITS]
            if not version.isdigit() or int(version) < record.version:
                self.objects.delete(self.gallery_bucket, key)
                removed += 1
        yield place.confirmed(self.now(), "stores", removed=removed)


@dataclass(frozen=True, kw_only=True)
class DeadLettersStep:
    """The dead-letter queues, each by its name."""

    queues: Mapping[str, DeadLetterReader]
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("dead letters",)

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Remove the messages that name the person."""
        place = record.place("dead letters")
        if not record.version or place.state is not PlaceState.OWED or settled(record) is None:
            return
        marks, removed = Marks.of(record), place.removed
        for reader in self.queues.values():
            try:
                with reader.look() as letters:
                    for letter in letters:
                        if marks.mentioned(_readable(letter)):
                            reader.remove(letter)
                            removed += 1
            except QueueMissing:
                continue
        yield place.confirmed(self.now(), "queues", removed=removed)


@dataclass(frozen=True, kw_only=True)
class QueuesStep:
    """Messages on their way; SQS finds none by its content, so each queue must be seen empty once."""

    queues: PendingMessages
    now: Callable[[], datetime] = _utc_now
    places: ClassVar[Sequence[str]] = ("messages on their way",)

    def run(self, record: ErasureRecord) -> Iterator[Place]:
        """Note which queues were empty since the removal; older messages expire."""
        place = record.place("messages on their way")
        if not record.version or place.state is not PlaceState.OWED:
            return
        counts = self.queues.counts()
        known = counts if not place.position else json.loads(place.position)
        left = [name for name in known if counts.get(name, 0)]
        if not left:
            yield place.confirmed(self.now(), "queues", detail="each queue was empty at one time since")
        elif self.now() > record.begun_at + _LONGEST_WAIT:
            yield place.confirmed(self.now(), "queues", detail="messages from before have expired")
        else:
            until = record.begun_at + _LONGEST_WAIT
            detail = f"not seen empty yet: {', '.join(left)}; messages from before expire by {until:%Y-%m-%d %H:%M} UTC"
            yield place.owed(position=json.dumps(left), detail=detail)


@dataclass(frozen=True, slots=True)
class _Scan:
    """How far the output bucket was looked through."""

    since: datetime
    """What was stored from here on is looked at once more."""
    after: str = field(default="")
    ended: bool = False

    def to_json(self) -> str:
        return json.dumps({"since": self.since.isoformat(), "after": self.after, "ended": self.ended})

    @classmethod
    def parse(cls, position: str) -> "_Scan | None":
        if not position:
            return None
        known = json.loads(position)
        return cls(datetime.fromisoformat(known["since"]), known["after"], known["ended"])


def settled(record: ErasureRecord) -> datetime | None:
    """Return when the last process had applied the removal; `None` while one has not, or while that is unknown.

    Disks do not count: a stopped machine recognises nobody.
    """
    processes = [place for place in record.places if place.name.startswith(f"{ReaderKind.PROCESS} ")]
    looked = record.place("readers").state is not PlaceState.OWED or any(map(_is_reader, record.places))
    if not looked or any(place.state is PlaceState.OWED for place in processes):
        return None
    return max((each.confirmed_at for each in processes if each.confirmed_at is not None), default=record.begun_at)


def last_result_at(record: ErasureRecord, grace_seconds: float, *, functions: bool) -> datetime | None:
    """Return when the last result with the person may have been stored; `None` if one may still come."""
    at = settled(record)
    processes = any(place.name.startswith(f"{ReaderKind.PROCESS} ") for place in record.places)
    if at is None or not (processes or functions):
        return at
    return at + timedelta(seconds=grace_seconds)


def _row_mentions(marks: Marks, job: Job, file: JobFile) -> bool:
    row = file.model_dump(mode="json") | {"collection": job.collection}
    return file.file != ERASED_FILE and marks.mentioned(json.dumps(row).encode())


def _without_person(file: JobFile) -> JobFile:
    return JobFile(
        index=file.index, file=ERASED_FILE, status=file.status, outcome=file.outcome, request_id=file.request_id
    )


def _batched(found: Iterable[_T]) -> Iterator[list[_T]]:
    left = iter(found)
    return iter(lambda: list(islice(left, _SCANNED_AT_ONCE)), [])


def _is_reader(place: Place) -> bool:
    return place.name.startswith(tuple(f"{kind} " for kind in ReaderKind))


def _place_name(report: ReaderReport) -> str:
    return f"{report.kind} {report.reader_id}"


def _written_off(place: Place, why: str) -> Place:
    return place.model_copy(update={"state": PlaceState.WRITTEN_OFF, "detail": why})


def _readable(letter: DeadLetter) -> bytes:
    """Return the message's request as JSON, or its body, which may be in base64."""
    return (letter.content if letter.request is None else letter.request.to_json()).encode()
