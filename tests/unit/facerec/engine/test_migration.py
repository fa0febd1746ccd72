"""The record of a migration: which model a worker serves, and what a next migration makes of it."""

from datetime import UTC, datetime

import pytest

from facerec.engine.migration import (
    MIGRATION,
    Migration,
    begun,
    check_served,
    model_to_serve,
    read_migration,
    write_migration,
)
from facerec.errors import ConfigurationError
from tests.fakes.object_store import InMemoryObjectStore

NOW = datetime(2026, 12, 1, tzinfo=UTC)
BUCKET = "models"
OLD, NEW, NEXT = "open-128-0a", "accurate-512-0b", "open-128-0c"


def test_workers_change_only_with_the_record() -> None:
    """A worker with a third model takes no part."""
    begins = begun(None, OLD, NEW, NOW)
    assert (begins.serving, begins.other) == (OLD, NEW)
    switched = begins.switched(NOW)
    assert (switched.serving, switched.other, switched.switched_at) == (NEW, OLD, NOW)
    assert switched.switched(NOW).serving == OLD
    for migration, served in ((None, OLD), (begins, OLD), (switched, NEW)):
        assert model_to_serve(OLD, migration) == served
        assert model_to_serve(NEXT, migration) == NEXT


def test_migration_goes_on_after_an_interruption_and_after_a_return() -> None:
    """The record of the same two models is kept, in whichever direction."""
    begins = begun(None, OLD, NEW, NOW)
    assert begun(begins, OLD, NEW, datetime.now(UTC)) == begins
    switched = begins.switched(NOW)
    assert begun(switched, NEW, OLD, datetime.now(UTC)) == switched


def test_worker_with_a_model_of_an_earlier_migration_follows_the_next_one() -> None:
    """It may start with an old directory."""
    record = begun(begun(None, OLD, NEW, NOW).switched(NOW), NEW, NEXT, NOW)
    assert (record.models, record.serving, record.former) == ((NEW, NEXT), NEW, (OLD,))
    assert model_to_serve(OLD, record) == NEW
    assert model_to_serve(OLD, record.switched(NOW)) == NEXT


def test_machine_with_the_former_model_is_told_what_to_do() -> None:
    """In one sentence; before the switch, and without a migration, nothing is wrong."""
    store = InMemoryObjectStore()
    check_served(store, BUCKET, OLD)
    write_migration(store, BUCKET, begun(None, OLD, NEW, NOW))
    check_served(store, BUCKET, OLD)
    write_migration(store, BUCKET, begun(None, OLD, NEW, NOW).switched(NOW))
    with pytest.raises(ConfigurationError, match=f"facerec model pull --model-id {NEW}"):
        check_served(store, BUCKET, OLD)


@pytest.mark.parametrize("record", [b"{", b'{"from_model": "../x", "to_model": "b", "serving": "b"}'])
def test_damaged_record_is_an_error_and_not_none(record: bytes) -> None:
    """An id is a part of a path."""
    store = InMemoryObjectStore()
    store.put(BUCKET, MIGRATION, record, "application/json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_migration(store, BUCKET)


def test_record_is_read_as_it_was_written() -> None:
    """With its dates."""
    store = InMemoryObjectStore()
    assert read_migration(store, BUCKET) is None
    record = Migration(from_model=OLD, to_model=NEW, serving=NEW, started_at=NOW, switched_at=NOW)
    write_migration(store, BUCKET, record)
    assert read_migration(store, BUCKET) == record
