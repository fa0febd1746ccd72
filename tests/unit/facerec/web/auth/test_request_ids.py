"""Who may read the result of a request, by its id alone."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from facerec.api_keys import ApiKey, Scope, issue, rotated
from facerec.web.auth.request_ids import may_read, new_request_id

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def make_key(*scopes: Scope) -> ApiKey:
    """A key of its own id."""
    return issue("kiosk", scopes or [Scope.RECOGNISE], now=NOW)[0]


def test_request_id_belongs_to_the_key_that_asked() -> None:
    """And to no other of the same scope; `admin` reads all."""
    keys = [make_key(Scope.RECOGNISE, Scope.ENROL) for _ in range(20)]
    ids = [new_request_id(key) for key in keys]
    readable = [(reader, owner) for reader in range(20) for owner in range(20) if may_read(keys[reader], ids[owner])]
    assert readable == [(number, number) for number in range(20)]
    assert all(may_read(make_key(Scope.ADMIN), request_id) for request_id in ids)


def test_request_id_belongs_to_a_key_after_its_rotation() -> None:
    """The id of the key stays."""
    key = make_key()
    changed, _ = rotated(key, now=NOW, grace=timedelta(0))
    assert may_read(changed, new_request_id(key))
    assert may_read(key, new_request_id(changed))


def test_request_id_of_open_mode_is_for_admin_once_keys_are_needed() -> None:
    """And for all while none are."""
    request_id = new_request_id(None)
    assert may_read(None, request_id)
    assert may_read(None, new_request_id(make_key()))
    assert not may_read(make_key(), request_id)
    assert may_read(make_key(Scope.ADMIN), request_id)


def test_request_id_changes_with_any_part() -> None:
    """An id with another beginning or end belongs to another key or to none."""
    key = make_key()
    made = new_request_id(key)
    assert not any(may_read(key, UUID(int=made.int ^ (1 << bit))) for bit in range(128))


def test_request_ids_are_random_uuids() -> None:
    """Clients may check the version."""
    key = make_key()
    ids = {new_request_id(key) for _ in range(1000)}
    assert len(ids) == len({request_id.bytes[:10] for request_id in ids}) == 1000
    assert {(request_id.version, request_id.variant) for request_id in ids} == {(4, uuid4().variant)}
