"""That a client holds a key: it presents the key, or has signed the request with its secret."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from botocore.credentials import ReadOnlyCredentials

from facerec.api_keys import ApiKey, Standing, Token, is_key_id, parse_token
from facerec.aws.signature import SignatureRefused, SignatureStale, SignedRequest, access_key_of, check_signature
from facerec.session_records import Session

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """That a client holds a key."""

    key_id: str | None
    """`None` if it cannot be one of ours."""
    check: Callable[[ApiKey, datetime], Standing]
    proof: str
    """`key`, `signature` or `session`."""
    hint: str
    """What the client should check if the proof is wrong."""
    guessed: bool = True
    """Whether a wrong proof may be a guess; not that of a session that exists."""


def presented_claim(environ: "WSGIEnvironment") -> Claim | None:
    """Return the claim of a key that the client sent, or None; `x-api-key` counts first."""
    sent: str = environ.get("HTTP_X_API_KEY", "").strip()
    bearer = _BEARER.fullmatch(environ.get("HTTP_AUTHORIZATION", "").strip())
    text = sent or (bearer[1] if bearer else None)
    if text is None:
        return None
    return claim_of(parse_token(text))


def claim_of(token: Token | None) -> Claim:
    """Return the claim of a presented key; None is a text that is no key."""
    hint = "check that it was copied whole"
    if token is None:
        return Claim(None, lambda _key, _now: Standing.WRONG, "key", hint)
    return Claim(token.key_id, lambda key, now: key.standing(token.secret, now), "key", hint)


def claim_of_session(session: Session | None, token: str) -> Claim:
    """Return the claim of a browser with this token; None is a session that does not exist."""
    hint = "sign in again"
    if session is None:
        return Claim(None, lambda _key, _now: Standing.WRONG, "session", hint)
    return Claim(session.key_id, lambda key, now: session.standing(token, key, now), "session", hint, guessed=False)


def signed_claim(environ: "WSGIEnvironment", service: str) -> Claim | None:
    """Return the claim of a signature, or None without one."""
    access_key = access_key_of(environ.get("HTTP_AUTHORIZATION", ""))
    if access_key is None:
        return None
    signed = cache(lambda: _signed_request(environ))  # read if there is such a key, and once for both its secrets

    def check(key: ApiKey, now: datetime) -> Standing:
        stale = False

        def signed_by(secret: str) -> bool:
            nonlocal stale
            credentials = ReadOnlyCredentials(key.key_id, secret, None)
            try:
                check_signature(credentials, signed(), service=service, now=now)
            except SignatureStale:
                stale = True
            except SignatureRefused:
                return False
            return True

        standing = key.standing_of_signature(signed_by, now)
        return Standing.STALE if stale and standing is Standing.GOOD else standing

    hint = "check the secret access key, and that no proxy changes the header Host, the path or the body"
    return Claim(access_key if is_key_id(access_key) else None, check, "signature", hint)


def _signed_request(environ: "WSGIEnvironment") -> SignedRequest:
    """Read what a signature covers, the body block by block."""
    names = {"CONTENT_TYPE", "CONTENT_LENGTH"}
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in names
    }
    body, digest = environ["wsgi.input"], hashlib.sha256()
    start = body.tell()
    while block := body.read(_BLOCK_BYTES):
        digest.update(block)
    body.seek(start)
    return SignedRequest(environ["REQUEST_METHOD"], environ.get("REQUEST_URI", "/"), headers, digest.hexdigest())
