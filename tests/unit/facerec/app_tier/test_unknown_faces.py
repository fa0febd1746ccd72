"""Online clustering of faces without a match, on fakes and with a fake clock."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from facerec.app_tier.unknown_faces import VIEWS, UnknownFaces
from facerec.comparison import Comparison, ModelThresholds, result_face
from facerec.errors import Transient
from facerec.gallery.cache import GalleryCache
from facerec.gallery.unknown_people import NoSuchUnknown, Unknown
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest, UnknownSight
from facerec.settings.tiers import UnknownSettings
from facerec.unknown_records import companion
from model.faces import Box, EmbeddedFace, Quality
from tests.fakes.drawn_faces import DIMENSION, embedding
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import MODEL, InMemoryTemplateStore, make_template
from tests.fakes.unknown_people import InMemoryUnknownPeople
from tests.support.tails import TAILS

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMPANION = companion("default")


class Visits:
    """One collection that workers write to, each with a gallery of its own; `now` is the time for all."""

    def __init__(self, **settings: Any) -> None:
        self.settings = UnknownSettings(**({"collections": ("default",), "similarity": 0.5} | settings))
        self.now = BEGIN
        self.templates, self.records = InMemoryTemplateStore(), InMemoryUnknownPeople()
        self.people = Unknown(
            enrolled=self.templates, records=self.records, names=InMemoryPersonRecords(), now=lambda: self.now
        )
        self.requests = 0
        self.worker = self.new_worker()

    def new_worker(self) -> UnknownFaces:
        """A worker that has just started."""
        return UnknownFaces(
            settings=self.settings,
            gallery=GalleryCache(self.templates, MODEL, 5, dimension=DIMENSION),
            templates=self.templates,
            records=self.records,
            thresholds=ModelThresholds(TAILS["open"], 0.4, 0.01),
            model_id=MODEL,
            now=lambda: self.now,
        )

    def request(self, number: int | None = None) -> RecognitionRequest:
        """The request of this number, or a new one."""
        self.requests += 1
        return RecognitionRequest(
            request_id=UUID(int=number or 1000 + self.requests),
            input=ObjectRef(bucket="in", key="photo", size=1),
            filename="photo.jpg",
            submitted_at=self.now,
        )

    def see(
        self, *faces: EmbeddedFace, worker: UnknownFaces | None = None, request: RecognitionRequest | None = None
    ) -> list[UnknownSight | None]:
        """What a worker says of the faces of a photo, none of which has a match."""
        known = Comparison(tuple(result_face(face) for face in faces))
        shown = (worker or self.worker).seen(request or self.request(), faces, known)
        return [face.unknown for face in shown.faces]

    def ids(self, *faces: EmbeddedFace, **options: Any) -> list[str | None]:
        """Their ids alone."""
        return [None if sight is None else sight.unknown_id for sight in self.see(*faces, **options)]

    def wait(self, **time: float) -> None:
        """Put the clock forward."""
        self.now += timedelta(**time)

    def owners(self) -> Sequence[str]:
        """The ids that have templates."""
        return sorted(set(self.templates.owners(COMPANION).values()))


def face(name: str, take: int = 0, quality: float = 0.9, probability: float = 0.99) -> EmbeddedFace:
    """A face of a stranger; another take is another photo."""
    return EmbeddedFace(Box(0, 0, 90, 90), probability, ((1.0, 1.0),) * 5, embedding(name, take), Quality(quality, ()))


def between(first: str, other: str) -> EmbeddedFace:
    """A face that is as similar to one person as to another, at 0.7."""
    middle = embedding(first) + embedding(other)
    return replace(face(first), embedding=(middle / np.linalg.norm(middle)).astype(np.float32))


def test_stranger_keeps_an_id_and_strangers_have_different_ones() -> None:
    """Also with a worker that starts later; sights within a minute count once."""
    visits = Visits()
    (first,) = visits.ids(face("Ada"))
    (other,) = visits.ids(face("Grace"))
    assert first is not None
    assert other not in {None, first}
    visits.wait(minutes=2)
    for worker in (visits.worker, visits.new_worker()):
        (sight,) = visits.see(face("Ada", take=1), worker=worker)
        assert sight is not None
        assert (sight.unknown_id, sight.seen_count, sight.first_seen) == (first, 2, BEGIN)
        assert sight.last_seen == BEGIN + timedelta(minutes=2)


def test_nothing_is_stored_unless_the_collection_is_named() -> None:
    """The feature is off by default; a request with its own threshold decides nothing either."""
    visits = Visits(collections=("staff",))
    assert visits.ids(face("Ada")) == [None]
    assert UnknownSettings().collections == ()
    visits = Visits()
    strict = visits.request().model_copy(update={"threshold": 0.99})
    assert visits.ids(face("Ada"), request=strict) == [None]
    assert visits.templates.version(COMPANION) == 0


def test_redelivered_request_founds_no_second_id_and_counts_once() -> None:
    """Also if the first delivery ended between the record and the template."""
    visits = Visits()
    request = visits.request(7)
    (first,) = visits.ids(face("Ada"), request=request)
    visits.templates.remove(COMPANION, list(visits.templates.owners(COMPANION)))
    visits.wait(minutes=5)
    for worker in (visits.new_worker(), visits.new_worker()):
        (sight,) = visits.see(face("Ada"), request=request, worker=worker)
        assert sight is not None
        assert (sight.unknown_id, sight.seen_count) == (first, 1)
    assert visits.owners() == [first]


def test_two_faces_of_a_photo_are_two_people() -> None:
    """Twins, too: each keeps the id that it is more similar to."""
    visits = Visits()
    first, other = visits.ids(face("Ada"), face("Ada", take=1))
    assert first != other
    visits.wait(minutes=2)
    assert visits.ids(face("Ada", take=1), face("Ada")) == [other, first]


def test_poor_face_founds_no_id_but_is_known_again() -> None:
    """By quality and by detection probability."""
    visits = Visits(min_quality=0.5, min_probability=0.9)
    assert visits.ids(face("Ada", quality=0.4), face("Grace", probability=0.8)) == [None, None]
    (first,) = visits.ids(face("Ada"))
    assert visits.ids(face("Ada", take=1, quality=0.1)) == [first]
    full = Visits(max_people=1)
    (first,) = full.ids(face("Ada"))
    assert full.ids(face("Grace"), face("Ada", take=1)) == [None, first]


def test_best_views_are_kept() -> None:
    """At most five; a better one replaces the poorest, and a poorer one is not stored."""
    visits = Visits()
    for take, quality in enumerate((0.6, 0.9, 0.8, 0.7, 0.95, 0.65, 0.55, 0.99)):
        visits.see(face("Ada", take=take, quality=quality))
        visits.wait(minutes=2)
    qualities = sorted(round(entry.quality or 0, 2) for entry in visits.templates.entries(COMPANION))
    assert (len(qualities), qualities) == (VIEWS, [0.7, 0.8, 0.9, 0.95, 0.99])


def test_ids_founded_at_once_converge_and_both_stay_good() -> None:
    """Two workers do not see each other's new ids: the next sight makes the younger an alias of the older."""
    visits = Visits()
    late = visits.new_worker()
    late.gallery.index(COMPANION)
    visits.see(face("Somebody"))
    visits.wait(minutes=5)
    late.gallery.index(COMPANION)
    (older,) = visits.ids(face("Ada"))
    visits.wait(seconds=1)
    (younger,) = visits.ids(face("Ada", take=1), worker=late)
    assert older is not None
    assert younger not in {None, older}
    visits.wait(minutes=2)
    new = visits.new_worker()
    assert visits.ids(face("Ada", take=1), worker=new) == [older]
    assert younger not in visits.owners()
    assert visits.people.get("default", younger or "").unknown_id == older
    assert visits.people.get("default", older).aliases == (younger,)
    assert younger not in [record.unknown_id for record in visits.people.page("default")]
    late.gallery.refresh_collection(COMPANION)
    assert visits.ids(face("Ada"), worker=late) == [older]


