"""The supervisor's side of one child: start it, exchange messages under a deadline, notice its death, leave nothing."""

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import structlog

from facerec.engine.child import BatchFailed, EngineSpec, Ready, Refused


class Failure(StrEnum):
    """Why a batch failed as a whole."""

    CRASHED = "crashed"
    OVERRAN = "overran"
    RAISED = "raised"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one engine child took at once, and how it ended."""

    waited_seconds: tuple[float, ...]
    """How long each of its images had waited for a child."""
    seconds: float
    failure: Failure | None = None


class EngineWatch(Protocol):
    """Is told by the threads that feed the children; it must be quick, and must not raise."""

    def batch(self, batch: Batch) -> None:
        """A batch is over."""

    def replaced(self) -> None:
        """A child that had ended has a successor."""


class _Nobody:
    def batch(self, batch: Batch) -> None:
        """Forget it."""

    def replaced(self) -> None:
        """Forget it."""


NOBODY: EngineWatch = _Nobody()
"""Nobody listens."""
log = structlog.get_logger(__name__)
_BOOT = (
    "import sys; from multiprocessing.connection import Connection; pipe = Connection(int(sys.argv[1])); "
    "sys.path[:] = pipe.recv(); from facerec.engine.child import run; run(pipe)"
)
_CLOSE_SECONDS = 2


class EngineRefused(Exception):
    """The child cannot load; the text is one sentence."""


class EngineDied(Exception):
    """The child is gone; the text ends the sentence "the engine …"."""


class EngineOverran(EngineDied):
    """The child did not answer in time, and was ended."""


class EngineStumbled(Exception):
    """The batch raised in the child, which lives on; the text ends the sentence "the engine …"."""


class EngineProcess:
    """One engine child: a fresh interpreter (no fork), which imports neither Celery nor the worker's main module.

    One thread at a time may use it, and the thread that makes it must outlive it: the kernel ends the child with that
    thread. `on_exit` is called from another thread as soon as the child has ended, however that came about.
    """

    def __init__(self, spec: EngineSpec, on_exit: Callable[[], None]) -> None:
        self._spec = spec
        self._on_exit = on_exit
        self._overran = False
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, with a constant program
                # -P: the folder it is started in must not shadow modules. What it prints goes where our errors go.
                [sys.executable, "-P", "-X", "faulthandler", "-c", _BOOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,
            )
        self._reaper = threading.Thread(target=self._reap, name="engine-reaper", daemon=True)
        self._reaper.start()

    def ended(self) -> bool:
        """Whether the child has ended, as far as is known; `on_exit` says when that changes."""
        return self._process.returncode is not None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def load(self, seconds: float) -> Ready:
        """Have the engine loaded, within the time; raises `EngineRefused` or `EngineDied`."""
        answer = self._exchange([sys.path, self._spec], seconds)
        if isinstance(answer, Refused):
            log.debug("engine_refused", reason=answer.reason, traceback=answer.traceback)
            raise EngineRefused(answer.reason)
        ready: Ready = answer
        return ready

    def analyse(self, images: list[bytes], seconds: float) -> list[Any]:
        """One answer per image, within the time for all of them; raises `EngineDied` or `EngineStumbled`."""
        answer = self._exchange([images], seconds)
        if isinstance(answer, BatchFailed):
            log.error("engine_raised", reason=answer.reason, traceback=answer.traceback)
            raise EngineStumbled(answer.reason)
        answers: list[Any] = answer
        return answers

    def kill(self) -> None:
        """End the child now; whoever waits for its answer gets `EngineDied`."""
        self._process.kill()

    def close(self) -> None:
        """Let the child end, by force where it does not listen; no process, thread or descriptor stays behind."""
        self._pipe.close()
        self._reaper.join(_CLOSE_SECONDS)
        if self._reaper.is_alive():
            self.kill()
            self._reaper.join()

    def _exchange(self, messages: list[Any], seconds: float) -> Any:
        # The timer covers every way to get stuck: a child that computes for ever, stops reading, or answers in part.
        timer = threading.Timer(seconds, self._overrun)
        timer.daemon = True
        timer.start()
        try:
            for message in messages:
                self._pipe.send(message)
            return self._pipe.recv()
        except Exception as exc:
            # The pipe is closed, broken in the middle of an answer (OSError), or brought no answer that can be read:
            # whatever came is not to be trusted, nor is a child that may hang in its exit.
            self.kill()
            self._reaper.join()
            died = EngineOverran if self._overran else EngineDied
            raise died(self._cause(seconds)) from exc
        finally:
            timer.cancel()
            timer.join()
            if self._overran:
                self._reaper.join()  # also after an answer in the last moment: the next batch shall see that it ended

    def _overrun(self) -> None:
        self._overran = True
        self.kill()

    def _cause(self, seconds: float) -> str:
        if self._overran:
            return f"exceeded {seconds:g} s"
        status = self._process.returncode
        return f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"

    def _reap(self) -> None:
        self._process.wait()
        self._on_exit()
