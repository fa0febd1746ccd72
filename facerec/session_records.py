"""Sessions of the pages: a browser that signed in with an API key. Pure except for the source of random bits.

The browser keeps a token, which is not stored. A session is found by the token's SHA-256. Its `proof` is made with the
token and the stored hash of the key's secret. So a reader of the stored sessions cannot sign in with one, and a writer,
such as a worker, cannot make one for a key: only the table of keys has that hash.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from facerec.api_keys import ApiKey, Standing, Token, hashed

_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """A session as it is stored; times are UTC."""

    token_hash: str = field(repr=False)
    """SHA-256 of the browser's token, in hex."""
    key_id: str
    proof: str = field(repr=False)
    created_at: datetime
    expires_at: datetime

    def standing(self, token: str, key: ApiKey, now: datetime) -> Standing:
        """Check the session and its key; `WRONG` if the key has no longer the secret with which the session began."""
        if now >= self.expires_at:
            return Standing.EXPIRED
        return key.standing_of_hash(lambda known: hmac.compare_digest(self.proof, _proof(token, known)), now)


def begin_session(key: Token, *, now: datetime, length: timedelta) -> tuple[Session, str]:
    """Return a new session of a presented key, and its token."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    proof = _proof(token, hashed(key.secret))
    return Session(token_hash(token), key.key_id, proof, now, now + length), token


def is_session_token(text: str) -> bool:
    """Whether a text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> str:
    """Return the hash by which a session is found."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token_of(token: str) -> str:
    """Return what the pages of a session send to show that a request is theirs; it does not reveal the token."""
    return _mac(token, "csrf")


def _proof(token: str, secret_hash: str) -> str:
    return _mac(token, f"key {secret_hash}")


def _mac(token: str, text: str) -> str:
    return hmac.new(token.encode(), text.encode(), hashlib.sha256).hexdigest()
