"""The keys that a web process has read: kept for a while, and through an outage of the store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from facerec.api_keys import ApiKey, Scope, issue, revoked
from facerec.errors import Transient
from facerec.web.auth import store_cache
from facerec.web.auth.store_cache import KeyCache
from tests.fakes.api_keys import HangingApiKeys, InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.support.logs import capture_logs

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = issue("kiosk", [Scope.RECOGNISE], now=NOW)[0]
OTHER = issue("other", [Scope.ADMIN], now=NOW)[0]


@pytest.fixture
def store() -> InMemoryApiKeys:
    """A store with one key."""
    return InMemoryApiKeys(KEY)


@pytest.fixture
def clock() -> Clock:
    """The cache's clock."""
    return Clock()


@pytest.fixture
def cache(store: InMemoryApiKeys, clock: Clock) -> KeyCache:
    """An empty cache."""
    return KeyCache(store, clock=clock)


def test_key_is_read_once_in_half_a_minute(store: InMemoryApiKeys, clock: Clock, cache: KeyCache) -> None:
    """However often it is asked for."""
    for _ in range(100):
        assert cache.find(KEY.key_id) == KEY
    assert store.reads == [KEY.key_id]
    clock.now += 30
    assert cache.find(KEY.key_id) == KEY
    assert len(store.reads) == 2


def test_key_revocation_arrives_within_half_a_minute(store: InMemoryApiKeys, clock: Clock, cache: KeyCache) -> None:
    """And so does a rotation."""
    assert cache.find(KEY.key_id) == KEY
    ended = revoked(KEY, NOW)
    store.put(ended)
    clock.now += 30
    assert cache.find(KEY.key_id) == ended


def test_unknown_id_is_looked_up_once_in_ten_seconds(store: InMemoryApiKeys, clock: Clock, cache: KeyCache) -> None:
    """A key that is created meanwhile works then."""
    for _ in range(100):
        assert cache.find(OTHER.key_id) is None
    assert len(store.reads) == 1
    assert not cache.knows(OTHER.key_id)
    store.put(OTHER)
    clock.now += 10
    assert cache.find(OTHER.key_id) == OTHER
    assert cache.knows(OTHER.key_id)


def test_invented_ids_evict_only_each_other(store: InMemoryApiKeys, cache: KeyCache) -> None:
    """Their number is bounded."""
    cache.find(KEY.key_id)
    for number in range(store_cache.MAX_ABSENT + 50):
        assert cache.find(f"{number:012x}") is None
    assert len(cache._absent) == store_cache.MAX_ABSENT
    reads = len(store.reads)
    assert cache.find(KEY.key_id) == KEY
    assert len(store.reads) == reads


def test_known_keys_work_through_an_outage_and_unknown_ones_do_not(
    store: InMemoryApiKeys, clock: Clock, cache: KeyCache
) -> None:
    """For ten minutes; meanwhile the store is asked now and then, and the outage is logged once."""
    with capture_logs() as logs:
        cache.find(KEY.key_id)
        store.outage = Transient("no route")
        for _ in range(100):
            clock.now += 5.9
            assert cache.find(KEY.key_id) == KEY
            with pytest.raises(Transient):
                cache.find(OTHER.key_id)
        assert len(store.reads) < 150
        clock.now += 11
        with pytest.raises(Transient):
            cache.find(KEY.key_id)
        store.outage = None
        clock.now += 2
        assert cache.find(KEY.key_id) == KEY
    assert [line["event"] for line in logs] == ["api_keys_unreachable", "api_keys_reachable_again"]


def test_hanging_store_does_not_hold_the_other_requests_for_a_key(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for the running reading, then use what is known, or fail."""
    monkeypatch.setattr(store_cache, "WAIT_SECONDS", 0.01)
    store = HangingApiKeys(KEY)
    store.release.set()
    cache = KeyCache(store, clock=clock)
    assert cache.find(KEY.key_id) == KEY
    store.release.clear()
    clock.now += store_cache.FRESH_SECONDS
    with ThreadPoolExecutor(2) as threads:
        readings = [threads.submit(cache.find, key.key_id) for key in (KEY, OTHER)]
        while len(cache._readings) < len(readings):
            threading.Event().wait(0.001)
        assert cache.find(KEY.key_id) == KEY
        with pytest.raises(Transient):
            cache.find(OTHER.key_id)
        store.release.set()
        assert [reading.result(30) for reading in readings] == [KEY, None]


def test_hundred_new_keys_are_read_at_once() -> None:
    """A process that has just started meets all its clients at once, and a store that takes its time."""
    keys = [issue(f"client {number}", [Scope.RECOGNISE], now=NOW)[0] for number in range(100)]

    class Slow(InMemoryApiKeys):
        def get(self, key_id: str) -> ApiKey | None:
            threading.Event().wait(0.05)
            return super().get(key_id)

    store = Slow(*keys)
    cache = KeyCache(store)
    with ThreadPoolExecutor(len(keys)) as threads:
        assert list(threads.map(lambda key: cache.find(key.key_id), keys)) == keys
    assert len(store.reads) == len(keys)


def test_concurrent_requests_for_one_key_share_a_reading() -> None:
    """One of them reads, and all get the key."""
    store = HangingApiKeys(KEY)
    cache = KeyCache(store)
    with ThreadPoolExecutor(20) as threads:
        found = [threads.submit(cache.find, KEY.key_id) for _ in range(20)]
        store.release.set()
        assert {one.result(30) for one in found} == {KEY}
    assert store.reads == [KEY.key_id]


def test_unreadable_record_does_not_affect_other_keys(store: InMemoryApiKeys, clock: Clock, cache: KeyCache) -> None:
    """It is not read all the time, and works once it is repaired."""
    store.put(OTHER)
    store.damaged.add(KEY.key_id)
    for _ in range(3):
        with pytest.raises(Transient, match="later version"):
            cache.find(KEY.key_id)
    assert cache.find(OTHER.key_id) == OTHER
    assert len(store.reads) == 2
    store.damaged.clear()
    clock.now += store_cache.ABSENT_SECONDS
    assert cache.find(KEY.key_id) == KEY


def test_fault_in_the_store_is_an_outage(store: InMemoryApiKeys, cache: KeyCache) -> None:
    """It lets no request in."""
    store.outage = KeyError("x")
    with pytest.raises(Transient):
        cache.find(KEY.key_id)


def test_forgotten_record_is_gone_also_if_it_is_being_read() -> None:
    """A sign-out on this process is over when it returns."""
    store = HangingApiKeys(KEY)
    cache = KeyCache(store)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(cache.find, KEY.key_id)
        while not cache._readings:
            threading.Event().wait(0.001)
        cache.forget(KEY.key_id)
        store.release.set()
        assert reading.result(30) == KEY
    assert cache.find(KEY.key_id) is None
    assert len(store.reads) == 1
