"""Sessions of the pages: how they are bound to a browser's token and to the secret of a key."""

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from facerec.api_keys import Scope, Standing, issue, revoked, rotated
from facerec.session_records import begin_session, csrf_token_of, is_session_token, token_hash

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY, SECRET = issue("desk", [Scope.ADMIN], now=NOW, expires_in=timedelta(days=1))
SESSION, TOKEN = begin_session(SECRET, now=NOW, length=12 * HOUR)


def test_session_is_good_with_its_token_and_its_key_until_its_end() -> None:
    """With another token or key it is wrong."""
    assert SESSION.token_hash == hashlib.sha256(TOKEN.encode()).hexdigest() == token_hash(TOKEN)
    assert SESSION.standing(TOKEN, KEY, NOW) is Standing.GOOD
    assert SESSION.standing(TOKEN, KEY, NOW + 12 * HOUR) is Standing.EXPIRED
    other, _ = issue("other", [Scope.ADMIN], now=NOW)
    assert SESSION.standing(TOKEN, other, NOW) is Standing.WRONG
    assert SESSION.standing("A" * 43, KEY, NOW) is Standing.WRONG


def test_session_ends_with_its_key() -> None:
    """Revoked, expired, or rotated: the former secret's sessions last for the grace, and no longer."""
    assert SESSION.standing(TOKEN, revoked(KEY, NOW), NOW) is Standing.REVOKED
    assert SESSION.standing(TOKEN, replace(KEY, expires_at=NOW + HOUR), NOW + HOUR) is Standing.EXPIRED
    once, new = rotated(KEY, now=NOW, grace=HOUR)
    assert SESSION.standing(TOKEN, once, NOW + HOUR / 2) is Standing.GOOD
    assert SESSION.standing(TOKEN, once, NOW + HOUR) is Standing.EXPIRED
    assert SESSION.standing(TOKEN, rotated(once, now=NOW, grace=HOUR)[0], NOW) is Standing.WRONG
    session, token = begin_session(new, now=NOW, length=12 * HOUR)
    assert session.standing(token, once, NOW + 2 * HOUR) is Standing.GOOD


def test_forged_session_is_wrong() -> None:
    """Of a key that signs the stored hash is empty, which a forger knows; of another key only a session's proof."""
    signing, _ = issue("aws", [Scope.ADMIN], now=NOW, signing=True)
    of_empty = hmac.new(TOKEN.encode(), b"key ", hashlib.sha256).hexdigest()
    assert replace(SESSION, proof=of_empty).standing(TOKEN, signing, NOW) is Standing.WRONG
    _, own = begin_session(SECRET, now=NOW, length=HOUR)
    assert replace(SESSION, token_hash=token_hash(own)).standing(own, KEY, NOW) is Standing.WRONG


def test_tokens_are_random_and_hidden() -> None:
    """A log or a traceback shows neither hash nor proof."""
    sessions = [begin_session(SECRET, now=NOW, length=HOUR) for _ in range(100)]
    assert len({token for _, token in sessions}) == 100
    assert all(is_session_token(token) and len(token) == 43 for _, token in sessions)
    assert len({session.proof for session, _ in sessions}) == 100
    assert SESSION.token_hash not in repr(SESSION)
    assert SESSION.proof not in repr(SESSION)


@given(st.text())
def test_csrf_token_belongs_to_one_session(text: str) -> None:
    """And is none of its other hashes."""
    assert csrf_token_of(TOKEN) not in {SESSION.token_hash, SESSION.proof}
    assert text == TOKEN or csrf_token_of(text) != csrf_token_of(TOKEN)
