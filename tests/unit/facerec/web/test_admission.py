"""Overload is refused early, and only on evidence."""

import pytest

from facerec.web.admission import DEFAULT_RETRY_SECONDS, Admission, Refusal, RefusalCause


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A fresh clock."""
    return Clock()


def admission(clock: Clock, *, max_waiting: int = 250, waiting: int = 0) -> Admission:
    """An admission with so many waiting already."""
    subject = Admission(max_waiting=max_waiting, wait_seconds=180, clock=clock)
    for _ in range(waiting):
        assert subject.enter() is None
    return subject


def complete(subject: Admission, clock: Clock, *, every_seconds: float, count: int) -> None:
    """Answers at a steady pace, each at once followed by the next upload, so that the number waiting stays."""
    for _ in range(count):
        clock.now += every_seconds
        subject.leave(answered=True)
        assert subject.enter() is None


def test_admission_holds_a_burst_while_no_rate_is_known(clock: Clock) -> None:
    """The first burst of a fleet that boots from zero is not refused."""
    subject = admission(clock, waiting=100)
    clock.now += 170
    assert subject.enter() is None
    assert subject.waiting == 101


def test_admission_refuses_when_full_until_a_place_is_free(clock: Clock) -> None:
    """Admission refuses when full until a place is free."""
    subject = admission(clock, max_waiting=2, waiting=2)
    assert subject.enter() == Refusal(RefusalCause.FULL, DEFAULT_RETRY_SECONDS)
    subject.leave(answered=False)
    assert subject.enter() is None


def test_admission_refuses_what_a_slow_fleet_cannot_answer_in_time(clock: Clock) -> None:
    """At one answer in 4 s the 101st would wait 404 s, and the wait is 180 s."""
    subject = admission(clock, waiting=30)
    complete(subject, clock, every_seconds=2, count=12)
    for _ in range(70):
        if subject.enter() is not None:
            break
    assert 85 <= subject.waiting <= 90  # 0.5 per second for 180 s
    refusal = subject.enter()
    assert refusal is not None
    assert refusal.cause is RefusalCause.SLOW
    assert 1 <= refusal.retry_after_seconds <= 10


def test_admission_refuses_nothing_with_a_quick_fleet(clock: Clock) -> None:
    """At ten answers a second 250 fit easily."""
    subject = admission(clock, waiting=249)
    complete(subject, clock, every_seconds=0.1, count=200)
    assert subject.enter() is None


def test_admission_ignores_the_rate_of_a_quiet_hour(clock: Clock) -> None:
    """Single uploads say nothing about what many at once would take."""
    subject = admission(clock, waiting=1)
    complete(subject, clock, every_seconds=2, count=15)
    for _ in range(200):
        assert subject.enter() is None


def test_admission_forgets_old_answers(clock: Clock) -> None:
    """A fleet that was slow a minute ago may have grown."""
    subject = admission(clock, waiting=120)
    complete(subject, clock, every_seconds=1, count=12)
    clock.now += 60
    assert subject.enter() is None


def test_admission_counts_the_time_since_the_last_answer(clock: Clock) -> None:
    """The rate of a fleet that has stopped falls by the second."""
    subject = admission(clock, waiting=150)
    complete(subject, clock, every_seconds=0.5, count=15)
    assert subject.enter() is None
    clock.now += 15
    refusal = subject.enter()
    assert refusal is not None
    assert refusal.cause is RefusalCause.SLOW


def test_admission_does_not_count_timed_out_uploads_as_answers(clock: Clock) -> None:
    """Admission does not count timed out uploads as answers."""
    subject = admission(clock, waiting=130)
    complete(subject, clock, every_seconds=1, count=12)
    for _ in range(50):
        subject.leave(answered=False)
    complete(subject, clock, every_seconds=2, count=5)
    assert any(subject.enter() is not None for _ in range(60))


def test_admission_retry_time_follows_the_rate(clock: Clock) -> None:
    """A place is free when the next answer comes."""
    subject = admission(clock, max_waiting=21, waiting=20)
    complete(subject, clock, every_seconds=2, count=12)
    assert subject.enter() is None
    refusal = subject.enter()
    assert refusal is not None
    assert refusal.cause is RefusalCause.FULL
    assert refusal.retry_after_seconds in {2, 3}


def test_admission_refuses_everything_once_closed(clock: Clock) -> None:
    """Also when there is room."""
    subject = admission(clock)
    subject.close()
    refusal = subject.enter()
    assert refusal is not None
    assert refusal.cause is RefusalCause.STOPPING
