"""CPU time of running processes and their descendants, and what else they use, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    seconds: float


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


def cpu_seconds(*roots: int) -> float:
    """User and system time so far of the processes, of their living descendants, and of the children they reaped.

    The source is proc(5), `/proc/<pid>/stat`, in steps of 10 ms. A process that has ended counts nothing.
    """
    stats = {int(path.name): stat for path in Path("/proc").glob("[0-9]*") if (stat := _read(path)) is not None}
    wanted = set(roots)
    while more := {pid for pid, stat in stats.items() if stat.parent in wanted} - wanted:
        wanted |= more
    return sum(stats[pid].seconds for pid in wanted & stats.keys())


def descendants(root: int, *words: str) -> list[int]:
    """The living descendants of a process whose command line holds every one of the words."""
    stats = {int(path.name): stat for path in Path("/proc").glob("[0-9]*") if (stat := _read(path)) is not None}
    found = {root}
    while more := {pid for pid, stat in stats.items() if stat.parent in found} - found:
        found |= more
    return sorted(pid for pid in found if all(word in _command(pid) for word in words))


def _read(path: Path) -> _Stat | None:
    try:
        text = (path / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may hold anything; field 3 follows it. utime to cstime are the fields 14 to 17.
    fields = text.rpartition(")")[2].split()
    return _Stat(int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
