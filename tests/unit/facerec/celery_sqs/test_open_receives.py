"""Receives of several queues, open at once."""

import threading
from collections.abc import Iterator, Sequence
from queue import Queue

import pytest

from facerec.celery_sqs.open_receives import OpenReceives

TIMEOUT_SECONDS = 30


class Queues:
    """Two queues whose receives end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self._answers: dict[str, Queue[Sequence[str]]] = {name: Queue() for name in ("a", "b")}

    def receive(self, queue: str, most: int) -> Sequence[str]:
        """Wait for the answer."""
        self.asked.append((queue, most))
        return self._answers[queue].get(timeout=TIMEOUT_SECONDS)

    def answer(self, queue: str, *messages: str) -> None:
        """End a receive that is open, or the next one."""
        self._answers[queue].put(messages)


@pytest.fixture
def queues() -> Queues:
    """Without messages."""
    return Queues()


@pytest.fixture
def receives(queues: Queues) -> Iterator[OpenReceives[str]]:
    """From these queues."""
    receives = OpenReceives(queues.receive)
    yield receives
    for name in ("a", "b"):
        queues.answer(name)
    receives.stop()


def test_message_of_a_queue_does_not_wait_for_the_other(queues: Queues, receives: OpenReceives[str]) -> None:
    """Whose receive stays open, and is not opened a second time."""
    receives.begin(["a", "b"], 10)
    queues.answer("b", "1", "2")
    assert receives.answered(TIMEOUT_SECONDS) == [("b", "1"), ("b", "2")]
    receives.begin(["a", "b"], 3)
    queues.answer("b")
    assert receives.answered(TIMEOUT_SECONDS) == []
    assert sorted(queues.asked) == [("a", 10), ("b", 3), ("b", 10)]
    assert len(receives) == 1


def test_answered_waits_no_longer_than_it_is_told(queues: Queues, receives: OpenReceives[str]) -> None:
    """Celery's loop has other things to do; without a receive there is nothing to wait for."""
    assert receives.answered(None) == []
    receives.begin(["a"], 1)
    assert receives.answered(0) == []
    queues.answer("a", "1")
    assert receives.answered(None) == [("a", "1")]


def test_stop_waits_for_the_open_receives(queues: Queues, receives: OpenReceives[str]) -> None:
    """What they bring is in flight by then, and can be given back."""
    receives.begin(["a", "b"], 1)
    queues.answer("a", "1")
    stopping = threading.Thread(target=receives.stop)
    stopping.start()
    assert receives_open(stopping)
    queues.answer("b")
    stopping.join(TIMEOUT_SECONDS)
    assert not stopping.is_alive()
    assert receives.answered(0) == []


def receives_open(stopping: threading.Thread) -> bool:
    """Whether the thread still waits after a moment."""
    stopping.join(0.05)
    return stopping.is_alive()
