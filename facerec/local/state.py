"""The state directory of a local system: its lock, and the description of what runs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from facerec.errors import ConfigurationError
from facerec.private_files import check_private_folder, make_private_folder, open_own_file


@dataclass(frozen=True, slots=True)
class Running:
    """A running local system: its addresses, and the variables that point commands at it."""

    web_url: str
    emulator_url: str
    variables: dict[str, str]
    function_url: str | None = None
    """Of the detection function, if the app tier has functions."""


class StateDirectory:
    """`emulator/` (buckets, tables, queues), `logs/`, and the description of what runs.

    Its files decide what a shell and the emulator do, so it must be the user's own; no other user can enter it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
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
        with self._usable():
            for folder in (self.path, self.emulator, self.logs):
                make_private_folder(folder)
            lock = os.fdopen(open_own_file(self._lock, os.O_RDWR | os.O_CREAT), "r+")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                owner = lock.read().strip() or "unknown"
                raise ConfigurationError(
                    f"a local system already runs on {self.path} (process {owner}); "
                    "stop it first, or use another directory with --state"
                ) from exc
            with self._usable():
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                self._description.unlink(missing_ok=True)  # of a system that was killed
                for former in self.logs.glob("*.log.1"):
                    former.unlink()
                for log in self.logs.glob("*.log"):
                    log.replace(log.with_suffix(".log.1"))
            try:
                yield lock.fileno()
            finally:
                self._description.unlink(missing_ok=True)

    def announce(self, running: Running) -> None:
        """Describe what runs, for `running`."""
        scratch = self._description.with_suffix(".tmp")
        with self._usable():
            scratch.unlink(missing_ok=True)
            with os.fdopen(open_own_file(scratch, os.O_WRONLY | os.O_CREAT), "w") as file:
                json.dump(asdict(running), file, indent=2)
            scratch.replace(self._description)

    def running(self) -> Running:
        """What runs here; raises `ConfigurationError` when nothing does, or where others could have written that."""
        absent = ConfigurationError(f"no local system runs on {self.path}; start one with `facerec local up`")
        try:
            with self._usable():
                check_private_folder(self.path)
                with os.fdopen(open_own_file(self._lock)) as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError as exc:
            raise absent from exc
        except BlockingIOError:
            return self._described()
        raise absent

    def _described(self) -> Running:
        """What the system describes that holds the lock; it writes the description when it is ready."""
        try:
            with self._usable(), os.fdopen(open_own_file(self._description), "rb") as file:
                return TypeAdapter(Running).validate_json(file.read(), strict=True)
        except FileNotFoundError:
            raise ConfigurationError(f"the local system on {self.path} is not ready yet; try again soon") from None
        except ValidationError as exc:
            raise ConfigurationError(f"{self._description} cannot be read; start the local system again") from exc

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Turn faults of the directory into `ConfigurationError`, except that something is missing or locked."""
        try:
            yield
        except (FileNotFoundError, BlockingIOError):
            raise
        except OSError as exc:
            reason = f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
            raise ConfigurationError(f"cannot use {self.path} for the state: {reason}; see --state") from exc
        except ConfigurationError as exc:
            raise ConfigurationError(f"cannot use {self.path} for the state: {exc}; see --state") from exc
