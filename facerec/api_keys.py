"""API keys: made, parsed and checked. Pure except for the source of random bits.

A key is shown once, as `frk_<id>_<secret>`. The id is public: keys are logged, listed and found by it. Only the
SHA-256 of the secret is stored. A slow hash (argon2, bcrypt) protects passwords that can be guessed; 256 random bits
cannot be guessed, so it would only make each request slow and the server easy to overload.

A signing key never leaves its client: it signs requests as AWS's access keys do. Its secret is stored as it is, because
a signature can be checked only with it (`docs/adr/0038-rekognition.md`).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
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
    STALE = "stale"
    """Of a right signature: it was made too long ago, or by a clock that is ahead."""


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
    """SHA-256 of the secret, in hex; empty for a signing key, so that its secret cannot be presented."""
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
    signing_secret: str | None = field(default=None, repr=False)
    """The secret of a signing key."""
    former_signing_secret: str | None = field(default=None, repr=False)
    """That before the last rotation, good until `former_until`."""

    @property
    def signs(self) -> bool:
        """Whether it is a signing key."""
        return self.signing_secret is not None

    def allows(self, scope: Scope) -> bool:
        """Whether the key has the scope; `admin` has them all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def standing(self, secret: str, now: datetime) -> Standing:
        """Check a presented secret; a wrong one is `WRONG` in every state of the key."""
        presented = hashed(secret)
        return self.standing_of_hash(lambda known: hmac.compare_digest(presented, known), now)

    def standing_of_hash(self, is_presented: Callable[[str], bool], now: datetime) -> Standing:
        """Check a secret by its hash; `is_presented` says whether a stored hash is that of the secret.

        It is not asked about a key without one: a signing key is `WRONG`.
        """
        current = bool(self.secret_hash) and is_presented(self.secret_hash)
        former = self.former_hash is not None and is_presented(self.former_hash)
        return self._standing(now, former=not current) if current or former else Standing.WRONG

    def standing_of_signature(self, signed_by: Callable[[str], bool], now: datetime) -> Standing:
        """Check a signature; `signed_by` says whether a secret made it. One of another secret is `WRONG`."""
        current = self.signing_secret is not None and signed_by(self.signing_secret)
        former = self.former_signing_secret is not None and not current and signed_by(self.former_signing_secret)
        return self._standing(now, former=former) if current or former else Standing.WRONG

    def _standing(self, now: datetime, *, former: bool) -> Standing:
        if self.revoked_at is not None:
            return Standing.REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return Standing.EXPIRED
        if former and self.former_until is not None and now >= self.former_until:
            return Standing.EXPIRED
        return Standing.GOOD


def is_key_id(text: str) -> bool:
    """Whether a text has the form of a key's id."""
    return re.fullmatch(r"[0-9a-f]{12}", text) is not None


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
    signing: bool = False,
) -> tuple[ApiKey, Token]:
    """Make a new key, which signs requests or is presented.

    Raises `FacerecError` for a name that is not one printable line, or without a scope.
    """
    name = name.strip()
    if not 1 <= len(name) <= _NAME_LENGTH or not name.isprintable():
        raise FacerecError("a key's name has 1 to 100 characters in one line: give the name of the client")
    chosen = tuple(scope for scope in Scope if scope in set(scopes))
    if not chosen:
        raise FacerecError("a key needs a scope: recognise, enrol or admin")
    token = Token(secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES))
    expires_at = None if expires_in is None else now + expires_in
    key = ApiKey(token.key_id, name, chosen, "", now, expires_at, collection=collection)
    return _with_secret(key, token, signing=signing), token


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
        former_hash=key.secret_hash or None,
        former_signing_secret=key.signing_secret,
        former_until=now + grace,
        revision=key.revision + 1,
    )
    return _with_secret(changed, token, signing=key.signs), token


def _with_secret(key: ApiKey, token: Token, *, signing: bool) -> ApiKey:
    return replace(key, signing_secret=token.secret) if signing else replace(key, secret_hash=hashed(token.secret))


def hashed(secret: str) -> str:
    """Return the hash of a secret, as it is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()
