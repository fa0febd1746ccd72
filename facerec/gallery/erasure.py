"""The erasure of people: begun at once, and worked off by a ledger until every place is clean. Without numpy.

`begin` writes the record and removes what is quick: templates, photos, snapshots, rejections and records of the person.
What is left is owed: results and uploads, queues, dead letters, and the readers that hold a collection in memory or on
disk. `work` tries what is owed; whoever has the lease of a record may do it. An interrupted pass is repeated, because
each step may be. The names leave the ledger when nothing is owed any more.
"""

import hashlib
import hmac
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from facerec.background import backoff_seconds
from facerec.erasure_records import ErasureRecord, Place
from facerec.errors import FacerecError, LeaseLost
from facerec.gallery.names import KnownNames, same_person
from facerec.ports import EnrolledPeople, ErasureLedger, PersonRecords

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30.0
"""A pass renews its lease at each place; the lease of a killed process ends so long after its last place."""
_FEW_PHOTOS = 100
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 2.0, 300.0


class ErasureStep(Protocol):
    """One kind of places; idempotent, because a pass may be interrupted and repeated."""

    @property
    def places(self) -> Sequence[str]:
        """The places that the step always has; it may find more."""

    def run(self, record: ErasureRecord) -> Iterator[Place] | Iterator[ErasureRecord]:
        """Try what is owed; yields each place as it is known, or the whole record if more of it has changed.

        May raise `FacerecError`: the step is tried again in the next pass.
        """


@dataclass(frozen=True, slots=True)
class Begun:
    """An erasure that has begun."""

    record: ErasureRecord
    subject_key: str
    """With it a receipt can be shown to be about a name; it is returned here, and kept nowhere."""


