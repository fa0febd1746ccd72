"""Rate limits: their notation, what they allow, and what they keep in memory."""

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
def test_rate_is_a_number_for_a_unit(text: str, rate: Rate | None) -> None:
    """The empty text is no limit."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["0/minute", "ten/minute", "10/fortnight", "10", "-1/second", " 10/minute", "1e3/hour"]
)
def test_wrong_rate_ends_the_start_with_an_example(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong rate ends the start with an example."""
    monkeypatch.setenv("FACEREC_WEB__RATE_LIMIT", text)
    with pytest.raises(ConfigurationError, match="FACEREC_WEB__RATE_LIMIT: write it like 6000/minute"):
        Settings.load()


def test_limiter_allows_the_count_at_once_and_then_refills() -> None:
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


def test_limiter_wait_seconds_counts_nothing() -> None:
    """Limiter wait seconds counts nothing."""
    limiter = RateLimiter(TEN, clock=Clock())
    assert [limiter.wait_seconds("a") for _ in range(50)] == [0] * 50
    for _ in range(10):
        limiter.take("a")
    assert limiter.wait_seconds("a") == limiter.take("a") == 6


@given(
    rate=st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 3600])),
    steps=st.lists(st.floats(0, 10), max_size=60),
)
def test_limiter_never_exceeds_the_rate_and_its_wait_is_exact(rate: Rate, steps: list[float]) -> None:
    """In any period at most a full bucket and its refill; after the wait there is room."""
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


def test_limiter_without_a_rate_limits_nothing() -> None:
    """And remembers nothing."""
    limiter = RateLimiter(None)
    assert {limiter.take("a") for _ in range(1000)} == {0}
    assert len(limiter) == 0


def test_limiter_memory_does_not_grow_with_clients() -> None:
    """The least recent client is forgotten first."""
    limiter = RateLimiter(TEN, max_clients=100, clock=Clock())
    for number in range(1_000):
        limiter.take(f"client {number}")
        limiter.take("busy")
    assert len(limiter) == 100
    assert limiter.take("busy") > 0


def test_limiter_counts_concurrent_requests_once() -> None:
    """Limiter counts concurrent requests once."""
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
def test_client_is_its_address_or_its_network(address: str | None, client: str) -> None:
    """An IPv6 client has a whole network of addresses."""
    assert client_network(address) == client
