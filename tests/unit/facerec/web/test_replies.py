"""The words for clients that the uploads' own tests do not meet."""

from uuid import UUID

import pytest

from facerec.web import replies
from facerec.web.admission import Refusal, RefusalCause

REQUEST = UUID("11111111-2222-4333-8444-555555555555")


@pytest.mark.parametrize("cause", list(RefusalCause))
def test_refusal_says_when_to_try_again(cause: RefusalCause) -> None:
    """In the header for programs, in the text for people."""
    reply = replies.refused(Refusal(cause, 7))
    assert (reply.status, reply.retry_after_seconds, reply.outcome) == (503, 7, cause)
    assert reply.text.endswith("again in 7 seconds")
    assert replies.refused(Refusal(cause, 1)).text.endswith("again in 1 second")


@pytest.mark.parametrize("reply", [replies.late(REQUEST, 179.5), replies.stopping(REQUEST)])
def test_reply_without_a_result_has_its_address(reply: replies.Reply) -> None:
    """Reply without a result has its address."""
    assert reply.status == 504
    assert reply.text.endswith(f"/api/v1/results/{REQUEST}")


def test_limits_are_written_in_megabytes() -> None:
    """Limits are written in megabytes."""
    assert "at most 15 MB" in replies.too_large(15_000_000).text
    assert "at most 0.5 MB" in replies.too_large(500_000).text
