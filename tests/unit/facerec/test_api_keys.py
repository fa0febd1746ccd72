"""API keys: how they are made, presented, rotated and ended."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.api_keys import ApiKey, Scope, Standing, Token, issue, parse_token, revoked, rotated
from facerec.errors import FacerecError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def made(expires_in: timedelta | None = None) -> tuple[ApiKey, Token]:
    """A key for recognition."""
    return issue("kiosk", [Scope.RECOGNISE], now=NOW, expires_in=expires_in)


def test_a_key_is_read_as_it_was_shown() -> None:
    """And works."""
    key, token = made()
    assert parse_token(token.reveal()) == token
    assert key.standing(token.secret, NOW) is Standing.GOOD


def test_no_two_are_alike_and_each_has_256_random_bits() -> None:
    """43 characters of base64 are 32 bytes."""
    tokens = [made()[1] for _ in range(100)]
    assert len({token.key_id for token in tokens}) == len({token.secret for token in tokens}) == 100
    assert {len(token.secret) for token in tokens} == {43}


def test_the_secret_is_neither_kept_nor_printed() -> None:
    """Not in what is stored, nor in what a log or a traceback would show of either."""
    key, token = made()
    assert token.secret not in repr(token) + str(token) + repr(key)
    assert all(token.secret not in str(getattr(key, name)) for name in key.__slots__)
    assert key.secret_hash not in repr(key)


@given(st.text() | st.from_regex(r"frk_[0-9a-f]{10,14}_.{41,45}", fullmatch=True))
def test_anything_else_is_no_key(text: str) -> None:
    """And whatever passes can be shown again as it came."""
    token = parse_token(text)
    assert token is None or token.reveal() == text


def test_a_wrong_secret_learns_nothing() -> None:
    """Not even that the key has ended."""
    key, _ = made(HOUR)
    for ended in (key, revoked(key, NOW)):
        assert ended.standing("x" * 43, NOW + 2 * HOUR) is Standing.WRONG
        assert ended.standing("", NOW) is Standing.WRONG


def test_a_key_ends_at_its_time() -> None:
    """Not a moment later."""
    key, token = made(HOUR)
    assert key.standing(token.secret, NOW + HOUR - timedelta(microseconds=1)) is Standing.GOOD
    assert key.standing(token.secret, NOW + HOUR) is Standing.EXPIRED


def test_a_revoked_key_is_good_for_nothing() -> None:
    """Revoking it again keeps the first time."""
    key, token = made()
    ended = revoked(key, NOW)
    assert ended.standing(token.secret, NOW) is Standing.REVOKED
    assert revoked(ended, NOW + HOUR).revoked_at == NOW


def test_after_a_rotation_both_secrets_work_until_the_grace_is_over() -> None:
    """Then only the new one."""
    key, old = made()
    changed, new = rotated(key, now=NOW, grace=HOUR)
    assert old.key_id == new.key_id
    assert changed.standing(old.secret, NOW + HOUR - timedelta(seconds=1)) is Standing.GOOD
    assert changed.standing(old.secret, NOW + HOUR) is Standing.EXPIRED
    assert changed.standing(new.secret, NOW + 2 * HOUR) is Standing.GOOD


def test_a_second_rotation_ends_the_oldest_secret() -> None:
    """Two secrets are enough."""
    key, oldest = made()
    once, old = rotated(key, now=NOW, grace=HOUR)
    twice, new = rotated(once, now=NOW, grace=HOUR)
    standings = [twice.standing(token.secret, NOW) for token in (oldest, old, new)]
    assert standings == [Standing.WRONG, Standing.GOOD, Standing.GOOD]


def test_what_has_ended_is_not_rotated() -> None:
    """The error says what to do instead."""
    key, _ = made(HOUR)
    for ended, at in ((revoked(key, NOW), NOW), (key, NOW + HOUR)):
        with pytest.raises(FacerecError, match="facerec keys create"):
            rotated(ended, now=at, grace=HOUR)


def test_admin_includes_every_scope() -> None:
    """The others include nothing."""
    key, _ = made()
    assert [scope for scope in Scope if key.allows(scope)] == [Scope.RECOGNISE]
    assert all(replace(key, scopes=(Scope.ADMIN,)).allows(scope) for scope in Scope)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x1b[31m", "a\u202eb"])
def test_a_name_is_a_line_that_can_be_listed(name: str) -> None:
    """Names are printed on terminals."""
    with pytest.raises(FacerecError, match="name"):
        issue(name, [Scope.ENROL], now=NOW)


def test_a_key_without_a_scope_is_refused() -> None:
    """It would be good for nothing."""
    with pytest.raises(FacerecError, match="scope"):
        issue("kiosk", [], now=NOW)
