"""The keys as a web process knows them: read once, kept through an outage, and never made up."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from facerec.api_keys import ApiKey, Scope, issue, revoked
from facerec.errors import Transient
from facerec.web.auth import key_cache
from facerec.web.auth.key_cache import UNREAD, KeyRing
from tests.fakes.api_keys import HangingApiKeys, InMemoryApiKeys
from tests.fakes.clock import Clock

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = issue("kiosk", [Scope.RECOGNISE], now=NOW)[0]
OTHER = issue("other", [Scope.ADMIN], now=NOW)[0]


@pytest.fixture
def store() -> InMemoryApiKeys:
    """A store with one key."""
    return InMemoryApiKeys(KEY)


@pytest.fixture
def clock() -> Clock:
    """The ring's clock."""
    return Clock()


@pytest.fixture
def ring(store: InMemoryApiKeys, clock: Clock) -> KeyRing:
    """A ring that knows nothing yet."""
    return KeyRing(store, clock=clock)


def test_a_key_is_read_once_in_half_a_minute(store: InMemoryApiKeys, clock: Clock, ring: KeyRing) -> None:
    """However often it comes."""
    for _ in range(100):
        assert ring.find(KEY.key_id) == KEY
        assert ring.peek(KEY.key_id) == KEY
    assert store.reads == [KEY.key_id]
    clock.now += 30
    assert ring.find(KEY.key_id) == KEY
    assert len(store.reads) == 2


def test_a_revocation_arrives_within_half_a_minute(store: InMemoryApiKeys, clock: Clock, ring: KeyRing) -> None:
    """And so does a rotation."""
    assert ring.find(KEY.key_id) == KEY
    ended = revoked(KEY, NOW)
    store.put(ended)
    clock.now += 30
    assert ring.find(KEY.key_id) == ended


def test_an_unknown_id_is_looked_for_once_in_ten_seconds(store: InMemoryApiKeys, clock: Clock, ring: KeyRing) -> None:
    """A key that is made meanwhile works then."""
    for _ in range(100):
        assert ring.find(OTHER.key_id) is None
    assert len(store.reads) == 1
    assert not ring.knows(OTHER.key_id)
    store.put(OTHER)
    clock.now += 10
    assert ring.find(OTHER.key_id) == OTHER
    assert ring.knows(OTHER.key_id)


def test_random_ids_fill_no_memory_and_push_no_key_out(store: InMemoryApiKeys, ring: KeyRing) -> None:
    """Only each other."""
    ring.find(KEY.key_id)
    for number in range(key_cache.MAX_ABSENT + 50):
        assert ring.find(f"{number:012x}") is None
    assert len(ring._absent) == key_cache.MAX_ABSENT
    reads = len(store.reads)
    assert ring.find(KEY.key_id) == KEY
    assert len(store.reads) == reads


def test_known_keys_work_through_an_outage_and_unknown_ones_do_not(
    store: InMemoryApiKeys, clock: Clock, ring: KeyRing
) -> None:
    """For ten minutes; meanwhile the store is asked now and then."""
    ring.find(KEY.key_id)
    store.outage = Transient("no route")
    for _ in range(100):
        clock.now += 5.9
        assert ring.find(KEY.key_id) == KEY
        with pytest.raises(Transient):
            ring.find(OTHER.key_id)
    assert len(store.reads) < 150
    clock.now += 11
    with pytest.raises(Transient):
        ring.find(KEY.key_id)
    store.outage = None
    clock.now += 2
    assert ring.find(KEY.key_id) == KEY


