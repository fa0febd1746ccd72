"""Rate limits: how they are written, what they let through, what a refused client is told, and what they remember."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.errors import ConfigurationError
from facerec.settings import Settings
from facerec.settings.values import Rate, parse_rate
from facerec.web.auth.rate_limit import RateLimiter, client_network
from tests.fakes.clock import Clock

TEN = Rate(10, 60)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("6000/minute", Rate(6000, 60)), ("1/second", Rate(1, 1)), ("5/hour", Rate(5, 3600)), ("", None)],
)
def test_a_rate_is_a_number_for_a_unit(text: str, rate: Rate | None) -> None:
    """Nothing is no limit."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["0/minute", "ten/minute", "10/fortnight", "10", "-1/second", " 10/minute", "1e3/hour"]
)
def test_a_wrong_rate_ends_the_start_with_an_example(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its variable."""
    monkeypatch.setenv("FACEREC_WEB__RATE_LIMIT", text)
    with pytest.raises(ConfigurationError, match="FACEREC_WEB__RATE_LIMIT: write it like 6000/minute"):
        Settings.load()


def test_so_many_come_at_once_and_then_one_after_the_other() -> None:
    """Each client for itself."""
    clock = Clock()
    limiter = RateLimiter(TEN, clock=clock)
    assert [limiter.take("a") for _ in range(12)] == [0] * 10 + [6, 6]
    assert limiter.take("b") == 0
    clock.now += 5.9
    assert limiter.take("a") == 1
    clock.now += 0.1
    assert limiter.take("a") == 0
    assert limiter.take("a") == 6


def test_asking_is_free() -> None:
    """The answer is that of a visit."""
    limiter = RateLimiter(TEN, clock=Clock())
    assert [limiter.wait_seconds("a") for _ in range(50)] == [0] * 50
    for _ in range(10):
        limiter.take("a")
    assert limiter.wait_seconds("a") == limiter.take("a") == 6


@given(
    rate=st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 3600])),
    steps=st.lists(st.floats(0, 10), max_size=60),
)
def test_never_more_than_the_rate_and_the_wait_is_as_long_as_told(rate: Rate, steps: list[float]) -> None:
    """Within any time at most a full bucket and what has flowed into it; after the wait there is room."""
    clock, came = Clock(), 0
    limiter = RateLimiter(rate, clock=clock)
    started = clock.now
    for step in steps:
        clock.now += step
        wait = limiter.take("a")
        came += wait == 0
        if wait:
            refused_at = clock.now
            clock.now += wait
            assert limiter.wait_seconds("a") == 0
            clock.now = refused_at
    assert came <= rate.count + (clock.now - started) * rate.count / rate.seconds + 1e-6


def test_without_a_rate_everyone_may_come() -> None:
    """And nothing is remembered."""
    limiter = RateLimiter(None)
    assert {limiter.take("a") for _ in range(1000)} == {0}
    assert len(limiter) == 0


def test_memory_does_not_grow_with_clients() -> None:
    """Those that come often are not forgotten for those that came once."""
    limiter = RateLimiter(TEN, max_clients=100, clock=Clock())
    for number in range(1_000):
        limiter.take(f"client {number}")
        limiter.take("busy")
    assert len(limiter) == 100
    assert limiter.take("busy") > 0


def test_threads_do_not_come_twice_for_one() -> None:
    """Whoever is quicker."""
    limiter = RateLimiter(Rate(500, 3600), clock=Clock())
    with ThreadPoolExecutor(8) as threads:
        assert sum(wait == 0 for wait in threads.map(lambda _: limiter.take("a"), range(1_000))) == 500


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("203.0.113.7:443", "unknown"),
        ("<script>", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_client_is_its_address_or_its_network(address: str | None, client: str) -> None:
    """Whoever has IPv6 has more addresses than anybody could count."""
    assert client_network(address) == client
