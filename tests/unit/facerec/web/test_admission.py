"""Overload is refused early, and only on evidence; clients share the places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.web.admission import DEFAULT_RETRY_SECONDS, Admission, Refusal, RefusalCause, all_places

CLIENT = "kiosk"


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
        assert subject.enter(CLIENT) is None
    return subject


def complete(subject: Admission, clock: Clock, *, every_seconds: float, count: int) -> None:
    """Answers at a steady pace, each at once followed by the next upload, so that the number waiting stays."""
    for _ in range(count):
        clock.now += every_seconds
        subject.leave(CLIENT, answered=True)
        assert subject.enter(CLIENT) is None


def test_admission_holds_a_burst_while_no_rate_is_known(clock: Clock) -> None:
    """The first burst of a fleet that boots from zero is not refused."""
    subject = admission(clock, waiting=100)
    clock.now += 170
    assert subject.enter(CLIENT) is None
    assert subject.waiting == 101


def test_admission_refuses_when_full_until_a_place_is_free(clock: Clock) -> None:
    """Admission refuses when full until a place is free."""
    subject = admission(clock, max_waiting=2, waiting=2)
    assert subject.enter(CLIENT) == Refusal(RefusalCause.FULL, DEFAULT_RETRY_SECONDS)
    subject.leave(CLIENT, answered=False)
    assert subject.enter(CLIENT) is None


def test_admission_refuses_what_a_slow_fleet_cannot_answer_in_time(clock: Clock) -> None:
    """At one answer in 4 s the 101st would wait 404 s, and the wait is 180 s."""
    subject = admission(clock, waiting=30)
    complete(subject, clock, every_seconds=2, count=12)
    for _ in range(70):
        if subject.enter(CLIENT) is not None:
            break
    assert 75 <= subject.waiting <= 81  # 0.5 per second for 180 s are 90, of which one client takes ten in eleven
    refusal = subject.enter(CLIENT)
    assert refusal is not None
    assert refusal.cause is RefusalCause.SLOW
    assert 1 <= refusal.retry_after_seconds <= 10


def test_admission_refuses_nothing_with_a_quick_fleet(clock: Clock) -> None:
    """At ten answers a second 250 fit easily."""
    subject = admission(clock, waiting=249)
    complete(subject, clock, every_seconds=0.1, count=200)
    assert subject.enter(CLIENT) is None


def test_admission_ignores_the_rate_of_a_quiet_hour(clock: Clock) -> None:
    """Single uploads say nothing about what many at once would take."""
    subject = admission(clock, waiting=1)
    complete(subject, clock, every_seconds=2, count=15)
    for _ in range(200):
        assert subject.enter(CLIENT) is None


def test_admission_forgets_old_answers(clock: Clock) -> None:
    """A fleet that was slow a minute ago may have grown."""
    subject = admission(clock, waiting=120)
    complete(subject, clock, every_seconds=1, count=12)
    clock.now += 60
    assert subject.enter(CLIENT) is None


def test_admission_counts_the_time_since_the_last_answer(clock: Clock) -> None:
    """The rate of a fleet that has stopped falls by the second."""
    subject = admission(clock, waiting=150)
    complete(subject, clock, every_seconds=0.5, count=15)
    assert subject.enter(CLIENT) is None
    clock.now += 15
    refusal = subject.enter(CLIENT)
    assert refusal is not None
    assert refusal.cause is RefusalCause.SLOW


def test_admission_does_not_count_timed_out_uploads_as_answers(clock: Clock) -> None:
    """Admission does not count timed out uploads as answers."""
    subject = admission(clock, waiting=130)
    complete(subject, clock, every_seconds=1, count=12)
    for _ in range(50):
        subject.leave(CLIENT, answered=False)
    complete(subject, clock, every_seconds=2, count=5)
    assert any(subject.enter(CLIENT) is not None for _ in range(60))


def test_admission_retry_time_follows_the_rate(clock: Clock) -> None:
    """A place is free when the next answer comes."""
    subject = admission(clock, max_waiting=21, waiting=20)
    complete(subject, clock, every_seconds=2, count=12)
    assert subject.enter(CLIENT) is None
    refusal = subject.enter(CLIENT)
    assert refusal is not None
    assert refusal.cause is RefusalCause.FULL
    assert refusal.retry_after_seconds in {2, 3}


def test_admission_refuses_everything_once_closed(clock: Clock) -> None:
    """Also when there is room."""
    subject = admission(clock)
    subject.close()
    refusal = subject.enter(CLIENT)
    assert refusal is not None
    assert refusal.cause is RefusalCause.STOPPING


def fill(subject: Admission, client: str) -> int:
    """Enter until there is a refusal; returns how many entered."""
    entered = 0
    while subject.enter(client) is None:
        entered += 1
    return entered


@given(st.integers(1, 5000))
def test_admission_gives_one_client_all_places_but_the_reserve(max_waiting: int) -> None:
    """The reserve has at least one place."""
    subject = Admission(max_waiting=max_waiting, wait_seconds=180)
    assert fill(subject, "a") == max_waiting
    assert subject.enter("b") is None
    assert subject.waiting < all_places(max_waiting) or max_waiting <= 10


def test_admission_gives_a_later_client_its_share(clock: Clock) -> None:
    """Though the first client asks for every place that becomes free, and asks first."""
    subject = admission(clock, max_waiting=12)
    assert fill(subject, "greedy") == 12
    assert fill(subject, "later") == 2
    for _ in range(4):
        subject.leave("greedy", answered=True)
        refused = subject.enter("greedy")
        assert refused == Refusal(RefusalCause.FULL, DEFAULT_RETRY_SECONDS)
        assert fill(subject, "later") == 1
        assert subject.waiting == 14
    # Both have their shares now. The reserve is kept for a third client.
    subject.leave("greedy", answered=True)
    assert [fill(subject, client) for client in ("greedy", "later", "third")] == [0, 0, 1]


def test_admission_serves_a_client_alone_again_when_the_others_have_left(clock: Clock) -> None:
    """A client that holds no place has no share."""
    subject = admission(clock, max_waiting=12)
    assert subject.enter("short") is None
    assert fill(subject, "steady") == 11
    subject.leave("short", answered=True)
    assert fill(subject, "steady") == 1
    for _ in range(12):
        subject.leave("steady", answered=False)
    assert subject.waiting == 0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200))
def test_admission_refuses_no_client_below_its_share_while_a_place_is_free(steps: list[tuple[str, bool]]) -> None:
    """Whatever the others do; and no client alone has more than `max_waiting`."""
    subject = Admission(max_waiting=10, wait_seconds=180)
    held = dict.fromkeys("abcde", 0)
    for client, enters in steps:
        if not enters:
            if held[client]:
                subject.leave(client, answered=False)
                held[client] -= 1
            continue
        clients = sum(count > 0 or name == client for name, count in held.items())
        refused = subject.enter(client) is not None
        held[client] += not refused
        assert not refused or held[client] >= 10 / clients or sum(held.values()) == 11
        assert max(held.values()) <= 10
        assert sum(held.values()) <= 11


def test_admission_shares_what_a_slow_fleet_can_answer_in_time(clock: Clock) -> None:
    """One client does not take all of it, long before the places are used up."""
    subject = admission(clock, waiting=30)
    complete(subject, clock, every_seconds=2, count=12)
    fill(subject, CLIENT)
    waiting = subject.waiting
    assert fill(subject, "later") == 90 - waiting > 5
