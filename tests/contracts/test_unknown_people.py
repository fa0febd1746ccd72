"""One suite for every store of unknown people: memory, and DynamoDB in ministack and in moto."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.unknown_people import DynamoUnknownPeople
from facerec.ports import UnknownPeople
from facerec.provision import provisioning
from facerec.unknown_records import UnknownAlert, UnknownPerson
from tests.fakes.unknown_people import InMemoryUnknownPeople

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> UnknownPeople:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryUnknownPeople()
    return empty_store(request.getfixturevalue(f"{request.param}_clients"))


def empty_store(clients: Clients) -> DynamoUnknownPeople:
    """A store on a table as `facerec provision` makes it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "PEOPLE_TABLE", name, ("kind", "item"))
    return DynamoUnknownPeople(clients, name)


def make_record(number: int, collection: str = "default") -> UnknownPerson:
    """A record whose id follows from its number."""
    return UnknownPerson(
        unknown_id=f"unknown-{number:012x}",
        collection=collection,
        first_seen=NOW,
        last_seen=NOW,
        last_request=uuid.UUID(int=number),
        views={f"{number:032x}": 0.75},
        aliases=(f"unknown-{number + 100:012x}",),
        expires_at=NOW + timedelta(days=30_000),
    )


def make_alert(record: UnknownPerson) -> UnknownAlert:
    """An alert about it."""
    return UnknownAlert(
        event="new",
        collection=record.collection,
        unknown_id=record.unknown_id,
        request_id=record.last_request,
        first_seen=record.first_seen,
        last_seen=record.last_seen,
        seen=record.seen,
        made_at=NOW,
        due_at=NOW,
    )


def test_record_is_written_only_over_the_revision_that_was_read(store: UnknownPeople) -> None:
    """Of two writers of one revision the second is refused, also as the first writer, and as a remover."""
    record = make_record(1)
    assert store.put(record)
    assert not store.put(record.model_copy(update={"seen": 9}))
    seen = record.next(seen=2)
    assert store.put(seen)
    assert not store.put(record.next(seen=3))
    assert not store.remove(record)
    assert store.get("default", record.unknown_id) == seen
    assert store.get("other", record.unknown_id) is None
    assert store.remove(seen)
    assert store.get("default", record.unknown_id) is None


def test_records_are_listed_by_id_from_any_of_them(store: UnknownPeople) -> None:
    """Those of one collection."""
    records = [make_record(number) for number in (1, 2, 3)]
    for record in (*reversed(records), make_record(4, "other")):
        assert store.put(record)
    assert list(store.records("default")) == records
    assert list(store.records("default", records[0].unknown_id)) == records[1:]


def test_alert_is_written_with_its_record_and_claimed_once(store: UnknownPeople) -> None:
    """A refused record brings no alert; a new alert about a person replaces the one before."""
    record = make_record(1)
    alert = make_alert(record)
    assert store.put(record, alert)
    assert not store.put(record, alert.model_copy(update={"seen": 7}))
    assert store.alerts() == [alert]
    claimed = alert.later(60, NOW, attempts=1)
    assert store.postpone_alert(alert, claimed)
    assert not store.postpone_alert(alert, claimed)

    newer = alert.model_copy(update={"event": "seen", "seen": 2})
    assert store.put(record.next(seen=2), newer)
    assert not store.remove_alert(claimed)
    assert store.alerts() == [newer]
    assert store.remove_alert(newer)
    assert store.alerts() == []