def test_face_between_two_people_does_not_merge_them() -> None:
    """It is similar to both, but they are not to each other."""
    visits = Visits()
    first, other = visits.ids(face("Ada"), face("Grace"))
    visits.wait(minutes=2)
    (found,) = visits.ids(between("Ada", "Grace"))
    assert found in {first, other}
    assert visits.owners() == sorted([first or "", other or ""])


def test_person_who_is_not_seen_is_forgotten() -> None:
    """After the days since the last sight: at once for every reader, and in the stores by the sweep."""
    visits = Visits(days=10)
    first, other = visits.ids(face("Ada"), face("Grace"))
    visits.wait(days=6)
    visits.see(face("Ada"))
    visits.wait(days=6)
    assert [record.unknown_id for record in visits.people.page("default")] == [first]
    with pytest.raises(NoSuchUnknown):
        visits.people.get("default", other or "")
    (again,) = visits.ids(face("Grace"))
    assert again not in {None, first, other}
    assert visits.people.sweep("default") == 1
    assert visits.owners() == sorted([first or "", again or ""])
    assert [record.unknown_id for record in visits.records.records("default")] == visits.owners()


def test_promoted_person_has_the_faces_and_is_not_founded_again() -> None:
    """Not even by a worker that still has the old templates."""
    visits = Visits()
    visits.templates.add(make_template(1, "Ada Lovelace"))
    (first,) = visits.ids(face("Ada"))
    assert visits.ids(face("Ada")) == [first]
    assert visits.people.promote("default", first or "", "ada  LOVELACE") == ("Ada Lovelace", 1)
    assert set(visits.templates.owners("default").values()) == {"Ada Lovelace"}
    assert visits.templates.count("default") == 2
    assert visits.owners() == []
    assert visits.ids(face("Ada", take=1)) == [None]
    with pytest.raises(NoSuchUnknown):
        visits.people.promote("default", first or "", "Grace")


