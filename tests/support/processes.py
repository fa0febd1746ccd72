"""Runs our commands, and reads from /proc what processes do."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_LISTEN = "0A"
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


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process holds at a moment: resident memory in MB, open descriptors, threads."""

    rss_mb: float
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """What a process holds; raises `FileNotFoundError` or `ProcessLookupError` when it has ended."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rss_kb = int(fields.get("VmRSS", "0 kB").split()[0])  # a zombie has none
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Usage(rss_kb / 1024, descriptors, int(fields["Threads"]))


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
