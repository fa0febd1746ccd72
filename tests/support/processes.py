"""Runs our commands, and reads from /proc what processes do."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

CHECKOUT = Path(__file__).resolve().parents[2]
_LISTEN = "0A"
_WAIT_SECONDS = 60
"""Far more than anything takes."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def facerec(*arguments: str) -> tuple[str, ...]:
    """The argument vector of `facerec …` in this interpreter."""
    return (sys.executable, "-m", "facerec.cli", *arguments)


def celery_worker(name: str, *arguments: str) -> tuple[str, ...]:
    """The argument vector of `celery -A facerec worker` with a node name of its own."""
    return (sys.executable, "-m", "celery", "-A", "facerec", "worker", "-n", f"{name}@%h", *arguments)


def run(*arguments: str, environ: Mapping[str, str], timeout_seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `facerec …` to its end from the root of the checkout, and return what it printed."""
    return subprocess.run(
        facerec(*arguments),
        cwd=CHECKOUT,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


class Command:
    """A running command whose lines can be awaited: those of its standard error, or of both outputs as `merged` ones.

    It has a session of its own. As a context manager it kills at the end its processes that still run.
    """

    def __init__(
        self, argv: Sequence[str], environ: Mapping[str, str], *, cwd: Path = CHECKOUT, merged: bool = False
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        stream = self.process.stdout if merged else self.process.stderr
        self._reader = threading.Thread(target=self._read, args=[stream], daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left."""
        for pid in (*descendants(self.process.pid), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    @property
    def output(self) -> str:
        """All lines so far."""
        with self._arrived:
            return "".join(self.lines)

    def printed(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline())

    def wait_for(self, *words: str, count: int = 1) -> str:
        """Wait until `count` lines hold all the words, and return the first; fail if they do not come."""
        return self.wait_until(lambda line: all(word in line for word in words), count)

    def wait_until(self, fits: Callable[[str], bool], count: int = 1) -> str:
        """Wait until `count` lines fit, and return the first; fail if they do not come."""

        def found() -> list[str]:
            return [line for line in self.lines if fits(line)]

        with self._arrived:
            self._arrived.wait_for(lambda: len(found()) >= count or not self._reader.is_alive(), _WAIT_SECONDS)
            fitting = found()
            assert len(fitting) >= count, "".join(self.lines)
            return fitting[0]

    def send(self, number: int) -> None:
        """Send a signal to the whole session, as a terminal and a service manager do."""
        os.killpg(self.process.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the command alone; return its exit status when its last line has been read."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status when the command has ended and its last line has been read."""
        status = self.process.wait(_WAIT_SECONDS)
        self._reader.join(_WAIT_SECONDS)
        return status

    def _read(self, stream: Iterable[str]) -> None:
        for line in stream:
            with self._arrived:
                self.lines.append(line)
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process holds at a moment: resident memory in MB, open descriptors, threads; its CPU time so far."""

    rss_mb: float
    descriptors: int
    threads: int
    cpu_seconds: float


def usage(pid: int) -> Usage:
    """What a process holds; raises `FileNotFoundError` or `ProcessLookupError` when it has ended.

    The CPU time is its own, and that of the children that it reaped.
    """
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rss_kb = int(fields.get("VmRSS", "0 kB").split()[0])  # a zombie has none
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    stat = _stat(pid)
    return Usage(rss_kb / 1024, descriptors, int(fields["Threads"]), 0.0 if stat is None else stat.seconds)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    stat = _stat(pid)
    return stat is not None and stat.state != "Z"


def descendants(root: int, *words: str) -> set[int]:
    """The living descendants of a process, without itself, whose command line holds every one of the words."""
    found = _tree(_stats(), {root}) - {root}
    return {pid for pid in found if all(word in _command(pid) for word in words)}


def cpu_seconds(*roots: int) -> float:
    """User and system time so far of the processes, of their living descendants, and of the children they reaped.

    The source is proc(5), `/proc/<pid>/stat`, in steps of 10 ms. A process that has ended counts nothing.
    """
    stats = _stats()
    return sum(stats[pid].seconds for pid in _tree(stats, set(roots)) & stats.keys())


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """The TCP addresses on which a process listens."""
    open_files = {_target(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return {
        address
        for table in ("tcp", "tcp6")
        for inode, address in _listeners(pid, table)
        if f"socket:[{inode}]" in open_files
    }


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def _listeners(pid: int, table: str) -> Iterator[tuple[str, tuple[str, int]]]:
    for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] != _LISTEN:
            continue
        address, port = fields[1].split(":")
        # The kernel prints the address as native 32-bit words.
        words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
        packed = struct.pack(f"={len(words)}I", *words)
        family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
        yield fields[9], (socket.inet_ntop(family, packed), int(port, 16))


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    parent: int
    seconds: float


def _stats() -> dict[int, _Stat]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return {pid: stat for pid in pids if (stat := _stat(pid)) is not None}


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; field 3 follows it. utime to cstime are the fields 14 to 17.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)


def _tree(stats: Mapping[int, _Stat], roots: set[int]) -> set[int]:
    found = set(roots)
    while more := {pid for pid, stat in stats.items() if stat.parent in found} - found:
        found |= more
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
