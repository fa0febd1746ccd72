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


def make_key(expires_in: timedelta | None = None) -> tuple[ApiKey, Token]:
    """A key for recognition."""
    return issue("kiosk", [Scope.RECOGNISE], now=NOW, expires_in=expires_in)


def test_key_is_parsed_as_it_was_shown() -> None:
    """It is good."""
    key, token = make_key()
    assert parse_token(token.reveal()) == token
    assert key.standing(token.secret, NOW) is Standing.GOOD


def test_each_key_has_256_random_bits() -> None:
    """43 characters of base64 are 32 bytes."""
    tokens = [make_key()[1] for _ in range(100)]
    assert len({token.key_id for token in tokens}) == len({token.secret for token in tokens}) == 100
    assert {len(token.secret) for token in tokens} == {43}


def test_secret_is_neither_stored_nor_printed() -> None:
    """A log or a traceback shows the representation of key and token."""
    key, token = make_key()
    assert token.secret not in repr(token) + str(token) + repr(key)
    assert all(token.secret not in str(getattr(key, name)) for name in key.__slots__)
    assert key.secret_hash not in repr(key)


@given(st.text() | st.from_regex(r"frk_[0-9a-f]{10,14}_.{41,45}", fullmatch=True))
def test_other_text_is_not_a_key(text: str) -> None:
    """A text that is accepted is shown again unchanged."""
    token = parse_token(text)
    assert token is None or token.reveal() == text


def test_wrong_secret_gets_no_other_state() -> None:
    """Also of a key that has ended."""
    key, _ = make_key(HOUR)
    for ended in (key, revoked(key, NOW)):
        assert ended.standing("x" * 43, NOW + 2 * HOUR) is Standing.WRONG
        assert ended.standing("", NOW) is Standing.WRONG


def test_key_expires_at_its_time() -> None:
    """At that moment."""
    key, token = make_key(HOUR)
    assert key.standing(token.secret, NOW + HOUR - timedelta(microseconds=1)) is Standing.GOOD
    assert key.standing(token.secret, NOW + HOUR) is Standing.EXPIRED


def test_revoked_key_stays_revoked() -> None:
    """Revoking it again keeps the first time."""
    key, token = make_key()
    ended = revoked(key, NOW)
    assert ended.standing(token.secret, NOW) is Standing.REVOKED
    assert revoked(ended, NOW + HOUR).revoked_at == NOW


def test_rotated_key_accepts_both_secrets_within_the_grace() -> None:
    """After it only the new one."""
    key, old = make_key()
    changed, new = rotated(key, now=NOW, grace=HOUR)
    assert old.key_id == new.key_id
    assert changed.standing(old.secret, NOW + HOUR - timedelta(seconds=1)) is Standing.GOOD
    assert changed.standing(old.secret, NOW + HOUR) is Standing.EXPIRED
    assert changed.standing(new.secret, NOW + 2 * HOUR) is Standing.GOOD


def test_second_rotation_ends_the_oldest_secret() -> None:
    """A key has two secrets at most."""
    key, oldest = make_key()
    once, old = rotated(key, now=NOW, grace=HOUR)
    twice, new = rotated(once, now=NOW, grace=HOUR)
    standings = [twice.standing(token.secret, NOW) for token in (oldest, old, new)]
    assert standings == [Standing.WRONG, Standing.GOOD, Standing.GOOD]


def test_ended_key_is_not_rotated() -> None:
    """The error says what to do instead."""
    key, _ = make_key(HOUR)
    for ended, at in ((revoked(key, NOW), NOW), (key, NOW + HOUR)):
        with pytest.raises(FacerecError, match="facerec keys create"):
            rotated(ended, now=at, grace=HOUR)


def test_admin_includes_every_scope() -> None:
    """The others include nothing."""
    key, _ = make_key()
    assert [scope for scope in Scope if key.allows(scope)] == [Scope.RECOGNISE]
    assert all(replace(key, scopes=(Scope.ADMIN,)).allows(scope) for scope in Scope)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x1b[31m", "a\u202eb"])
def test_key_name_must_be_one_printable_line(name: str) -> None:
    """Names are printed on terminals."""
    with pytest.raises(FacerecError, match="name"):
        issue(name, [Scope.ENROL], now=NOW)


def test_key_without_a_scope_is_refused() -> None:
    """It could do nothing."""
    with pytest.raises(FacerecError, match="scope"):
        issue("kiosk", [], now=NOW)


def test_signing_key_is_checked_by_its_signatures_alone() -> None:
    """As other keys it has two secrets within the grace, expires and can be revoked."""
    key, first = issue("photo app", [Scope.ENROL], now=NOW, expires_in=3 * HOUR, signing=True)
    changed, second = rotated(key, now=NOW, grace=HOUR)

    def standing(key: ApiKey, token: Token, at: datetime = NOW) -> Standing:
        return key.standing_of_signature(lambda secret: secret == token.secret, at)

    assert (key.signs, changed.signs, make_key()[0].signs) == (True, True, False)
    assert standing(key, first) is standing(changed, first) is standing(changed, second) is Standing.GOOD
    assert standing(key, second) is Standing.WRONG
    assert standing(changed, first, NOW + HOUR) is Standing.EXPIRED
    assert standing(changed, second, NOW + 3 * HOUR) is Standing.EXPIRED
    assert standing(revoked(changed, NOW), second) is Standing.REVOKED
    for token in (first, second):
        assert changed.standing(token.secret, NOW) is Standing.WRONG
        assert token.secret not in repr(changed)
    assert changed.standing("", NOW) is Standing.WRONG
