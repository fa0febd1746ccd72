"""How a task that did not end well looks to the queue and to Flower."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject

from facerec.errors import Transient
from tasks.recognise import PutAside, Request, recognise


class Eventer:
    """Notes what Flower hears."""

    enabled = True

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """An event."""
        self._happened.append(f"{type} {fields['exception']}" if "exception" in fields else type)


def ended(exc: BaseException) -> list[str]:
    """What happens when the task ends with this, in order."""
    happened: list[str] = []
    request = Request(
        SimpleNamespace(delivery_info={}, properties={}),
        on_ack=lambda *_: happened.append("deleted"),
        on_reject=lambda *_: happened.append("given back"),
        eventer=Eventer(happened),
        app=recognise.app,
        task=recognise,
        headers={"id": "u", "task": recognise.name},
        body=([], {}, {}),
        decoded=True,
    )
    request.on_failure(SimpleNamespace(exception=exc, traceback="…", exc_info=None), return_ok=True)
    return happened


def test_what_was_put_aside_is_deleted_and_shown_as_failed() -> None:
    """With its reason: it waits in the dead-letter queue."""
    assert ended(PutAside("no request")) == ["deleted", "task-failed PutAside('no request')"]


@pytest.mark.parametrize("exc", [Transient("away"), RuntimeError("a bug")])
def test_what_is_delivered_again_is_shown_as_retried(exc: Exception) -> None:
    """Last of all, so that this is the state that stays."""
    assert ended(exc) == ["given back", "task-rejected", f"task-retried {exc!r}"]


def test_a_lack_of_memory_gives_the_message_back() -> None:
    """Celery alone would neither delete it nor give it back, and its place would be lost."""
    assert ended(MemoryError())[:2] == ["given back", "task-rejected"]


def test_a_rejection_is_celerys_own() -> None:
    """It is no failure."""
    assert ended(Reject("interrupted", requeue=True)) == ["given back", "task-rejected"]
