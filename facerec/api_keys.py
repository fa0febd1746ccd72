"""API keys: made, parsed and checked. Pure except for the source of random bits.

A key is shown once, as `frk_<id>_<secret>`. The id is public: keys are logged, listed and found by it. Only the
SHA-256 of the secret is stored. A slow hash (argon2, bcrypt) protects passwords that can be guessed; 256 random bits
cannot be guessed, so it would only make each request slow and the server easy to overload.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from facerec.errors import FacerecError

_SECRET_BYTES = 32
_WRITTEN = re.compile(r"frk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_NAME_LENGTH = 100


class Scope(StrEnum):
    """What a key allows."""

    RECOGNISE = "recognise"
    """Upload photos and read results."""
    ENROL = "enrol"
    """Change the gallery."""
    ADMIN = "admin"
    """Everything, also information about the system."""


class Standing(StrEnum):
    """The state of a presented key, apart from its scopes."""

    GOOD = "good"
    WRONG = "wrong"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """A key as a client presents it; its representation hides the secret."""

    key_id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """Return the whole key, to show it once."""
        return f"frk_{self.key_id}_{self.secret}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored; times are UTC."""

    key_id: str
    name: str
    """The client, for people."""
    scopes: tuple[Scope, ...]
    secret_hash: str = field(repr=False)
    """SHA-256 of the secret, in hex."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    former_hash: str | None = field(default=None, repr=False)
    """SHA-256 of the secret before the last rotation, good until `former_until`."""
    former_until: datetime | None = None
    revision: int = 1
    """Every change increments it, so that of two concurrent changes one fails."""
    collection: str = "default"
    """The collection that its requests use; with scope `admin` they may name any other."""

    def allows(self, scope: Scope) -> bool:
        """Whether the key has the scope; `admin` has them all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def standing(self, secret: str, now: datetime) -> Standing:
        """Check a presented secret; a wrong one is `WRONG` in every state of the key."""
        hashed = _hashed(secret)
        current = hmac.compare_digest(hashed, self.secret_hash)
        former = hmac.compare_digest(hashed, self.former_hash or self.secret_hash)
        if not (current or former):
            return Standing.WRONG
        if self.revoked_at is not None:
            return Standing.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return Standing.EXPIRED
        if not current and self.former_until is not None and now >= self.former_until:
            return Standing.EXPIRED
        return Standing.GOOD


def parse_token(text: str) -> Token | None:
    """Parse a presented key; `None` if it has another form."""
    found = _WRITTEN.fullmatch(text)
    return None if found is None else Token(found[1], found[2])


def issue(
    name: str,
    scopes: Iterable[Scope],
    *,
    now: datetime,
    expires_in: timedelta | None = None,
    collection: str = "default",
) -> tuple[ApiKey, Token]:
    """Make a new key; raises `FacerecError` for a name that is not one printable line, or without a scope."""
    name = name.strip()
    if not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        raise FacerecError("a key's name has 1 to 100 characters in one line: give the name of the client")
    chosen = tuple(scope for scope in Scope if scope in set(scopes))
    if not chosen:
        raise FacerecError("a key needs a scope: recognise, enrol or admin")
    token = Token(secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES))
    expires_at = None if expires_in is None else now + expires_in
    return ApiKey(token.key_id, name, chosen, _hashed(token.secret), now, expires_at, collection=collection), token


def revoked(key: ApiKey, now: datetime) -> ApiKey:
    """Return the key as revoked."""
    return replace(key, revoked_at=key.revoked_at or now, revision=key.revision + 1)


def rotated(key: ApiKey, *, now: datetime, grace: timedelta) -> tuple[ApiKey, Token]:
    """Return the key with a new secret; the old one is good for `grace`. Raises `FacerecError` for an ended key."""
    if key.revoked_at is not None:
        raise FacerecError(f"key {key.key_id} ({key.name}) has been revoked: make a new one with `facerec keys create`")
    if key.expires_at is not None and now >= key.expires_at:
        raise FacerecError(f"key {key.key_id} ({key.name}) has expired: make a new one with `facerec keys create`")
    token = Token(key.key_id, secrets.token_urlsafe(_SECRET_BYTES))
    changed = replace(
        key,
        secret_hash=_hashed(token.secret),
        former_hash=key.secret_hash,
        former_until=now + grace,
        revision=key.revision + 1,
    )
    return changed, token


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
