"""The spool: order, its bound, crashes, damage and a disk that refuses."""

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from facerec.edge.spool import Spool, SpoolFailed
from tests.support.logs import capture_logs
from tests.support.processes import CHECKOUT

TOPIC = "facerec/door-1/faces"
MEGABYTE = 1_000_000
CROPS = bytes(6000)
"""As large as a message with one face."""
_ADDS = """
import itertools, sys
from pathlib import Path
from facerec.edge.spool import Spool
spool = Spool(Path(sys.argv[1]), 10_000_000, sys.argv[2])
for number in itertools.count():
    spool.add("topic", b"%d " % number + bytes(3000))
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The spool's file."""
    return tmp_path / "spool.db"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    """An empty spool of a megabyte."""
    made = Spool(path, MEGABYTE, "full")
    yield made
    made.close()


def payloads(spool: Spool) -> list[bytes]:
    """All messages, the oldest first."""
    return [message.payload for message in spool.oldest(10_000)]


def fill(spool: Spool) -> None:
    """Add a hundred messages, each with its number."""
    for number in range(100):
        spool.add(TOPIC, b"%d " % number + CROPS)


def file_bytes(path: Path) -> int:
    """What the spool takes on disk."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def test_messages_come_in_the_order_of_adding(spool: Spool) -> None:
    """Each with its topic and a number that counts up; a reader asks for what follows the last one it has."""
    for number in range(5):
        spool.add(f"{TOPIC}{number}", b"%d" % number)
    first, second = spool.oldest(2)
    assert (first.topic, first.payload) == (f"{TOPIC}0", b"0")
    assert [message.payload for message in spool.oldest(10, after=second.number)] == [b"2", b"3", b"4"]


def test_removed_messages_are_gone_and_others_stay(spool: Spool, path: Path) -> None:
    """Also for the next process; removing a message twice is harmless."""
    for number in range(4):
        spool.add(TOPIC, b"%d" % number)
    removed = [message.number for message in spool.oldest(2)]
    spool.remove(removed)
    spool.remove(removed)
    assert spool.depth == 2
    spool.close()
    again = Spool(path, MEGABYTE, "normal")
    assert payloads(again) == [b"2", b"3"]
    assert again.depth == 2
    again.close()


def test_full_spool_drops_the_oldest(path: Path) -> None:
    """It counts them, also over a restart, tells the caller, and logs once until everything was sent."""
    dropped: list[int] = []
    spool = Spool(path, MEGABYTE, "normal", on_dropped=dropped.append)
    with capture_logs() as logs:
        for number in range(300):
            spool.add(TOPIC, b"%d " % number + CROPS)
        left = [int(payload.split()[0]) for payload in payloads(spool)]
        assert left == list(range(300 - len(left), 300))
        assert len(left) > 50  # of at most 166
        assert spool.dropped == sum(dropped) == 300 - len(left)
        spool.remove([message.number for message in spool.oldest(1000)])
    assert [record["event"] for record in logs] == ["spool_full", "spool_no_longer_full"]
    spool.close()
    assert Spool(path, MEGABYTE, "normal").dropped == sum(dropped)


@pytest.mark.parametrize(("size", "count"), [(1000, 800), (6000, 150), (128 * 1024, 12)])
def test_file_stays_within_the_bound(path: Path, size: int, count: int) -> None:
    """With its write-ahead log, whatever the size of the messages, and when it is emptied and filled again."""
    spool = Spool(path, MEGABYTE, "normal")
    largest = 0
    for _ in range(2):
        for _ in range(count):
            spool.add(TOPIC, bytes(size))
            largest = max(largest, file_bytes(path))
        spool.remove([message.number for message in spool.oldest(10_000)])
    assert MEGABYTE // 2 < largest <= MEGABYTE
    assert spool.size_bytes <= largest
    spool.close()


def test_file_shrinks_when_everything_was_sent(spool: Spool, path: Path) -> None:
    """An outage does not take the disk's space for ever, also with a lower bound since."""
    fill(spool)
    spool.close()
    before = path.stat().st_size
    assert before > MEGABYTE // 2
    spool.remove([message.number for message in spool.oldest(1000)])
    spool.add(TOPIC, CROPS)
    spool.close()
    assert path.stat().st_size < MEGABYTE // 20
    assert payloads(spool) == [CROPS]


