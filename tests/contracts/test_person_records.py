"""One suite for every store of people's records: memory, and DynamoDB in ministack and in moto."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.person_records import DynamoPersonRecords
from facerec.ports import MergeRecord, PersonRecords
from facerec.provision import provisioning
from tests.fakes.person_records import InMemoryPersonRecords
from tests.support.logs import capture_logs

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> PersonRecords:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryPersonRecords()
    return empty_store(request.getfixturevalue(f"{request.param}_clients"))


def empty_store(clients: Clients) -> DynamoPersonRecords:
    """A store on a table as `facerec provision` makes it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "PEOPLE_TABLE", name, ("kind", "item"))
    return DynamoPersonRecords(clients, name)


def make_record(number: int, source: str = "José 李", into: str = "Ada", collection: str = "default") -> MergeRecord:
    """The record of a merge, made some minutes later than those of smaller numbers."""
    return MergeRecord(
        merge_id=f"{999 - number:032x}",
        collection=collection,
        source=source,
        into=into,
        templates={source: (f"{number:032x}", f"{number + 1:032x}"), source.upper(): (f"{number + 2:032x}",)},
        merged_at=NOW + timedelta(minutes=number),
        by="key kiosk",
        rejections={source: (f"{number:032x}",)},
    )


def test_name_is_kept_once_in_its_collection(store: PersonRecords) -> None:
    """Names in any script, sorted, until they are removed."""
    for name in ("Zoë", "Ada", "李", "Ada"):
        store.add_name("default", name)
    store.add_name("other", "Grace")
    assert store.names("default") == ["Ada", "Zoë", "李"]
    for _ in range(2):
        store.remove_name("default", "Ada")
    assert (store.names("default"), store.names("other"), store.names("none")) == (["Zoë", "李"], ["Grace"], [])


def test_merge_record_keeps_every_field(store: PersonRecords) -> None:
    """Oldest first, and only those of the collection."""
    first, second = make_record(1), replace(make_record(2), rename=True)
    for record in (second, first, make_record(3, collection="other")):
        store.put_merge(record)
    assert store.merges("default") == [first, second]


def test_merge_record_is_replaced_and_removed_by_its_id(store: PersonRecords) -> None:
    """A removal may be repeated."""
    record = make_record(1)
    store.put_merge(record)
    changed = replace(record, into="Grace", templates={})
    store.put_merge(changed)
    assert store.merges("default") == [changed]
    for _ in range(2):
        store.remove_merge("default", record.merge_id)
    assert store.merges("default") == []


def test_forget_removes_what_names_the_person_and_nothing_beside(store: PersonRecords) -> None:
    """In any spelling, as source and as target."""
    other = make_record(3, "Grace", "Joan")
    for record in (make_record(1, "Ada", "Grace"), make_record(2, "Joan", "ADA"), other):
        store.put_merge(record)
    elsewhere = make_record(1, "Ada", collection="other")
    store.put_merge(elsewhere)
    for name in ("ada.", "Grace"):
        store.add_name("default", name)
    assert store.forget("default", "Ada") == 3
    assert (store.merges("default"), store.names("default")) == ([other], ["Grace"])
    assert store.merges("other") == [elsewhere]
    assert store.forget("default", "Ada") == 0


def test_record_of_ten_thousand_templates_fits(store: PersonRecords) -> None:
    """The largest that a merge makes."""
    record = replace(make_record(1), templates={"Ada": tuple(f"{number:032x}" for number in range(10_000))})
    store.put_merge(record)
    assert store.merges("default") == [record]


def test_unreadable_record_is_left_out_and_forgotten_with_any_person(ministack_clients: Clients) -> None:
    """It may name the person; the log does not."""
    store = empty_store(ministack_clients)
    store.put_merge(make_record(1, "Grace", "Joan"))
    key = store._table.key("merge#default", "0" * 32)
    ministack_clients.dynamodb.put_item(TableName=store._table.name, Item=key | {"record": {"S": '{"source": "Ada"}'}})
    with capture_logs() as logs:
        assert store.merges("default") == [make_record(1, "Grace", "Joan")]
    assert [(log["event"], log["merge_id"]) for log in logs] == [("merge_record_unreadable", "0" * 32)]
    assert "Ada" not in str(logs)
    assert store.forget("default", "Ada") == 1
