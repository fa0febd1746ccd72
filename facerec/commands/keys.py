"""`facerec keys`: the API keys of the web tier's clients."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from facerec import bootstrap
from facerec.api_keys import ApiKey, Scope, Token, is_key_id, issue, revoked, rotated
from facerec.callbacks import owner_secret
from facerec.commands.terminal import Duration, json_option, print_columns
from facerec.echo import echo, echo_json
from facerec.errors import FacerecError
from facerec.gallery.names import valid_collection
from facerec.job_records import OPEN_OWNER
from facerec.message_base import DEFAULT_COLLECTION
from facerec.ports import CollectionRecord
from facerec.settings import Settings
from facerec.unknown_records import ALERT_OWNER

if TYPE_CHECKING:
    from facerec.ports import ApiKeys


@click.group("keys")
def command() -> None:
    """Make, list, rotate and revoke the API keys of the web tier's clients.

    \b
    Examples:
      facerec keys create "front desk" --scope recognise --expires-in 90d
      facerec keys create importer --scope recognise --scope enrol --collection staff --json
      facerec keys create "photo app" --aws --scope recognise --scope enrol
      facerec keys list
      facerec keys rotate 0123456789ab --grace 24h
      facerec keys revoke 0123456789ab
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="What the key allows; may be repeated. `admin` includes all.",
)
@click.option("--expires-in", type=Duration(), help="As 90d; without it the key does not expire.")
@click.option(
    "--collection",
    default=DEFAULT_COLLECTION,
    show_default=True,
    help="The collection of the key's requests. With scope admin they may name others.",
)
@click.option(
    "--aws",
    is_flag=True,
    help="A pair of AWS credentials, for clients of Rekognition: they sign their requests, and present no key.",
)
@json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    expires_in: timedelta | None,
    collection: str,
    *,
    aws: bool,
    as_json: bool,
) -> None:
    """Make a key for the client NAME and show it, once."""
    if expires_in == timedelta():
        raise click.BadParameter("the key would end at once: write 30m, 24h or 90d", param_hint="--expires-in")
    key, token = issue(
        name,
        [Scope(scope) for scope in scopes],
        now=datetime.now(UTC),
        expires_in=expires_in,
        collection=valid_collection(collection),
        signing=aws,
    )
    settings = Settings.load()
    if key.collection != DEFAULT_COLLECTION:
        # So that no other client can create it, and have it.
        bootstrap.collections(settings).create(CollectionRecord(key.collection, None, key.created_at))
    bootstrap.api_keys(settings).put(key)
    _show(key, token, as_json=as_json)


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List all keys, without their secrets; times are UTC. Keys whose record is unreadable are named on stderr."""
    keys, unreadable = _store().keys()
    for problem in unreadable:
        echo(str(problem), err=True)
    now = datetime.now(UTC)
    if as_json:
        echo_json([_json_object(key, now) for key in keys])
    elif keys:
        rows = [
            (key.key_id, key.name, _kind(key), ", ".join(key.scopes), key.collection, _state(key, now), *_times(key))
            for key in keys
        ]
        print_columns(
            [("id", "name", "kind", "scopes", "collection", "state", "created (UTC)", "expires (UTC)"), *rows]
        )
    elif not unreadable:
        echo("There are no keys: `facerec keys create NAME --scope recognise`.", err=True)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Revoke the key ID; running web processes refuse it within half a minute."""
    store = _store()
    key = _found(store, key_id)
    if key.revoked_at is None:
        store.put(revoked(key, datetime.now(UTC)))
    echo(f"Key {key.key_id} ({key.name}) is revoked.")


@command.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace", type=Duration(), default="24h", show_default=True, help="How long the old secret works; 0m ends it."
)
@json_option
def rotate(key_id: str, grace: timedelta, *, as_json: bool) -> None:
    """Give the key ID a new secret and show it, once; a secret older than the last one ends at once."""
    store = _store()
    changed, token = rotated(_found(store, key_id), now=datetime.now(UTC), grace=grace)
    store.put(changed)
    _show(changed, token, as_json=as_json)


@command.command("callback-secret")
@click.argument("key_id", metavar="ID|open|unknown")
def callback_secret(key_id: str) -> None:
    """Show the secret with which callbacks to the client of the key ID are signed; `open` in open mode.

    `unknown` is the secret of the alerts about unknown people.

    It stays the same when the key is rotated. It changes with FACEREC_CALLBACKS__SECRET.
    """
    settings = Settings.load()
    if settings.callbacks.secret is None:
        raise FacerecError("there are no callbacks: set FACEREC_CALLBACKS__SECRET, here and for the web tier")
    owner = key_id if key_id in {OPEN_OWNER, ALERT_OWNER} else _found(_store(), key_id).key_id
    echo(owner_secret(settings.callbacks.secret.get_secret_value(), owner))


def _store() -> "ApiKeys":
    return bootstrap.api_keys(Settings.load())


def _found(store: "ApiKeys", key_id: str) -> ApiKey:
    key = store.get(key_id) if is_key_id(key_id) else None
    if key is None:
        # The message does not repeat it: it may be a whole key, and end up in a log.
        raise FacerecError(
            "there is no key with this id: `facerec keys list` shows them; it is the middle part of a key"
        )
    return key


def _show(key: ApiKey, token: Token, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    pair = {"aws_access_key_id": token.key_id, "aws_secret_access_key": token.secret}
    shown = pair if key.signs else {"key": token.reveal()}
    if as_json:
        echo_json(_json_object(key, now) | shown)
        return
    echo(f"The key of {key.name} ({', '.join(key.scopes)}); it is shown only this once:", err=True)
    for line in [f"{name} = {text}" for name, text in pair.items()] if key.signs else [token.reveal()]:
        echo(line)
    if key.former_until is not None:
        echo(f"The old one works until {_when(key.former_until)} UTC.", err=True)


def _kind(key: ApiKey) -> str:
    return "aws" if key.signs else "key"


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and now >= key.expires_at:
        return "expired"
    return "rotating" if key.former_until is not None and now < key.former_until else "good"


def _json_object(key: ApiKey, now: datetime) -> dict[str, object]:
    times = ("created_at", "expires_at", "revoked_at", "former_until")
    return {
        "id": key.key_id,
        "name": key.name,
        "kind": _kind(key),
        "scopes": list(key.scopes),
        "collection": key.collection,
        "state": _state(key, now),
    } | {name: None if (at := getattr(key, name)) is None else at.isoformat() for name in times}


def _times(key: ApiKey) -> tuple[str, str]:
    return _when(key.created_at), "never" if key.expires_at is None else _when(key.expires_at)


def _when(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
