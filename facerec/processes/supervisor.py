"""Starts commands, starts crashed ones again, and ends them all in reverse order.

One thread watches the processes' descriptors, so an exit is seen when it happens; nothing is polled.
"""

import os
import select
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from facerec.errors import FacerecError
from facerec.processes.addresses import poll_until
from facerec.processes.children import Command, Leash, Process, describe_exit, tail

_STOP_SECONDS = 13.0
"""For all processes together: the promise is 15 s."""
_RUN_GRACE_SECONDS = 3.0


class ChildFailed(FacerecError):
    """A process ended before it was ready, or again and again; its text ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a crashed process is started again: after `first_seconds`, each time twice as long, at most `times`.

    One that has been up for `stable_seconds` begins anew.
    """

    first_seconds: float = 0.5
    times: int = 5
    stable_seconds: float = 30.0

    def delay_seconds(self, crashes: int) -> float | None:
        """The delay before the next start after so many crashes in a row, or nothing to give up."""
        return self.first_seconds * 2 ** (crashes - 1) if crashes <= self.times else None


@dataclass(slots=True, eq=False)
class Child:
    """A supervised command: its present process, and how often it has crashed in a row."""

    command: Command
    grace_seconds: float
    process: Process
    on_restart: Callable[[], None]
    started_at: float
    ready: bool = False
    crashes: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when it has ended before it was ready."""

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name


class Supervisor:
    """Runs commands, with a log file for each in `log_dir`; `report` gets one line for every unplanned event.

    The descriptors `hold` stay open, also after a SIGKILL, until the last process has ended.
    """

    def __init__(
        self,
        log_dir: Path,
        report: Callable[[str], None],
        backoff: Backoff = Backoff(),
        hold: Sequence[int] = (),
    ) -> None:
        self._log_dir = log_dir
        self._report = report
        self._backoff = backoff
        self._leash = Leash(hold=hold)
        self._stages: list[list[Child]] = []
        self._failure: FacerecError | None = None
        self._failed = threading.Event()
        self._lock = threading.RLock()
        self._due: list[tuple[float, Child]] = []
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._stopping = False
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def start(
        self, *commands: Command, grace_seconds: float = 5.0, on_restart: Callable[[], None] = lambda: None
    ) -> list[Child]:
        """Start commands together, as one stage: stages end in the reverse of the order in which they were started.

        A child counts as crashed, and is started again, once it has been ready (`wait_until_ready`). `on_restart` is
        called in the watching thread after each such start; its `FacerecError` counts as the child's failure.
        """
        with self._lock:
            stage: list[Child] = []
            self._stages.append(stage)
            for command in commands:
                child = Child(command, grace_seconds, self._spawn(command), on_restart, time.monotonic())
                stage.append(child)
                self._selector.register(child.process, selectors.EVENT_READ, child)
            return list(stage)

    def wait_until_ready(self, child: Child, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait for the child's readiness; raises `ChildFailed` when it ends first or the time is over."""
        if not poll_until(lambda: child.ended.is_set() or ready(), timeout_seconds):
            raise self._failed_with(child, f"was not ready within {timeout_seconds:g} s")
        with self._lock:
            if child.ended.is_set():
                raise self._failed_with(
                    child, f"ended before it was ready ({describe_exit(child.process.wait(0) or 0)})"
                )
            child.ready = True

    def run(self, command: Command) -> int:
        """Run a command to its end and return its exit status; an interrupted wait ends it, and so does `stop`."""
        process = self._spawn(command)
        try:
            over = select.poll()
            over.register(process, select.POLLIN)
            over.register(self._wake, select.POLLIN)
            over.poll()
        finally:
            status = process.stop(_RUN_GRACE_SECONDS)
        return status

    @property
    def stopping(self) -> bool:
        """Whether `stop` has begun."""
        return self._stopping

    def log(self, command: Command) -> Path:
        """Where a command's output goes."""
        return self._log_dir / f"{command.name}.log"

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until a child is given up, or all of them, and raise the failure; or return when the time is over."""
        self._failed.wait(timeout_seconds)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """End every process, the last started stage first; idempotent. On return none is left."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                os.eventfd_write(self._wake, 1)
        deadline = time.monotonic() + _STOP_SECONDS
        self._watcher.join()
        while self._stages:
            stage = self._stages.pop()
            for child in stage:
                child.process.terminate()
            asked_at = time.monotonic()
            for child in stage:
                # Asked once: to some commands a second SIGTERM means "at once".
                child.process.finish(min(deadline, asked_at + child.grace_seconds) - time.monotonic())
        self._leash.close()
        self._selector.close()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def __enter__(self) -> Self:  # noqa: D105 - `with` ends every process
        return self

    def __exit__(  # noqa: D105 - `with` ends every process
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, command: Command) -> Process:
        return Process(command, self.log(command), self._leash)

    def _watch(self) -> None:
        try:
            while self._look():
                continue
        except BaseException as exc:  # noqa: BLE001 - rich makes a broken pipe of `report` a SystemExit
            # Nobody would start anything again, and nobody would know.
            failure = FacerecError(f"the processes are not watched any more: {type(exc).__name__}: {exc}")
            failure.__cause__ = exc
            self._give_up(failure)

    def _look(self) -> bool:
        """Wait for what happens next, and answer it; whether to go on."""
        with self._lock:
            timeout = max(0.0, min(at for at, _ in self._due) - time.monotonic()) if self._due else None
        events = self._selector.select(timeout)
        with self._lock:
            if self._stopping:
                return False
            for key, _ in events:
                self._selector.unregister(key.fileobj)
                self._exited(key.data)
            restarted = self._restart_due()
        try:
            for child in restarted:
                child.on_restart()
        except FacerecError as exc:
            self._give_up(exc)
        return True

    def _exited(self, child: Child) -> None:
        status = child.process.wait(0) or 0
        if not child.ready:
            child.ended.set()
            return
        stable = time.monotonic() - child.started_at >= self._backoff.stable_seconds
        child.crashes = 1 if stable else child.crashes + 1
        delay = self._backoff.delay_seconds(child.crashes)
        if delay is None:
            self._give_up(self._failed_with(child, f"ended {child.crashes} times in a row ({describe_exit(status)})"))
            return
        self._report(f"{child.name} ended ({describe_exit(status)}); starting it again in {delay:g} s")
        self._due.append((time.monotonic() + delay, child))

    def _restart_due(self) -> list[Child]:
        now = time.monotonic()
        restarted = [child for at, child in self._due if at <= now]
        self._due = [(at, child) for at, child in self._due if at > now]
        for child in restarted:
            child.process = self._spawn(child.command)
            child.started_at = now
            self._selector.register(child.process, selectors.EVENT_READ, child)
        return restarted

    def _give_up(self, failure: FacerecError) -> None:
        self._failure = failure
        self._failed.set()

    def _failed_with(self, child: Child, how: str) -> ChildFailed:
        end = tail(child.process.log)
        return ChildFailed(
            f"{child.name} {how}; the end of {child.process.log}:\n{end}" if end else f"{child.name} {how}"
        )
