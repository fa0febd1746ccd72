"""One suite for every store of API keys: memory, and DynamoDB in ministack and in moto."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from facerec.api_keys import ApiKey, Scope, Standing, issue, revoked, rotated
from facerec.aws.clients import Clients
from facerec.aws.dynamodb.api_keys import DynamoApiKeys
from facerec.errors import ApiKeyUnreadable, ConfigurationError, FacerecError
from facerec.ports import ApiKeys
from facerec.provision import provisioning
from tests.fakes.api_keys import InMemoryApiKeys

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> ApiKeys:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryApiKeys()
    return empty_store(request.getfixturevalue(f"{request.param}_clients"))


def empty_store(clients: Clients) -> DynamoApiKeys:
    """A store on a table as `facerec provision` makes it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "KEYS_TABLE", name, ("kind", "item"))
    return DynamoApiKeys(clients, name)


def make_key(name: str = "kiosk", later: float = 0) -> ApiKey:
    """A key that was made some seconds later."""
    return issue(name, [Scope.RECOGNISE], now=NOW + timedelta(seconds=later))[0]


def test_new_table_has_no_keys(store: ApiKeys) -> None:
    """New table has no keys."""
    assert store.get("0123456789ab") is None
    assert store.keys() == ([], [])


def test_key_keeps_every_field_through_its_life(store: ApiKeys) -> None:
    """And both secrets can be checked."""
    key, first = issue("kiosk im Süden", [Scope.ADMIN, Scope.ENROL], now=NOW, expires_in=timedelta(days=90))
    store.put(key)
    assert store.get(key.key_id) == key
    changed, second = rotated(key, now=NOW, grace=timedelta(hours=24))
    store.put(changed)
    found = store.get(key.key_id)
    assert found == changed
    assert found.standing(first.secret, NOW) is found.standing(second.secret, NOW) is Standing.GOOD
    ended = revoked(changed, NOW)
    store.put(ended)
    assert store.get(key.key_id) == ended
    assert store.keys() == ([ended], [])


def test_signing_key_keeps_its_secrets(store: ApiKeys) -> None:
    """Signatures are checked with them."""
    key, _ = issue("photo app", [Scope.ENROL], now=NOW, signing=True)
    store.put(key)
    changed, _ = rotated(key, now=NOW, grace=timedelta(hours=1))
    store.put(changed)
    assert store.get(key.key_id) == changed


def test_keys_are_listed_oldest_first(store: ApiKeys) -> None:
    """Whatever their ids."""
    keys = [make_key(f"client {number}", later=number) for number in range(5)]
    for key in reversed(keys):
        store.put(key)
    assert store.keys() == (keys, [])


def test_second_of_two_concurrent_changes_is_refused(store: ApiKeys) -> None:
    """So that a rotation cannot undo a revocation."""
    key = make_key()
    store.put(key)
    store.put(revoked(key, NOW))
    with pytest.raises(FacerecError, match="try again"):
        store.put(rotated(key, now=NOW, grace=timedelta(0))[0])
    with pytest.raises(FacerecError, match="try again"):
        store.put(replace(key, name="another of the same id"))
    found = store.get(key.key_id)
    assert found is not None
    assert found.revoked_at == NOW


def test_one_of_many_concurrent_changes_succeeds(store: ApiKeys) -> None:
    """One of many concurrent changes succeeds."""
    key = make_key()
    store.put(key)

    def rename(number: int) -> bool:
        try:
            store.put(replace(key, name=str(number), revision=2))
        except FacerecError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(rename, range(4))) == 1


def damage(store: ApiKeys, key_id: str) -> None:
    """Make the record of an id unreadable."""
    if isinstance(store, InMemoryApiKeys):
        store.damaged.add(key_id)
    elif isinstance(store, DynamoApiKeys):
        item = {"kind": {"S": "api-key"}, "item": {"S": key_id}, "record": {"S": '{"hash": "abc"}'}}
        store._table.put(item)


def test_damaged_key_raises(store: ApiKeys) -> None:
    """Without the content of the record."""
    damage(store, "0123456789ab")
    with pytest.raises(ApiKeyUnreadable, match="0123456789ab cannot be read") as caught:
        store.get("0123456789ab")
    assert "abc" not in str(caught.value).replace("0123456789ab", "")


def test_damaged_key_does_not_hide_others(store: ApiKeys) -> None:
    """The list names it."""
    good, lost, older = make_key(later=1), make_key(), make_key()
    for key in (good, lost, older):
        store.put(key)
    damage(store, lost.key_id)
    damage(store, "0123456789ab")
    keys, unreadable = store.keys()
    assert keys == [older, good]
    assert {str(problem) for problem in unreadable} == {
        f"API key {key_id} cannot be read: it is damaged, or of a later version"
        for key_id in (lost.key_id, "0123456789ab")
    }


def test_missing_table_says_what_to_do(ministack_clients: Clients) -> None:
    """`facerec provision`."""
    store = DynamoApiKeys(ministack_clients, "no-such-table")
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.get("0123456789ab"),
        store.keys,
        lambda: store.put(make_key()),
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match="facerec provision"):
            call()