def test_removed_person_leaves_nothing_and_gets_a_new_id_later() -> None:
    """Workers apply the removal within seconds."""
    visits = Visits()
    (first,) = visits.ids(face("Ada"))
    assert visits.ids(face("Ada")) == [first]
    assert visits.people.remove("default", first or "") == 1
    assert visits.ids(face("Ada")) == [None]
    visits.worker.gallery.refresh_collection(COMPANION)
    (again,) = visits.ids(face("Ada"))
    assert again not in {None, first}


def test_search_changes_nothing() -> None:
    """Neither the count nor the ids."""
    visits = Visits()
    (first,) = visits.ids(face("Ada"))
    visits.wait(minutes=5)
    found = visits.worker.search("default", [face("Grace"), face("Ada", take=1)])
    assert {place: sight.unknown_id for place, sight in found.items()} == {1: first}
    assert found[1].last_seen == BEGIN
    assert visits.owners() == [first]


def test_outage_costs_the_ids_and_not_the_answer() -> None:
    """The result goes out without them."""
    visits = Visits()
    visits.records.outage = Transient("no table")
    assert visits.ids(face("Ada")) == [None]
    visits.records.outage = None
    assert visits.ids(face("Ada")) != [None]


def test_alerts_tell_of_new_ids_and_of_sights_at_most_once_in_a_while() -> None:
    """One alert for each person, which the next one replaces."""
    visits = Visits(alert_url="https://example.com/", alert_on="seen", alert_minutes=60)
    (first,) = visits.ids(face("Ada"))
    (alert,) = visits.records.alerts()
    assert (alert.event, alert.unknown_id) == ("new", first)
    assert visits.records.remove_alert(alert)
    for minutes, events in ((10, []), (60, ["seen"])):
        visits.wait(minutes=minutes)
        visits.see(face("Ada"))
        assert [alert.event for alert in visits.records.alerts()] == events
    quiet = Visits(alert_url="https://example.com/")
    quiet.see(face("Ada"))
    assert quiet.records.remove_alert(quiet.records.alerts()[0])
    quiet.wait(hours=2)
    quiet.see(face("Ada"))
    assert quiet.records.alerts() == []
