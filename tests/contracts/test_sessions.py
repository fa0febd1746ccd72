"""One suite for every store of sessions: memory, and DynamoDB in ministack and in moto."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from facerec.api_keys import Scope, hashed, issue
from facerec.aws.clients import Clients
from facerec.aws.dynamodb.sessions import DynamoSessions
from facerec.ports import Sessions
from facerec.provision import provisioning
from facerec.session_records import begin_session
from tests.fakes.sessions import InMemorySessions
from tests.support.logs import capture_logs

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
KEY, KEY_TOKEN = issue("desk", [Scope.ADMIN], now=NOW)


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> Sessions:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemorySessions()
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    return DynamoSessions(clients, make_table(clients))


def make_table(clients: Clients) -> str:
    """A table of people of the test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "PEOPLE_TABLE", name, ("kind", "item"))
    return name


def test_session_keeps_every_field_until_it_is_removed(store: Sessions) -> None:
    """And another session stays; a removal may be repeated."""
    first, _ = begin_session(KEY_TOKEN, now=NOW, length=timedelta(hours=12))
    other, _ = begin_session(KEY_TOKEN, now=NOW, length=timedelta(minutes=90))
    assert store.get(first.token_hash) is None
    store.add(first)
    store.add(other)
    assert store.get(first.token_hash) == first
    for _ in range(2):
        store.remove(first.token_hash)
        assert store.get(first.token_hash) is None
    assert store.get(other.token_hash) == other


def test_item_of_a_session_lets_no_reader_sign_in(moto_clients: Clients) -> None:
    """It has neither the token, nor the key's secret, nor the stored hash of the secret; DynamoDB removes it."""
    table = make_table(moto_clients)
    session, token = begin_session(KEY_TOKEN, now=NOW, length=timedelta(hours=12))
    DynamoSessions(moto_clients, table).add(session)
    (item,) = moto_clients.dynamodb.scan(TableName=table)["Items"]
    for secret in (token, KEY_TOKEN.secret, hashed(KEY_TOKEN.secret)):
        assert secret not in json.dumps(item)
    assert int(item["expires_at"]["N"]) == int(session.expires_at.timestamp())


def test_session_that_this_version_cannot_read_is_none(moto_clients: Clients) -> None:
    """Its browser signs in again; the others do not notice."""
    table = make_table(moto_clients)
    store = DynamoSessions(moto_clients, table)
    session, _ = begin_session(KEY_TOKEN, now=NOW, length=timedelta(hours=12))
    damaged = replace(session, token_hash="0" * 64)
    store.add(session)
    store.add(damaged)
    key = {"kind": {"S": "session"}, "item": {"S": damaged.token_hash}}
    moto_clients.dynamodb.put_item(TableName=table, Item=key)
    with capture_logs() as lines:
        assert store.get(damaged.token_hash) is None
    assert [line["event"] for line in lines] == ["session_unreadable"]
    assert store.get(session.token_hash) == session