@dataclass(frozen=True)
class Erasures:
    """The use cases; safe for many threads. Every method may raise `Transient`.

    `gallery` is the step that `begin` does itself, `photos` too if they are few; `later` are the others in their order.
    `owner` names the process that holds leases.
    """

    ledger: ErasureLedger
    enrolled: EnrolledPeople
    people: PersonRecords
    gallery: ErasureStep
    photos: ErasureStep
    later: Sequence[ErasureStep]
    _: KW_ONLY
    owner: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def begin(self, collection: str, name: str, by: str, *, exact: bool = False) -> Begun | None:
        """Begin to erase a person under all spellings and former names; `None` if the collection knows nobody such."""
        owners = self.enrolled.owners(collection)
        names = self._names(collection, owners.values(), name, exact=exact)
        own = [identifier for identifier, owner in owners.items() if owner in names]
        if not own and not names:
            return None
        return self._begin(collection, by, sorted(names), own)

    def begin_photos(
        self, collection: str, template_ids: Sequence[str], by: str, *, photos_now: bool = False
    ) -> Begun | None:
        """Begin to erase single templates; `None` if there are none of these.

        A person who has no other template is erased as `begin` does it. With `photos_now` all photos are gone on
        return: for a client that may enrol the same photos at once.
        """
        owners = self.enrolled.owners(collection)
        own = [identifier for identifier in dict.fromkeys(template_ids) if identifier in owners]
        if not own:
            return None
        left = {owner for identifier, owner in owners.items() if identifier not in set(own)}
        gone = {owners[identifier] for identifier in own} - left - {""}
        return self._begin(collection, by, sorted(gone), own, photos_now=photos_now)

    def begin_collection(self, collection: str, by: str) -> Begun:
        """Begin to erase everyone in a collection, and every result of it."""
        return self._begin(collection, by, [], [], everyone=True)

    def get(self, erasure_id: str) -> ErasureRecord | None:
        """Return an erasure, open or complete."""
        return self.ledger.get(erasure_id)

    def open(self) -> list[ErasureRecord]:
        """Return the erasures that still owe something, oldest first."""
        return self.ledger.open()

    def complete(self) -> list[ErasureRecord]:
        """Return the complete erasures, oldest first."""
        return self.ledger.complete()

    def work(self, erasure_id: str, on_place: Callable[[ErasureRecord], None] = lambda _: None) -> ErasureRecord | None:
        """Do one pass; returns the record afterwards, or `None` if another process works on it.

        `on_place` gets the record after every change of a place.
        """
        record = self.ledger.lease(erasure_id, self.owner, LEASE_SECONDS)
        if record is None:
            return None
        for step in self._steps:
            try:
                record = self._run(step, record, on_place)
            except LeaseLost:
                raise
            except FacerecError as exc:
                # The record of this pass has what the step has found so far; the other places are tried all the same.
                kind = type(step).__name__
                log.warning("erasure_step_failed", erasure_id=erasure_id, step=kind, reason=str(exc))
                record = self.ledger.get(erasure_id) or record
        record = self._ended(record)
        self.ledger.save(record, self.owner, release=True)
        on_place(record)
        return record

    def work_due(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Do one pass of every erasure whose next pass is due; raises the last `FacerecError` of a pass."""
        problem: FacerecError | None = None
        for record in self.ledger.open():
            if stopping():
                return
            if record.next_pass_at <= self.now():
                try:
                    self.work(record.erasure_id)
                except FacerecError as exc:  # the other erasures do not wait for this one
                    log.warning("erasure_pass_failed", erasure_id=record.erasure_id, reason=str(exc))
                    problem = exc
        if problem is not None:
            raise problem

    def _begin(
        self,
        collection: str,
        by: str,
        names: Sequence[str],
        template_ids: Sequence[str],
        *,
        everyone: bool = False,
        photos_now: bool = False,
    ) -> Begun:
        now, key = self.now(), secrets.token_hex(16)
        record = ErasureRecord(
            erasure_id=secrets.token_hex(16),
            collection=collection,
            names=tuple(names),
            template_ids=tuple(template_ids),
            everyone=everyone,
            subject_hashes=tuple(sorted(subject_hash(key, collection, name) for name in names)),
            by=by,
            begun_at=now,
            places=tuple(Place(name=name) for step in self._steps for name in step.places),
            next_pass_at=now,
        )
        self.ledger.add(record, self.owner, LEASE_SECONDS)
        log.info("erasure_begun", erasure_id=record.erasure_id, collection=collection, by=by)
        try:
            record = self._run(self.gallery, record)
            if photos_now or (not everyone and len(template_ids) <= _FEW_PHOTOS):
                record = self._run(self.photos, record)
        finally:
            # Whatever is left is worked off by the ledger.
            self.ledger.save(self.ledger.get(record.erasure_id) or record, self.owner, release=True)
        return Begun(record, key)

    @property
    def _steps(self) -> Sequence[ErasureStep]:
        return (self.gallery, self.photos, *self.later)

    def _run(
        self, step: ErasureStep, record: ErasureRecord, on_place: Callable[[ErasureRecord], None] = lambda _: None
    ) -> ErasureRecord:
        for found in step.run(record):
            record = found if isinstance(found, ErasureRecord) else record.with_place(found)
            self.ledger.save(record, self.owner, seconds=LEASE_SECONDS)
            on_place(record)
        return record

    def _ended(self, record: ErasureRecord) -> ErasureRecord:
        """Return the record after a pass: complete without names, or with the time of its next pass."""
        now, passes = self.now(), record.passes + 1
        if not record.still_owed:
            log.info("erasure_complete", erasure_id=record.erasure_id, passes=passes)
            gone = {"names": (), "template_ids": (), "completed_at": now, "passes": passes}
            return record.model_copy(update=gone)
        jitter = random.random()  # noqa: S311 - no secret
        pause = backoff_seconds(passes, jitter, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)
        return record.model_copy(update={"passes": passes, "next_pass_at": now + timedelta(seconds=pause)})

    def _names(self, collection: str, identities: Iterable[str], name: str, *, exact: bool) -> set[str]:
        """Return every spelling of the person, and the names that were merged into it."""
        names = set(KnownNames(identities).spellings(name, exact=exact))
        kept = [
            *self.people.names(collection),
            *(each.identity for each in self.enrolled.rejection_entries(collection)),
        ]
        names |= {each for each in kept if same_person(each, name, exact=exact)}
        merges = self.people.merges(collection)
        return names.union(
            *(
                (record.source, record.into, *record.templates)
                for record in merges
                if same_person(record.into, name, exact=exact)
            )
        )


def subject_hash(key: str, collection: str, name: str) -> str:
    """Return what the ledger keeps of a name."""
    return hmac.new(bytes.fromhex(key), f"{collection}\0{name}".encode(), hashlib.sha256).hexdigest()
