"""The gate before the receives."""

import threading

import pytest

from facerec.celery_sqs.consumer_gate import ConsumerGate


class Holder:
    """Holds so many messages."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """As `InFlightMessages`."""
        return self.count


@pytest.fixture
def gate() -> ConsumerGate:
    """An open gate."""
    return ConsumerGate()


def test_paused_gate_begins_no_receive_until_it_is_resumed(gate: ConsumerGate) -> None:
    """An open one is never quiet: a message may come at any moment."""
    assert not gate.quiet
    gate.pause()
    assert not gate.begin_receive("queue")
    assert gate.quiet
    gate.resume()
    assert not gate.quiet
    assert gate.begin_receive("queue")


def test_gate_is_quiet_when_the_open_receives_have_ended(gate: ConsumerGate) -> None:
    """Those of all queues; ending one twice, as after a failure, is no error."""
    assert gate.begin_receive("queue")
    assert gate.begin_receive("other")
    gate.pause()
    for queue in ("queue", "queue", "other"):
        assert gate.receiving
        assert not gate.quiet
        gate.end_receive(queue)
    assert not gate.receiving
    assert gate.quiet


def test_gate_is_not_quiet_while_a_message_is_in_flight(gate: ConsumerGate) -> None:
    """Also one whose task has ended, until SQS has deleted it."""
    holder = Holder(1)
    gate.watch(holder)
    gate.pause()
    assert not gate.quiet
    holder.count = 0
    assert gate.quiet


def test_wait_while_open_ends_early_when_paused(gate: ConsumerGate) -> None:
    """A draining worker gives back at once what waits."""
    assert gate.wait_while_open(0.001)
    gate.pause()
    assert not gate.wait_while_open(600)
    gate.resume()
    assert gate.wait_while_open(0.001)


@pytest.mark.parametrize("end", ["pause", "leave"])
def test_wait_while_open_is_woken(gate: ConsumerGate, end: str) -> None:
    """By a pause, and by the end of the process."""
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(gate.wait_while_open(600)))
    waiting.start()
    getattr(gate, end)()
    waiting.join(30)
    assert ended == [False]


@pytest.mark.parametrize(("end", "opened"), [("resume", True), ("leave", False)])
def test_wait_until_open_is_woken(gate: ConsumerGate, end: str, *, opened: bool) -> None:
    """By a resume, and by the end of the process."""
    gate.pause()
    assert not gate.wait_until_open(0.001)
    ended: list[bool] = []
    waiting = threading.Thread(target=lambda: ended.append(gate.wait_until_open(600)))
    waiting.start()
    getattr(gate, end)()
    waiting.join(30)
    assert ended == [opened]


def test_leaving_process_begins_no_receive(gate: ConsumerGate) -> None:
    """What it gives back is for others."""
    gate.leave()
    assert not gate.begin_receive("queue")
    assert not gate.wait_until_open(600)
