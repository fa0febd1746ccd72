"""Online clustering: a face without a match gets the id of the unknown person it is, or founds one.

The faces of unknown people are templates of a companion collection, so the gallery's index, refresh and snapshots apply
to them as to everybody. Two workers may found two ids for one person at once; the next sight of a face that both match
merges the younger id into the older, and keeps it as an alias.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog

from facerec.comparison import Comparison, GalleryReader, ModelThresholds
from facerec.errors import AlreadyEnrolled, FacerecError
from facerec.gallery.unknown_people import live_record
from facerec.matching_rules import FaceMatches, match_faces
from facerec.messages import Request, UnknownSight
from facerec.ports import Template, TemplateStore, UnknownPeople
from facerec.settings.tiers import UnknownSettings
from facerec.unknown_records import UnknownAlert, UnknownPerson, companion, unknown_id_of, view_id
from model.faces import EmbeddedFace
from model.index.norms import normalised

if TYPE_CHECKING:
    from model.matching import Match

log = structlog.get_logger(__name__)

VIEWS = 5
"""The most templates of an unknown person: those of the best quality stay."""
COUNTED_EVERY = timedelta(minutes=1)
"""A sight sooner after the last one changes nothing."""
_CANDIDATES = 8
_FALSE_SHARE = 0.1
"""Of the share of strangers that may get a name: a wrong face stays with an id, and attracts more of its kind."""
_TRIES = 3


class UnknownGallery(GalleryReader, Protocol):
    """The gallery of a process that also writes templates."""

    def refresh_collection(self, collection: str) -> None:
        """Bring a collection up to date."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """One face without a match."""

    number: int
    """Its place in the picture."""
    face: EmbeddedFace
    matches: "Sequence[Match]"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownFaces:
    """The use case; safe for many threads, which found ids in turn."""

    settings: UnknownSettings
    gallery: UnknownGallery
    templates: TemplateStore
    records: UnknownPeople
    thresholds: ModelThresholds
    model_id: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _founding: threading.Lock = field(default_factory=threading.Lock)

    def seen(self, request: Request, faces: Sequence[EmbeddedFace], comparison: Comparison) -> Comparison:
        """Return the comparison with the unknown person of each face without a match.

        A failure is logged: the answer goes out without ids. A request with a threshold of its own is left alone: by
        that threshold anybody may be without a match.
        """
        unmatched = [number for number, face in enumerate(comparison.faces) if not face.matches]
        if not unmatched or request.threshold is not None or not self.settings.kept(request.collection):
            return comparison
        try:
            found = self._sighted(request, [(number, faces[number]) for number in unmatched])
        except FacerecError as exc:
            log.warning("unknown_people_unavailable", collection=request.collection, reason=str(exc))
            return comparison
        shown = [face.model_copy(update={"unknown": found.get(place)}) for place, face in enumerate(comparison.faces)]
        return replace(comparison, faces=tuple(shown))

    def search(self, collection: str, faces: Sequence[EmbeddedFace]) -> Mapping[int, UnknownSight]:
        """Return the unknown person of each face by its place, without a change; may raise `Transient`."""
        if not self.settings.kept(collection):
            return {}
        found = {}
        for sight in self._sights(collection, list(enumerate(faces))):
            people, _ = self._people(collection, sight.matches)
            if people:
                match, record = people[0]
                found[sight.number] = _shown(record, match.similarity)
        return found

    def _sighted(self, request: Request, faces: Sequence[tuple[int, EmbeddedFace]]) -> dict[int, UnknownSight]:
        collection = request.collection
        found: dict[int, UnknownSight] = {}
        for sight in self._sights(collection, faces):
            people, _ = self._people(collection, sight.matches)
            if len(people) == 1 and people[0][1].unknown_id == people[0][0].identity and not self._due(people[0][1]):
                found[sight.number] = _shown(people[0][1], people[0][0].similarity)
        rest = [(number, face) for number, face in faces if number not in found]
        if not rest:
            return found
        with self._founding:
            # Another thread may have founded the very id meanwhile.
            for sight in self._sights(collection, faces):
                taken = {each.unknown_id for each in found.values()}
                if sight.number not in found and (known := self._decided(request, sight, taken)) is not None:
                    found[sight.number] = known
        return found

    def _sights(self, collection: str, faces: Sequence[tuple[int, EmbeddedFace]]) -> list[_Sight]:
        """Return the faces with their matches: no two of them have one person (`facerec.matching_rules`)."""
        usable = [(number, face) for number, face in faces if normalised(face.embedding[None]).all()]
        if not usable:
            return []
        name = companion(collection)
        matched: list[FaceMatches] = match_faces(
            np.stack([face.embedding for _, face in usable]),
            partial(self.gallery.search, name),
            {},
            self._threshold(name),
            most=_CANDIDATES,
        )
        return [_Sight(number, face, own.matches) for (number, face), own in zip(usable, matched, strict=True)]

    def _threshold(self, name: str) -> float:
        if self.settings.similarity is not None:
            return self.settings.similarity
        strict = replace(self.thresholds, false_names=self.thresholds.false_names * _FALSE_SHARE)
        return strict.threshold(self.gallery.index(name).identities).value

    def _people(self, collection: str, matches: "Sequence[Match]") -> "tuple[list[tuple[Match, UnknownPerson]], bool]":
        """Return the people of the matches, aliases resolved; and whether the most similar one was just removed."""
        people: dict[str, tuple[Match, UnknownPerson]] = {}
        for place, match in enumerate(matches):
            record = live_record(self.records, collection, match.identity, self.now())
            if record is not None:
                people.setdefault(record.unknown_id, (match, record))
            elif place == 0 and (gone := self.records.get(collection, match.identity)) is not None and gone.removed:
                return [], True
        return list(people.values()), False

    def _due(self, record: UnknownPerson) -> bool:
        return self.now() - record.last_seen >= COUNTED_EVERY

    def _decided(self, request: Request, sight: _Sight, taken: set[str]) -> UnknownSight | None:
        """Return the person of a face after whatever it changes; `None` if it is nobody and founds nobody."""
        collection = request.collection
        known, removed = self._people(collection, sight.matches)
        if removed:
            return None
        if not known:  # also a face of somebody whose time is over
            return self._found(request, sight)
        people = [(match, record) for match, record in known if record.unknown_id not in taken]
        if not people:
            return None
        match, record = people[0]
        for _, other in people[1:]:
            if self._one_person(collection, record, other):
                record = self._merge(*sorted([record, other], key=lambda each: (each.first_seen, each.unknown_id)))
        if match.identity != record.unknown_id:
            self._adopt(collection, match.identity, record.unknown_id)
        return _shown(self._count(request, sight, record), match.similarity)

    def _found(self, request: Request, sight: _Sight) -> UnknownSight | None:
        """Found an id, which follows from the request and the face: a redelivery completes it."""
        collection, now = request.collection, self.now()
        if not self._good(sight.face):
            return None
        if self.gallery.index(companion(collection)).identities >= self.settings.max_people:
            log.warning("unknown_people_full", collection=collection, max_people=self.settings.max_people)
            return None
        template = self._view(request, sight, unknown_id_of(collection, request.request_id, sight.number))
        record = UnknownPerson(
            unknown_id=template.identity,
            collection=collection,
            first_seen=now,
            last_seen=now,
            last_request=request.request_id,
            views={template.template_id: template.quality or 0.0},
            alerted_at=now if self.settings.alert_url else None,
            expires_at=self._expiry(now),
        )
        if not self.records.put(record, self._alert("new", record)):
            earlier = live_record(self.records, collection, record.unknown_id, now)
            if earlier is None:
                return None
            record = earlier
        else:
            log.info("unknown_person_founded", collection=collection, unknown_id=record.unknown_id)
        self._add(template)
        return _shown(record, None)

    def _count(self, request: Request, sight: _Sight, record: UnknownPerson) -> UnknownPerson:
        """Note the sight, and keep its face if it is one of the best views; returns the record afterwards."""
        collection, now = request.collection, self.now()
        for _ in range(_TRIES):
            if not self._due(record) or record.last_request == request.request_id:
                return record
            template = self._view(request, sight, record.unknown_id)
            views = dict(record.views)
            if self._good(sight.face):
                views[template.template_id] = template.quality or 0.0
            kept = _best(views)
            alerting = self.settings.alert_url is not None and self.settings.alert_on == "seen"
            last = record.alerted_at or datetime.min.replace(tzinfo=UTC)
            alerting = alerting and now - last >= timedelta(minutes=self.settings.alert_minutes)
            changed = record.next(
                last_seen=now,
                seen=record.seen + 1,
                last_request=request.request_id,
                views=kept,
                alerted_at=now if alerting else record.alerted_at,
                expires_at=self._expiry(now),
            )
            if self.records.put(changed, self._alert("seen", changed) if alerting else None):
                if record.last_seen.date() != now.date():
                    self._prolong(changed)
                if template.template_id in kept and template.template_id not in record.views:
                    self._add(template)
                self._drop(collection, [each for each in record.views if each not in kept])
                return changed
            found = live_record(self.records, collection, record.unknown_id, now)
            if found is None:
                return record
            record = found
        return record

    def _merge(self, older: UnknownPerson, younger: UnknownPerson) -> UnknownPerson:
        """Make the younger id an alias of the older; after another write the next sight does it."""
        log.info("unknown_people_merged", collection=older.collection, into=older.unknown_id, alias=younger.unknown_id)
        kept = _best(older.views | younger.views)
        grown = older.next(
            seen=older.seen + younger.seen,
            last_seen=max(older.last_seen, younger.last_seen),
            expires_at=max(older.expires_at, younger.expires_at),
            views=kept,
            aliases=tuple(dict.fromkeys((*older.aliases, younger.unknown_id, *younger.aliases))),
        )
        if not self.records.put(grown):
            return older
        self.records.put(younger.next(merged_into=older.unknown_id, views={}, aliases=(), expires_at=grown.expires_at))
        self._adopt(older.collection, younger.unknown_id, older.unknown_id)
        self._drop(older.collection, [each for each in (*older.views, *younger.views) if each not in kept])
        return grown

    def _adopt(self, collection: str, alias: str, unknown_id: str) -> None:
        """Give the templates of an alias to its person; also those that an interrupted merge has left."""
        name = companion(collection)
        _, ids = self.gallery.index(name).templates_of(alias)
        if ids and self.templates.reassign(name, ids, unknown_id):
            self.gallery.refresh_collection(name)

    def _prolong(self, record: UnknownPerson) -> None:
        """Let the aliases live as long as their person; once a day is enough, because they have two days more."""
        for alias in record.aliases:
            known = self.records.get(record.collection, alias)
            if known is not None:
                self.records.put(known.next(expires_at=record.expires_at + timedelta(days=2)))

    def _one_person(self, collection: str, first: UnknownPerson, other: UnknownPerson) -> bool:
        """Whether the best views of two ids match each other: a face between two people does not merge them."""
        index = self.gallery.index(companion(collection))
        views = [index.templates_of(each.unknown_id)[0] for each in (first, other)]
        if not all(map(len, views)):
            return True  # an interrupted merge
        return float((views[0] @ views[1].T).max()) >= self._threshold(companion(collection))

    def _good(self, face: EmbeddedFace) -> bool:
        score = 1.0 if face.quality is None else face.quality.score
        return score >= self.settings.min_quality and face.probability >= self.settings.min_probability

    def _view(self, request: Request, sight: _Sight, unknown_id: str) -> Template:
        quality = sight.face.quality
        return Template(
            template_id=view_id(request.collection, self.model_id, request.request_id, sight.number),
            collection=companion(request.collection),
            identity=unknown_id,
            model_id=self.model_id,
            embedding=sight.face.embedding,
            source=f"request {request.request_id}",
            photo=None,
            probability=sight.face.probability,
            enrolled_at=request.submitted_at,
            quality=None if quality is None else quality.score,
        )

    def _add(self, template: Template) -> None:
        try:
            self.templates.add(template)
        except AlreadyEnrolled:
            log.debug("unknown_face_stored_already", template_id=template.template_id)
        self.gallery.refresh_collection(template.collection)

    def _drop(self, collection: str, template_ids: Sequence[str]) -> None:
        if template_ids and self.templates.remove(companion(collection), template_ids):
            self.gallery.refresh_collection(companion(collection))

    def _expiry(self, now: datetime) -> datetime:
        return now + timedelta(days=self.settings.days)

    def _alert(self, event: str, record: UnknownPerson) -> UnknownAlert | None:
        if self.settings.alert_url is None:
            return None
        now = self.now()
        return UnknownAlert(
            event="new" if event == "new" else "seen",
            collection=record.collection,
            unknown_id=record.unknown_id,
            request_id=record.last_request,
            first_seen=record.first_seen,
            last_seen=record.last_seen,
            seen=record.seen,
            made_at=now,
            due_at=now,
        )


def _best(views: Mapping[str, float]) -> dict[str, float]:
    """Return the views of the best quality; of equal ones the first."""
    return dict(sorted(views.items(), key=lambda view: -view[1])[:VIEWS])


def _shown(record: UnknownPerson, similarity: float | None) -> UnknownSight:
    return UnknownSight(
        unknown_id=record.unknown_id,
        first_seen=record.first_seen,
        last_seen=record.last_seen,
        seen_count=record.seen,
        similarity=similarity,
    )
