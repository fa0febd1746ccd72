"""`facerec keys` on a store in memory."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from facerec import bootstrap
from facerec.api_keys import Scope, Standing, issue, parse_token
from facerec.callbacks import owner_secret
from facerec.commands.keys import command
from facerec.errors import FacerecError
from facerec.job_records import OPEN_OWNER
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.collections import InMemoryCollections


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> InMemoryApiKeys:
    """Where the commands keep the keys."""
    keys = InMemoryApiKeys()
    monkeypatch.setattr(bootstrap, "api_keys", lambda settings: keys)
    return keys


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> InMemoryCollections:
    """Where the commands keep the collections."""
    records = InMemoryCollections()
    monkeypatch.setattr(bootstrap, "collections", lambda settings: records)
    return records


def run(*arguments: str, status: int = 0) -> Result:
    """Run `facerec keys …`."""
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == status, result.output
    return result


def create_key(*options: str) -> dict[str, Any]:
    """A key as `create --json` prints it."""
    printed: dict[str, Any] = json.loads(run("create", "front desk", "--json", *options).stdout)
    return printed


def test_create_prints_only_the_key_on_standard_output(store: InMemoryApiKeys) -> None:
    """It can be piped; the store does not have it."""
    result = run("create", "front desk", "--scope", "recognise")
    token = parse_token(result.stdout.strip())
    assert token is not None
    assert "front desk (recognise)" in result.stderr
    (key,) = store.keys().keys
    assert (key.key_id, key.name, key.scopes, key.expires_at) == (token.key_id, "front desk", (Scope.RECOGNISE,), None)
    assert key.standing(token.secret, datetime.now(UTC)) is Standing.GOOD
    assert token.secret not in run("list").stdout + run("list", "--json").stdout


def test_create_takes_scopes_and_an_expiry(store: InMemoryApiKeys) -> None:
    """They are printed as JSON."""
    printed = create_key("--scope", "enrol", "--scope", "recognise", "--expires-in", "90d")
    assert printed["scopes"] == ["recognise", "enrol"]
    created, expires = (datetime.fromisoformat(printed[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=90)
    assert parse_token(printed["key"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x"), "--scope"),
        (("create", "x", "--scope", "everything"), "recognise"),
        (("create", "x", "--scope", "admin", "--expires-in", "soon"), "90d"),
        (("create", "x", "--scope", "admin", "--expires-in", "999999d"), "ten years"),
        (("create", "x", "--scope", "admin", "--expires-in", "0d"), "90d"),
        (("rotate", "0123456789ab", "--grace", "-1h"), "24h"),
    ],
)
def test_create_with_a_mistake_says_the_right_way(
    store: InMemoryApiKeys, arguments: tuple[str, ...], said: str
) -> None:
    """No key is stored."""
    assert said in run(*arguments, status=2).stderr
    assert store.keys() == ([], [])


def test_list_has_the_state_of_each_key(store: InMemoryApiKeys) -> None:
    """And its id, which the other commands take."""
    assert "facerec keys create" in run("list").stderr
    good = create_key("--scope", "recognise")
    ended = create_key("--scope", "admin", "--expires-in", "1m")
    changing = create_key("--scope", "recognise")
    expired = issue("old", [Scope.ENROL], now=datetime.now(UTC) - timedelta(days=2), expires_in=timedelta(days=1))[0]
    store.put(expired)
    run("revoke", ended["id"])
    run("rotate", changing["id"])
    states = {row["id"]: row["state"] for row in json.loads(run("list", "--json").stdout)}
    wanted = {good["id"]: "good", ended["id"]: "revoked", changing["id"]: "rotating", expired.key_id: "expired"}
    assert states == wanted
    lines = run("list").stdout.splitlines()
    assert all(any(key in line and state in line for line in lines) for key, state in wanted.items())
    assert "never" in next(line for line in lines if good["id"] in line)


def test_list_names_an_unreadable_key_and_shows_the_others(store: InMemoryApiKeys) -> None:
    """The name is on stderr; the list on stdout stays valid JSON."""
    good, lost = create_key("--scope", "recognise")["id"], create_key("--scope", "recognise")["id"]
    store.damaged.add(lost)
    for options in ((), ("--json",)):
        result = run("list", *options)
        assert good in result.stdout
        assert lost not in result.stdout
        assert f"API key {lost} cannot be read" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert [row["id"] for row in json.loads(run("list", "--json").stdout)] == [good]
    store.damaged.add(good)
    assert "There are no keys" not in run("list").stderr


def test_rotate_keeps_the_old_secret_for_the_grace(store: InMemoryApiKeys) -> None:
    """One day by default."""
    old = parse_token(create_key("--scope", "recognise")["key"])
    assert old is not None
    result = run("rotate", old.key_id)
    new = parse_token(result.stdout.strip())
    assert new is not None
    assert "works until" in result.stderr
    (key,) = store.keys().keys
    now = datetime.now(UTC)
    assert key.standing(old.secret, now) is key.standing(new.secret, now) is Standing.GOOD
    assert key.standing(old.secret, now + timedelta(days=1)) is Standing.EXPIRED
    run("rotate", old.key_id, "--grace", "0m")
    (key,) = store.keys().keys
    assert key.standing(new.secret, datetime.now(UTC)) is Standing.EXPIRED


def test_revoke_twice_keeps_the_first_time(store: InMemoryApiKeys) -> None:
    """Revoking it again is not an error; rotating it is."""
    key_id = create_key("--scope", "recognise")["id"]
    for _ in range(2):
        assert "is revoked" in run("revoke", key_id).stdout
    with pytest.raises(FacerecError, match="facerec keys create"):
        CliRunner().invoke(command, ["rotate", key_id], catch_exceptions=False)


def test_unknown_id_is_not_printed(store: InMemoryApiKeys) -> None:
    """People paste whole keys, and output may end up in logs."""
    key = create_key("--scope", "recognise")["key"]
    for verb in ("revoke", "rotate"):
        for text in (key, "0123456789ab"):
            with pytest.raises(FacerecError, match="facerec keys list") as caught:
                CliRunner().invoke(command, [verb, text], catch_exceptions=False)
            assert text not in str(caught.value)


def test_create_with_aws_prints_credentials_that_only_sign(store: InMemoryApiKeys) -> None:
    """As the AWS CLI reads them; no later command shows the secret, and the secret itself is no key."""
    result = run("create", "photo app", "--aws", "--scope", "enrol")
    printed = dict(line.split(" = ") for line in result.stdout.splitlines())
    secret = printed["aws_secret_access_key"]
    (key,) = store.keys().keys
    assert printed == {"aws_access_key_id": key.key_id, "aws_secret_access_key": secret}
    assert key.standing_of_signature(lambda known: known == secret, datetime.now(UTC)) is Standing.GOOD
    assert key.standing(secret, datetime.now(UTC)) is Standing.WRONG
    listed = run("list").stdout + run("list", "--json").stdout
    assert secret not in listed + repr(key)
    assert json.loads(run("list", "--json").stdout)[0]["kind"] == "aws"
    rotated = json.loads(run("rotate", key.key_id, "--json").stdout)
    assert rotated["aws_access_key_id"] == key.key_id
    assert rotated["aws_secret_access_key"] != secret


def test_collection_of_a_key_is_the_operators(store: InMemoryApiKeys, collections: InMemoryCollections) -> None:
    """No client can create it later, and have it."""
    create_key("--scope", "enrol", "--collection", "staff")
    record = collections.get("staff")
    assert record is not None
    assert record.owner is None


def test_callback_secret_is_that_of_the_key(store: InMemoryApiKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key has another; without the setting there are none."""
    key_id = create_key("--scope", "recognise")["id"]
    assert "FACEREC_CALLBACKS__SECRET" in str(run("callback-secret", key_id, status=1).exception)
    monkeypatch.setenv("FACEREC_CALLBACKS__SECRET", "a secret of sixteen or more")
    assert run("callback-secret", key_id).stdout.strip() == owner_secret("a secret of sixteen or more", key_id)
    assert run("callback-secret", "open").stdout.strip() == owner_secret("a secret of sixteen or more", OPEN_OWNER)
    assert "no key with this id" in str(run("callback-secret", "0" * 12, status=1).exception)
