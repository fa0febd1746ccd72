"""Starts commands, restarts those that end, and ends them all in reverse order."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from facerec.background import BackgroundThread, backoff_seconds
from facerec.errors import FacerecError
from facerec.processes.addresses import poll_until
from facerec.processes.children import Command, OrphanReaper, Process, describe_exit, last_lines
from facerec.processes.log_files import LARGEST_BYTES, LogFiles

_LOOK_SECONDS = 0.1
_RUN_GRACE_SECONDS = 3.0


class ChildFailed(FacerecError):
    """A process ended before it was ready, or too often; the text ends with the last lines of its log."""

    several_lines = True


@dataclass(frozen=True, slots=True)
class Restarts:
    """When a process that ended is started again: after `first_seconds`, then twice as long, up to `longest_seconds`.

    It is given up after `times` restarts in a row; None means never. A process that ran for `stable_seconds` starts
    the count again.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 10.0
    times: int | None = 5
    stable_seconds: float = 30.0

    def delay_seconds(self, failures: int) -> float | None:
        """The delay before the next start after so many failures in a row, or None to give up."""
        if self.times is not None and failures > self.times:
            return None
        return backoff_seconds(failures, 0, first=self.first_seconds, longest=self.longest_seconds)


@dataclass(slots=True, eq=False)
class Child:
    """A supervised command, and its last process."""

    command: Command
    grace_seconds: float
    restarts: Restarts
    on_restart: Callable[["Child"], None]
    process: Process | None = None
    """The last process; None if none could be started."""
    how_ended: str | None = None
    """How the last process ended, or why there is none; None while it runs."""
    ready: bool = False
    failures: int = 0
    """How many processes in a row have ended, or could not be started."""
    started_at: float = 0.0
    restart_at: float | None = None
    kill_at: float | None = None
    """When its process is killed; set by `end` and `stop`."""

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self.how_ended is None

    @property
    def pid(self) -> int:
        """The id of its last process; raises `ProcessLookupError` if none could be started."""
        if self.process is None:
            raise ProcessLookupError(self.how_ended)
        return self.process.pid


OnUnexpectedEnd = Callable[[Child, str, float], None]
"""Called when a child's process ends although it was not asked to: with the child, how its process ended, and the
seconds until the next start."""


