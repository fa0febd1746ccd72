"""The valve before the receives, with a clock that the test sets."""

import threading
from typing import Any, cast

import pytest

from facerec.celery_sqs.consumer_gate import Intake
from facerec.celery_sqs.visibility import VisibilityKeeper


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """The intake's clock."""
    return Clock()


@pytest.fixture
def intake(clock: Clock) -> Intake:
    """An open intake."""
    return Intake(monotonic=clock)


def test_a_closed_intake_begins_nothing_until_it_is_opened(intake: Intake) -> None:
    """An open one is never quiet: something may come at any moment."""
    assert not intake.quiet
    intake.close()
    assert not intake.begin("receiver")
    assert intake.quiet
    intake.open()
    assert not intake.quiet
    assert intake.begin("receiver")


def test_it_is_quiet_when_the_last_open_receive_has_ended(intake: Intake) -> None:
    """Those of other receivers count, too; to end one twice, as a closing channel does, is no error."""
    assert intake.begin("one")
    assert intake.begin("other")
    intake.close()
    intake.end("one")
    intake.end("one")
    assert not intake.quiet
    intake.end("other")
    assert intake.quiet


def test_it_is_not_quiet_while_a_message_is_held(intake: Intake) -> None:
    """Until SQS has been told how it ended."""
    keeper = VisibilityKeeper(cast("Any", None), 3000)
    intake.watch(keeper)
    intake.close()
    keeper.hold("receipt", "queue")
    assert not intake.quiet
    keeper.release("receipt")
    assert intake.quiet
    keeper.stop()


def test_an_empty_receive_is_followed_by_a_consultation(intake: Intake, clock: Clock) -> None:
    """The next receive waits for its end, and for a quarter of a second at most."""
    asked: list[float] = []

    def adviser() -> bool:
        asked.append(clock.seconds)
        return True

    intake.consult(adviser)
    assert intake.begin("receiver")
    intake.end("receiver", empty=True)
    assert asked == [100.0]
    assert not intake.begin("receiver")
    intake.go_on()
    assert intake.begin("receiver")
    intake.end("receiver", empty=True)
    clock.seconds += 0.3
    assert intake.begin("receiver")


def test_nobody_waits_for_an_adviser_that_does_not_answer_or_while_tasks_come(intake: Intake) -> None:
    """A busy worker is never held up."""
    intake.consult(lambda: False)
    intake.end("receiver", empty=True)
    assert intake.begin("receiver")
    intake.consult(lambda: pytest.fail("not to be asked"))
    intake.end("receiver")
    assert intake.begin("receiver")


def test_one_rests_while_tasks_are_taken(intake: Intake) -> None:
    """And not a moment in a worker that drains."""
    assert intake.rest(0.001)
    intake.close()
    assert not intake.rest(600)
    intake.open()
    assert intake.rest(0.001)


@pytest.mark.parametrize("end", ["close", "leave"])
def test_who_rests_is_woken(intake: Intake, end: str) -> None:
    """When no more tasks are taken, or the process is to end."""
    rested: list[bool] = []
    resting = threading.Thread(target=lambda: rested.append(intake.rest(600)))
    resting.start()
    getattr(intake, end)()
    resting.join(30)
    assert rested == [False]


def test_a_process_that_is_to_end_begins_nothing(intake: Intake) -> None:
    """What it gives back is for others."""
    intake.leave()
    assert not intake.begin("receiver")


def test_who_gives_back_may_ask_for_open_receives(intake: Intake) -> None:
    """One would take it again."""
    assert intake.begin("one")
    assert (intake.receives("one"), intake.receives("other")) == (True, False)
    intake.end("one")
    assert not intake.receives("one")
