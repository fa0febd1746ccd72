"""The instances of one function: started when they are needed, kept, and replaced when they have ended."""

import threading
from pathlib import Path

import structlog

from facerec.errors import FacerecError
from facerec.local.functions.instance import Failure, Function, FunctionFailed, Instance
from facerec.processes.children import OrphanReaper
from facerec.processes.log_files import LogFiles

log = structlog.get_logger(__name__)

_REAP_SECONDS = 1.0


class FunctionBusy(FacerecError):
    """Every instance has been busy for too long, or the pool is being stopped: Lambda's throttling."""


class FunctionPool:
    """Up to `size` instances of a function, which is its concurrency; safe for many threads.

    The instance that was used last is used first, so that few are warm. One that timed out or crashed is replaced. Each
    has a log `NAME-<number>.log` in `logs`. A new instance gets `first_event` first, which gives it nothing to do:
    the RIE counts the initialisation to the time of an invocation, and AWS does not.
    """

    def __init__(
        self, function: Function, size: int, emulator: Path, logs: Path, *, first_event: bytes | None = None
    ) -> None:
        self._function = function
        self._emulator = emulator
        self._first_event = first_event
        self._logs = LogFiles(logs)
        self._reaper = OrphanReaper(_REAP_SECONDS)
        self._numbers = list(range(size, 0, -1))
        """Of the instances that may still be started."""
        self._idle: list[tuple[int, Instance]] = []
        self._busy: dict[int, Instance] = {}
        self._changed = threading.Condition()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` has begun."""
        return self._stopped

    @property
    def can_start(self) -> bool:
        """Whether more instances can be started; false once the process that ends orphans was killed."""
        return self._reaper.running

    @property
    def pids(self) -> list[int]:
        """The process ids of the instances."""
        with self._changed:
            return [instance.pid for instance in (*self._busy.values(), *(one for _, one in self._idle))]

    def invoke(self, event: bytes, wait_seconds: float | None = None) -> bytes:
        """Return the answer to an event; raises `FunctionFailed`, and `FunctionBusy` after `wait_seconds`."""
        number, instance, is_new = self._taken(wait_seconds)
        usable = False
        try:
            if is_new:
                self._initialise(instance)
            answer = instance.invoke(event)
            usable = True
        except FunctionFailed as exc:
            usable = exc.failure is Failure.ERROR
            raise
        finally:
            self._give_back(number, instance, usable=usable)
        return answer

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Wait so long for running invocations, then end every instance; what still runs fails as a crash."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy, grace_seconds)
            for instance in self._busy.values():
                instance.terminate()
            idle, self._idle = self._idle, []
        for _, instance in idle:
            instance.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, _REAP_SECONDS)
        self._reaper.close()

    def _taken(self, wait_seconds: float | None) -> tuple[int, Instance, bool]:
        """An instance with its number, and whether it is new."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._numbers or self._stopped, wait_seconds)
            if self._stopped or not (self._idle or self._numbers):
                raise FunctionBusy(f"every instance of {self._function.name} is busy")
            while self._idle:
                number, instance = self._idle.pop()
                if instance.running:
                    self._busy[number] = instance
                    return number, instance, False
                self._numbers.append(number)
            number = self._numbers[-1]
            try:
                instance = self._started(number)
            except OSError as exc:
                raise FunctionFailed(Failure.CRASH, f"it cannot be started: {exc}", began=False) from exc
            self._numbers.remove(number)
            self._busy[number] = instance
            return number, instance, True

    def _started(self, number: int) -> Instance:
        name = f"{self._function.name}-{number}"
        instance = Instance(self._function, self._emulator, self._reaper, self._logs.of(name))
        log.info("instance_started", instance=name, pid=instance.pid)
        return instance

    def _initialise(self, instance: Instance) -> None:
        if self._first_event is not None:
            try:
                instance.invoke(self._first_event)
            except FunctionFailed as exc:
                raise FunctionFailed(exc.failure, f"while it was initialised: {exc.reason}", began=False) from exc

    def _give_back(self, number: int, instance: Instance, *, usable: bool) -> None:
        self._logs.bound([f"{self._function.name}-{number}"])
        with self._changed:
            del self._busy[number]
            if usable and not self._stopped and instance.running:
                self._idle.append((number, instance))
            else:
                instance.stop()
                self._numbers.append(number)
            self._changed.notify_all()
