"""One suite for the records of collections: memory, and DynamoDB in ministack and in moto."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.collections import DynamoCollections
from facerec.errors import ConfigurationError
from facerec.ports import CollectionRecord, Collections
from facerec.provision import provisioning
from tests.fakes.collections import InMemoryCollections

STAFF = CollectionRecord("staff", "0123456789ab", datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC))
GUESTS = replace(STAFF, collection="guests", owner=None)


@pytest.fixture(params=["memory", "ministack", "moto"])
def collections(request: pytest.FixtureRequest) -> Collections:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryCollections()
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "PEOPLE_TABLE", name, ("kind", "item"))
    return DynamoCollections(clients, name)


def test_collection_keeps_every_field(collections: Collections) -> None:
    """Also one without an owner."""
    assert collections.records() == []
    assert collections.get("staff") is None
    for record in (STAFF, GUESTS):
        assert collections.create(record)
        assert collections.get(record.collection) == record
    assert collections.records() == [GUESTS, STAFF]


def test_collection_keeps_its_owner(collections: Collections) -> None:
    """Who creates it later gets nothing, until it was removed."""
    other = replace(STAFF, owner="ba9876543210")
    assert collections.create(STAFF)
    assert not collections.create(other)
    assert collections.get("staff") == STAFF
    for _ in range(2):
        collections.remove("staff")
    assert collections.get("staff") is None
    assert collections.create(other)
    assert collections.get("staff") == other


def test_one_of_many_creates_a_collection(collections: Collections) -> None:
    """The others learn that it exists."""
    records = [replace(STAFF, owner=f"{number:012x}") for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(collections.create, records)) == 1


def test_missing_table_says_what_to_do(ministack_clients: Clients) -> None:
    """`facerec provision`."""
    with pytest.raises(ConfigurationError, match="facerec provision"):
        DynamoCollections(ministack_clients, "no-such-table").records()