@pytest.mark.parametrize("sync", ["full", "normal"])
def test_killed_process_loses_no_message_whose_add_returned(path: Path, sync: str) -> None:
    """They are there in order, without a gap; at most one more, whose add had not returned."""
    command = [sys.executable, "-c", _ADDS, str(path), sync]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as child:
        assert child.stdout is not None
        returned = [int(child.stdout.readline()) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        returned += [int(line) for line in child.stdout.read().splitlines()]
    spool = Spool(path, 10 * MEGABYTE, "full")
    found = [int(payload.split()[0]) for payload in payloads(spool)]
    assert found in (returned, [*returned, len(returned)])
    spool.close()


def _noise(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8192])


def _overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = b"x" * (len(content) - 4096)
    path.write_bytes(content)


def _other_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:64] = (77).to_bytes(4, "big")  # user_version
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_noise, _half, _overwritten, _other_version])
def test_damaged_file_is_moved_aside(spool: Spool, path: Path, damage: Callable[[Path], None]) -> None:
    """The error says where it is; the spool begins again and takes messages."""
    for _ in range(20):
        spool.add(TOPIC, CROPS)
    spool.close()
    damage(path)
    broken = path.read_bytes()
    with capture_logs() as logs:
        spool.add(TOPIC, b"first")
    assert payloads(spool) == [b"first"]
    (record,) = logs
    assert (record["event"], record["log_level"]) == ("spool_damaged", "error")
    assert Path(record["moved_to"]).read_bytes() == broken


def test_file_damaged_while_it_is_open_is_replaced(path: Path) -> None:
    """One call fails as transient; later messages have higher numbers, so that a reader who goes on sees them."""
    spool = Spool(path, 10 * MEGABYTE, "normal")
    for _ in range(40):  # more than SQLite keeps in memory
        spool.add(TOPIC, bytes(100_000))
    last = spool.oldest(1000)[-1].number
    spool.close()
    spool.add(TOPIC, CROPS)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * (path.stat().st_size - 4096))
    with capture_logs(), pytest.raises(SpoolFailed, match="cannot be used"):
        spool.oldest(1000)
    with capture_logs() as logs:
        spool.add(TOPIC, b"after")
    assert [record["event"] for record in logs] == ["spool_damaged"]
    (message,) = spool.oldest(10, after=last)
    assert message.payload == b"after"
    spool.close()


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond the size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_transient(spool: Spool, path: Path) -> None:
    """What was spooled stays; the next add works when there is room."""
    spool.add(TOPIC, b"before")
    with full_disk(file_bytes(path) // 2), pytest.raises(SpoolFailed, match=r"spool\.db cannot be used"):
        fill(spool)
    with capture_logs() as logs:
        spool.add(TOPIC, b"after")
    kept = payloads(spool)
    assert (kept[0], kept[-1]) == (b"before", b"after")
    assert logs == []


def test_spool_leaves_room_on_the_disk(path: Path) -> None:
    """On a disk that is nearly full it drops the oldest: on a full one, nothing could be removed."""
    free = 10 * MEGABYTE
    spool = Spool(path, MEGABYTE, "normal", free_bytes=lambda _: free)
    for _ in range(50):
        spool.add(TOPIC, CROPS)
    size = spool.size_bytes
    free = 100_000
    fill(spool)
    assert spool.size_bytes <= size + 5 * 4096
    assert spool.dropped > 90
    assert payloads(spool)[-1].startswith(b"99 ")
    spool.close()


def test_folder_that_cannot_be_used_is_transient(tmp_path: Path) -> None:
    """The spool can be made without it, and works as soon as it is there."""
    spool = Spool(tmp_path / "gone" / "spool.db", MEGABYTE, "full")
    with pytest.raises(SpoolFailed, match="unable to open"):
        spool.add(TOPIC, b"x")
    assert (spool.depth, spool.size_bytes, spool.dropped) == (0, 0, 0)
    (tmp_path / "gone").mkdir()
    spool.add(TOPIC, b"x")
    assert spool.depth == 1
    spool.close()


def test_spool_serves_a_writer_and_a_reader(spool: Spool) -> None:
    """Two threads at once: all arrive, in order; the reader is told of each."""
    added = threading.Semaphore(0)
    spool.on_added = added.release
    writer = threading.Thread(target=fill, args=[spool])
    writer.start()
    seen: list[bytes] = []
    while len(seen) < 100:
        added.acquire()
        messages = spool.oldest(16)
        seen += [message.payload for message in messages]
        spool.remove([message.number for message in messages])
    writer.join()
    assert seen == [b"%d " % number + CROPS for number in range(100)]
    assert spool.depth == 0
