"""Looking at processes, and running our commands, for tests that start real ones."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
_LISTEN = "0A"


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


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    return _stat(pid) not in {None, "Z"}


def descendants(pid: int) -> set[int]:
    """The ids of a process's children, their children, and so on."""
    found: set[int] = set()
    pending = [pid]
    while pending:
        for child in _children(pending.pop()):
            found.add(child)
            pending.append(child)
    return found


def resident_mb(pid: int) -> float:
    """A process's resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


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


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []


def _stat(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return None