class Supervisor(AbstractContextManager["Supervisor"]):
    """Runs commands, and looks at their processes in a thread, which also calls `on_unexpected_end`.

    Each command has a log file in `log_dir`, bounded by `log_bytes` (`LogFiles`); without that directory, it writes
    where this process writes. All processes together have `stop_seconds` to end, and `orphan_grace_seconds` if this
    process is killed. In both cases the descriptors `hold` stay open until the last process has ended.
    """

    def __init__(
        self,
        on_unexpected_end: OnUnexpectedEnd,
        *,
        log_dir: Path | None = None,
        log_bytes: int = LARGEST_BYTES,
        stop_seconds: float = 13.0,
        orphan_grace_seconds: float = 5.0,
        hold: Sequence[int] = (),
    ) -> None:
        self._on_unexpected_end = on_unexpected_end
        self._logs = None if log_dir is None else LogFiles(log_dir, log_bytes)
        self._stop_seconds = stop_seconds
        self._reaper = OrphanReaper(orphan_grace_seconds, hold)
        self._stages: list[list[Child]] = []
        self._failure: FacerecError | None = None
        self._failed = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._watcher = BackgroundThread("supervisor", self._watch)
        self._watcher.start()

    def start(
        self,
        *commands: Command,
        grace_seconds: float = 5.0,
        restarts: Restarts = Restarts(),
        on_restart: Callable[[Child], None] = lambda _: None,
        stage: list[Child] | None = None,
    ) -> list[Child]:
        """Start commands together, in a new stage or in the given one; returns all children of the stage.

        Stages end in the reverse of the order in which they were made. A child is started again if it has been ready
        (`wait_until_ready`), or if its restarts are unlimited. The thread calls `on_restart` after each such start;
        its `FacerecError` is the supervisor's failure. Raises `ChildFailed` after `stop`.
        """
        with self._lock:
            if self.stopping:
                raise ChildFailed("the supervisor is being stopped")
            if stage is None:
                stage = []
                self._stages.append(stage)
            for command in commands:
                child = Child(command, grace_seconds, restarts, on_restart)
                stage.append(child)
                self._spawn(child)
            if self._logs is not None:
                self._logs.remove_old(child.name for stage in self._stages for child in stage)
        return stage

    def wait_until_ready(self, child: Child, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait until the child is ready; raises `ChildFailed` when it ends first or the time is over."""
        if not poll_until(lambda: not child.running or ready(), timeout_seconds):
            raise self._child_failed(child.command, f"was not ready within {timeout_seconds:g} s")
        with self._lock:
            if not child.running:
                raise self._child_failed(child.command, f"ended before it was ready ({child.how_ended})")
            child.ready = True

    def end(self, child: Child, grace_seconds: float) -> None:
        """Ask a child to end, do not start it again, and kill its process after the grace; returns at once."""
        with self._lock:
            child.restart_at, child.kill_at = None, time.monotonic() + grace_seconds
            if child.process is not None:
                child.process.terminate()

    def run(self, command: Command) -> None:
        """Run a command to its end; raises `ChildFailed` unless it succeeds. `stop` ends it."""
        process = Process(command, self._reaper, self._log(command))
        try:
            while process.poll() is None and not self._stopping.wait(_LOOK_SECONDS):
                continue
        finally:
            process.terminate()
            status = process.finish(_RUN_GRACE_SECONDS)
        if status != 0:
            raise self._child_failed(command, f"failed ({describe_exit(status)})")

    @property
    def stopping(self) -> bool:
        """Whether `stop` has begun."""
        return self._stopping.is_set()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when the time is over; raises `FacerecError` as soon as a child is given up."""
        self._failed.wait(timeout_seconds)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End every process, the last started stage first; idempotent. On return no process is left."""
        self._stopping.set()
        self._watcher.stop()
        deadline = time.monotonic() + self._stop_seconds
        try:
            while self._stages:
                stage = [(child, child.process) for child in self._stages[-1] if child.process is not None]
                for child, process in stage:
                    # Asked once: a second SIGTERM means "at once" to some commands.
                    if child.kill_at is None:
                        process.terminate()
                    child.kill_at = min(child.kill_at or deadline, time.monotonic() + child.grace_seconds)
                for child, process in stage:
                    process.finish(min(deadline, child.kill_at or deadline) - time.monotonic())
                self._stages.pop()
        finally:
            # Stages are left if a second stop signal has ended the wait: they end at once.
            for child in [child for stage in self._stages for child in stage]:
                if child.process is not None:
                    child.process.finish(0)
            self._reaper.close()

    def __exit__(self, *_: object) -> None:  # noqa: D105 - `with` ends every process
        self.stop()

    def _watch(self, stopping: threading.Event) -> None:
        try:
            while not stopping.wait(_LOOK_SECONDS):
                self._look()
        except FacerecError as exc:
            self._give_up(exc)
        except BaseException as exc:  # noqa: BLE001 - rich makes a broken pipe of the callback a SystemExit
            failure = FacerecError(f"the processes are not watched any more: {type(exc).__name__}: {exc}")
            failure.__cause__ = exc
            self._give_up(failure)

    def _look(self) -> None:
        """Note which processes have ended, and start those whose time has come."""
        restarted = []
        with self._lock:
            now = time.monotonic()
            for child in [child for stage in self._stages for child in stage]:
                if child.process is not None and child.running:
                    overdue = child.kill_at is not None and now >= child.kill_at
                    status = child.process.finish(0) if overdue else child.process.poll()
                    if status is not None:
                        self._record_end(child, describe_exit(status))
                elif child.restart_at is not None and now >= child.restart_at and self._spawn(child):
                    restarted.append(child)
            names = [child.name for stage in self._stages for child in stage]
        if self._logs is not None:
            self._logs.bound(names)
        for child in restarted:
            child.on_restart(child)

    def _spawn(self, child: Child) -> bool:
        """Start a child's process; returns whether that succeeded."""
        child.started_at, child.restart_at, child.how_ended = time.monotonic(), None, None
        try:
            child.process = Process(child.command, self._reaper, self._log(child.command))
        except OSError as exc:
            self._record_end(child, f"cannot be started: {exc}")
            return False
        return True

    def _record_end(self, child: Child, how: str) -> None:
        child.how_ended = how
        if child.kill_at is not None:
            for stage in self._stages:
                if child in stage:
                    stage.remove(child)
            return
        if not child.ready and child.restarts.times is not None:
            return
        stable = time.monotonic() - child.started_at >= child.restarts.stable_seconds
        child.failures = 1 if stable else child.failures + 1
        delay = child.restarts.delay_seconds(child.failures)
        if delay is None:
            self._give_up(self._child_failed(child.command, f"ended {child.failures} times in a row ({how})"))
            return
        child.restart_at = time.monotonic() + delay
        self._on_unexpected_end(child, how, delay)

    def _give_up(self, failure: FacerecError) -> None:
        self._failure = failure
        self._failed.set()

    def _log(self, command: Command) -> Path | None:
        return None if self._logs is None else self._logs.of(command.name)

    def _child_failed(self, command: Command, how: str) -> ChildFailed:
        log = self._log(command)
        end = "" if log is None else last_lines(log)
        return ChildFailed(f"{command.name} {how}; the end of {log}:\n{end}" if end else f"{command.name} {how}")
