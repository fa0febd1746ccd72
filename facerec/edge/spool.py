"""The messages on disk that are still to be sent, in order; SQLite keeps them over crashes and restarts."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from facerec.errors import Transient

log = structlog.get_logger(__name__)

_VERSION = 1
_PAGE_BYTES = 4096
_SPARE_PAGES = 4
"""More than a message takes beyond its own bytes: its row, the start of an overflow chain, a page of the index."""
_WAL_SHARE = 10
"""The write-ahead log may take a tenth of the size; the rest is for the messages."""
_MAX_WAL_PAGES = 256
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE messages (number INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE counts (dropped INTEGER NOT NULL);
INSERT INTO counts VALUES (0);
PRAGMA user_version = 1;
COMMIT;
"""


class SpoolFailed(Transient):
    """The disk does not take or give the messages, as when it is full; none that was spooled before is lost."""


class _Damaged(Exception):
    """The file is no spool, or a damaged one."""


@dataclass(frozen=True, slots=True, eq=False)
class SpooledMessage:
    """A message that is to be sent."""

    number: int
    """Counts up in the order of sending."""
    topic: str
    payload: bytes


class Spool:
    """A bounded queue in a file, for threads that add, read and remove; one process at a time may use the file.

    A message is on disk when `add` returns: with `sync="full"` it survives a power cut, with `"normal"` only a crash of
    the process. When `max_bytes` would be exceeded, the oldest messages are dropped: counted, and logged once until
    everything was sent. `max_bytes` bounds the file together with its write-ahead log (`-wal`). The file does not grow
    either when the disk is nearly full: without some room in the log, no message could be removed any more.

    A damaged file is moved aside (`.damaged`, replacing an earlier one), and a new one is begun. Every method but the
    properties raises `SpoolFailed` if the disk refuses; the next call tries again.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        sync: Literal["full", "normal"],
        *,
        on_dropped: Callable[[int], None] = lambda _: None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._path = path
        self._sync = sync
        self._on_dropped = on_dropped
        self._free_bytes = free_bytes
        pages = max_bytes // _PAGE_BYTES
        self._wal_pages = min(pages // _WAL_SHARE, _MAX_WAL_PAGES)
        self._max_pages = pages - 2 * self._wal_pages
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._next = 1
        self._depth = 0
        self._bytes = 0
        self._dropped = 0
        self._full = False
        self._damage: BaseException | None = None
        self.on_added: Callable[[], None] = lambda: None
        """Called after each `add`, by its thread."""
        with suppress(SpoolFailed), self._transaction():  # the next call tries again, and raises
            pass

    @property
    def depth(self) -> int:
        """How many messages are to be sent."""
        return self._depth

    @property
    def size_bytes(self) -> int:
        """How much of the file is in use."""
        return self._bytes

    @property
    def dropped(self) -> int:
        """How many messages gave way to newer ones since the file was begun."""
        return self._dropped

    @property
    def full(self) -> bool:
        """Whether messages were dropped since everything was sent last."""
        return self._full

    def add(self, topic: str, payload: bytes) -> None:
        """Append a message; on return it is on disk. The oldest ones are dropped if it does not fit."""
        with self._transaction() as connection:
            dropped = self._make_room(connection, len(payload))
            connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (self._next, topic, payload))
            self._next += 1
            self._depth += 1
            self._measure(connection)
            burst_begins = dropped and not self._full
            self._full = self._full or bool(dropped)
        if burst_begins:
            log.warning("spool_full", messages=self._depth, reason="the oldest messages give way to new ones")
        if dropped:
            self._on_dropped(dropped)
        self.on_added()

    def oldest(self, limit: int, after: int = 0) -> list[SpooledMessage]:
        """Return up to so many messages whose number is above `after`, the oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT number, topic, payload FROM messages WHERE number > ? ORDER BY number LIMIT ?", (after, limit)
            ).fetchall()
        return [SpooledMessage(*row) for row in rows]

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove messages; those that are no longer there are ignored."""
        with self._transaction() as connection:
            removed = connection.executemany("DELETE FROM messages WHERE number = ?", [(each,) for each in numbers])
            self._depth -= removed.rowcount
            self._measure(connection)
            burst_ends = self._full and not self._depth
            self._full = self._full and not burst_ends
            shrinkable = not self._depth and _all_pages(connection) > self._wal_pages
        if shrinkable:
            self._shrink()
        if burst_ends:
            log.info("spool_no_longer_full", dropped_in_all=self._dropped)

    def _shrink(self) -> None:
        """Give the disk space of an outage back: the file is empty now, so this copies next to nothing."""
        with self._lock, suppress(sqlite3.Error):  # without it, the pages are used again
            if self._connection is not None and not self._depth:
                self._connection.execute("VACUUM")

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            self._close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed when the block ends; after an error the next one reads the counts from the file."""
        with self._lock:
            try:
                connection = self._connection or self._open()
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as exc:
                self._close()
                if not isinstance(exc, (sqlite3.Error, OSError)):
                    raise
                self._damage = exc if _code(exc) in _DAMAGED else None
                raise SpoolFailed(f"the spool {self._path} cannot be used: {exc}") from exc

    def _make_room(self, connection: sqlite3.Connection, size: int) -> int:
        """Remove the oldest messages until a new one of this size fits; returns how many."""
        most = self._max_pages
        # The log grows up to its limit, and the file by what the log has for it.
        if self._free_bytes(self._path.parent) < 2 * self._wal_pages * _PAGE_BYTES + size:
            most = min(most, _all_pages(connection))
        most -= size // _PAGE_BYTES + _SPARE_PAGES
        dropped = 0
        while _used_pages(connection) > most and dropped < self._depth:
            connection.execute("DELETE FROM messages WHERE number = (SELECT min(number) FROM messages)")
            dropped += 1
        if dropped:
            connection.execute("UPDATE counts SET dropped = dropped + ?", (dropped,))
            self._depth -= dropped
            self._dropped += dropped
        return dropped

    def _measure(self, connection: sqlite3.Connection) -> None:
        self._bytes = _used_pages(connection) * _PAGE_BYTES

    def _open(self) -> sqlite3.Connection:
        try:
            if self._damage is not None:
                raise self._damage
            connection = self._connected()
        except (sqlite3.Error, _Damaged) as exc:
            # "SQL logic error" is a statement that does not suit the tables of the file.
            if not isinstance(exc, _Damaged) and _code(exc) not in {*_DAMAGED, sqlite3.SQLITE_ERROR}:
                raise
            self._move_aside(exc)
            connection = self._connected()
        self._connection = connection
        return connection

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                f"page_size = {_PAGE_BYTES}",
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                f"synchronous = {self._sync}",
                f"wal_autocheckpoint = {self._wal_pages}",
                f"journal_size_limit = {self._wal_pages * _PAGE_BYTES}",
                "secure_delete = OFF",  # it would double the writes; the folder is for its owner alone
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            self._check(connection)
            (self._depth, last) = connection.execute("SELECT count(*), max(number) FROM messages").fetchone()
            (self._dropped,) = connection.execute("SELECT dropped FROM counts").fetchone()
            self._measure(connection)
        except BaseException:
            connection.close()
            raise
        # The numbers go on after a file was replaced: readers ask for what comes after the last one they saw.
        self._next = max(self._next, (last or 0) + 1)
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not version and not tables:
            connection.executescript(_SCHEMA)
        elif version != _VERSION:
            raise _Damaged(f"it has version {version}, and this is {_VERSION}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _Damaged(verdict)

    def _move_aside(self, reason: BaseException) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        for ending in ("-wal", ""):
            damaged, kept = (path.with_name(path.name + ending) for path in (self._path, aside))
            kept.unlink(missing_ok=True)
            if damaged.exists():
                damaged.rename(kept)
        self._damage = None
        log.error("spool_damaged", reason=str(reason), moved_to=str(aside))

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):  # it cannot be used; what was committed is in the file
                connection.close()


def _code(exc: BaseException) -> int | None:
    """The primary result code (https://www.sqlite.org/rescode.html)."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _all_pages(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    return int(pages)


def _used_pages(connection: sqlite3.Connection) -> int:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return _all_pages(connection) - int(free)