def test_a_store_that_hangs_holds_nobody_for_long(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first who waited in vain nobody waits, until the store is tried again."""
    monkeypatch.setattr(key_cache, "PATIENCE_SECONDS", 0.01)
    store = HangingApiKeys(KEY)
    ring = KeyRing(store, clock=clock)
    with pytest.raises(Transient):
        ring.find(KEY.key_id)
    monkeypatch.setattr(key_cache, "PATIENCE_SECONDS", 30)
    with pytest.raises(Transient):
        ring.find(KEY.key_id)
    store.release.set()
    clock.now += key_cache.PAUSE_SECONDS
    assert ring.find(KEY.key_id) == KEY


def test_a_hanging_store_takes_few_threads() -> None:
    """However many keys are presented; who comes without a body to wait for asks again."""
    store = HangingApiKeys()
    ring = KeyRing(store)
    for number in range(3 * key_cache.MAX_READINGS):
        assert ring.peek(f"{number:012x}") is UNREAD
    assert len(ring._readings) == key_cache.MAX_READINGS
    store.release.set()


def test_without_a_thread_to_spare_a_key_is_unreadable_only_until_there_is_one(
    store: InMemoryApiKeys, clock: Clock, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a reading that never began; a key that was known goes on working."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert ring.find(KEY.key_id) == KEY
    clock.now += key_cache.FRESH_SECONDS
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for ask in (ring.peek, ring.find):
            with pytest.raises(Transient, match="thread"):
                ask(OTHER.key_id)
            assert ask(KEY.key_id) == KEY
    store.put(OTHER)
    assert ring.find(OTHER.key_id) == OTHER
    assert ring.find(KEY.key_id) == KEY
    assert len(store.reads) == 3


def test_what_costs_a_reading_is_told_beforehand(store: InMemoryApiKeys, clock: Clock, ring: KeyRing) -> None:
    """Once for each id; not while the store is left alone, nor while there is no place."""
    assert ring.would_read(OTHER.key_id)
    assert ring.find(OTHER.key_id) is None
    assert not ring.would_read(OTHER.key_id)
    clock.now += key_cache.ABSENT_SECONDS
    assert ring.would_read(OTHER.key_id)
    store.outage = Transient("no route")
    with pytest.raises(Transient):
        ring.find(OTHER.key_id)
    assert not ring.would_read(OTHER.key_id)

    hanging = HangingApiKeys()
    crowded = KeyRing(hanging)
    for number in range(key_cache.MAX_READINGS):
        crowded.peek(f"{number:012x}")
    assert not crowded.would_read(f"{0:012x}")
    assert not crowded.would_read(OTHER.key_id)
    hanging.release.set()


def test_a_crowd_of_new_keys_is_served() -> None:
    """A process that has just started meets all its clients at once, and a store that takes its time."""
    keys = [issue(f"client {number}", [Scope.RECOGNISE], now=NOW)[0] for number in range(100)]

    class Slow(InMemoryApiKeys):
        def get(self, key_id: str) -> ApiKey | None:
            threading.Event().wait(0.05)
            return super().get(key_id)

    store = Slow(*keys)
    ring = KeyRing(store)
    assert UNREAD in {ring.peek(key.key_id) for key in keys}
    with ThreadPoolExecutor(len(keys)) as threads:
        assert list(threads.map(lambda key: ring.find(key.key_id), keys)) == keys
    assert len(store.reads) == len(keys)


def test_strangers_take_no_places_from_known_keys(clock: Clock) -> None:
    """Whatever ids they invent while the store hangs."""
    store = HangingApiKeys(KEY)
    store.release.set()
    ring = KeyRing(store, clock=clock)
    assert ring.find(KEY.key_id) == KEY
    clock.now += key_cache.FRESH_SECONDS
    store.release.clear()
    for number in range(key_cache.MAX_READINGS):
        ring.peek(f"{number:012x}")
    assert ring.peek(KEY.key_id) is UNREAD
    assert KEY.key_id in ring._readings
    store.release.set()
    assert ring.find(KEY.key_id) == KEY


def test_more_known_keys_than_can_be_read_again_go_on_working(clock: Clock) -> None:
    """For ten minutes while the store hangs."""
    keys = [issue(f"client {number}", [Scope.RECOGNISE], now=NOW)[0] for number in range(key_cache.MAX_READINGS + 1)]
    store = HangingApiKeys(*keys)
    store.release.set()
    ring = KeyRing(store, clock=clock)
    assert [ring.find(key.key_id) for key in keys] == keys
    store.release.clear()
    clock.now += key_cache.STALE_SECONDS - 1
    assert [ring.peek(key.key_id) for key in keys[:-1]] == [UNREAD] * key_cache.MAX_READINGS
    assert ring.peek(keys[-1].key_id) == ring.find(keys[-1].key_id) == keys[-1]
    clock.now += 1
    assert ring.peek(keys[-1].key_id) is UNREAD
    store.release.set()


def test_a_record_that_cannot_be_read_says_nothing_of_the_others(
    store: InMemoryApiKeys, clock: Clock, ring: KeyRing
) -> None:
    """It is not looked at all the time, and works once it is mended."""
    store.put(OTHER)
    store.damaged.add(KEY.key_id)
    for _ in range(3):
        with pytest.raises(Transient, match="later version"):
            ring.find(KEY.key_id)
    with pytest.raises(Transient, match="later version"):
        ring.peek(KEY.key_id)
    assert ring.find(OTHER.key_id) == OTHER
    assert len(store.reads) == 2
    store.damaged.clear()
    clock.now += key_cache.ABSENT_SECONDS
    assert ring.find(KEY.key_id) == KEY


def test_a_peek_waits_for_nothing_and_begins_the_reading() -> None:
    """Of many at once one reads, and all get it."""
    store = HangingApiKeys(KEY)
    ring = KeyRing(store)
    assert ring.peek(KEY.key_id) is UNREAD
    with ThreadPoolExecutor(20) as threads:
        found = [threads.submit(ring.find, KEY.key_id) for _ in range(20)]
        store.release.set()
        assert {one.result(30) for one in found} == {KEY}
    assert ring.peek(KEY.key_id) == KEY
    assert store.reads == [KEY.key_id]


def test_a_fault_lets_nobody_in(store: InMemoryApiKeys, ring: KeyRing) -> None:
    """It is an outage like another."""
    store.outage = KeyError("x")
    with pytest.raises(Transient):
        ring.find(KEY.key_id)
