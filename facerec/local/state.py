"""The state directory of a local system: its lock, and the description of what runs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from facerec.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Running:
    """A running local system: its supervisor's process id, addresses, and the variables that point commands at it."""

    pid: int
    web_url: str
    emulator_url: str
    variables: dict[str, str]


class StateDirectory:
    """`emulator/` (buckets, tables, queues), `logs/`, and the description of what runs."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.emulator = self.path / "emulator"
        self.logs = self.path / "logs"
        self._lock = self.path / "lock"
        self._description = self.path / "running.json"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory for one system; raises `ConfigurationError` while another runs.

        The lock belongs to the open file, whose descriptor is yielded: the kernel drops it with the last process that
        has it open, however that process ends.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            lock = self._lock.open("a+")
        except OSError as exc:
            raise ConfigurationError(f"cannot use {self.path} for the state: {exc.strerror}; see --state") from exc
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                raise ConfigurationError(
                    f"a local system already runs on {self.path} (process {owner}); "
                    "stop it first, or use another directory with --state"
                ) from exc
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._description.unlink(missing_ok=True)  # of a system that was killed
            for log in self.logs.glob("*.log"):
                log.replace(log.with_suffix(".log.1"))
            try:
                yield lock.fileno()
            finally:
                self._description.unlink(missing_ok=True)

    def announce(self, running: Running) -> None:
        """Describe what runs, for `running`."""
        scratch = self._description.with_suffix(".tmp")
        scratch.write_text(json.dumps(asdict(running), indent=2))
        scratch.replace(self._description)

    def running(self) -> Running:
        """What runs here; raises `ConfigurationError` when nothing does."""
        absent = ConfigurationError(f"no local system runs on {self.path}; start one with `facerec local up`")
        try:
            with self._lock.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError as exc:
            raise absent from exc
        except BlockingIOError:
            # A system holds the lock; it writes the description when it is ready.
            if self._description.exists():
                return Running(**json.loads(self._description.read_text()))
            raise ConfigurationError(f"the local system on {self.path} is not ready yet; try again soon") from None
        raise absent
