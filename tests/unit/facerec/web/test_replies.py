"""The words for clients that the uploads' own tests do not meet."""

from uuid import UUID

import pytest

from facerec.web import replies
from facerec.web.admission import Cause, Refusal

REQUEST = UUID("11111111-2222-4333-8444-555555555555")


@pytest.mark.parametrize("cause", list(Cause))
def test_a_refusal_says_when_to_try_again(cause: Cause) -> None:
    """In the header for programs, in the text for people."""
    reply = replies.refused(Refusal(cause, 7))
    assert (reply.status, reply.retry_after_seconds, reply.outcome) == (503, 7, cause)
    assert reply.text.endswith("again in 7 seconds")
    assert replies.refused(Refusal(cause, 1)).text.endswith("again in 1 second")


@pytest.mark.parametrize("reply", [replies.late(REQUEST, 179.5), replies.interrupted(REQUEST)])
def test_who_is_not_answered_gets_the_address(reply: replies.Reply) -> None:
    """504, and where the result will be."""
    assert reply.status == 504
    assert reply.text.endswith(f"/api/v1/results/{REQUEST}")


def test_limits_are_told_as_people_write_them() -> None:
    """Not in bytes."""
    assert "at most 15 MB" in replies.too_large(15_000_000).text
    assert "at most 0.5 MB" in replies.too_large(500_000).text
