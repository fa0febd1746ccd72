"""The supervisor's side of one child: start it, exchange messages under a deadline, notice its end, leave nothing."""

import multiprocessing
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import structlog

from facerec.engine.child import EngineSpec, ErrorReply, Ready
from facerec.errors import ConfigurationError

log = structlog.get_logger(__name__)

_BOOT = (
    "import sys; from multiprocessing.connection import Connection; pipe = Connection(int(sys.argv[1])); "
    "sys.path[:] = pipe.recv(); from facerec.engine.child import run; run(pipe)"
)
_CLOSE_SECONDS = 2


class FaultCause(StrEnum):
    """Why a whole batch failed; the child goes on after `RAISED` and has ended otherwise."""

    CRASHED = "crashed"
    OVERRAN = "overran"
    RAISED = "raised"


class BatchFault(Exception):
    """The child has no answer for the batch; the text ends the sentence "the engine …"."""

    def __init__(self, reason: str, cause: FaultCause) -> None:
        super().__init__(reason)
        self.cause = cause


class EngineProcess:
    """One engine child: a fresh interpreter (no fork), which imports neither Celery nor the worker's main module.

    One thread at a time may use it. The thread that creates it must outlive it: the kernel kills the child with that
    thread. `on_exit` is called from another thread as soon as the child has ended for any reason.
    The constructor raises `ConfigurationError` if the process does not start.
    """

    def __init__(self, spec: EngineSpec, on_exit: Callable[[], None]) -> None:
        self._spec = spec
        self._on_exit = on_exit
        self._overran = False
        self._pipe, theirs = multiprocessing.Pipe()
        # -P: files in the working directory must not shadow modules. Standard output goes to standard error.
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", _BOOT, str(theirs.fileno())]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, with a constant program
                    command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=sys.__stderr__
                )
        except OSError as exc:  # memory, processes or descriptors have run out, which may pass
            raise ConfigurationError(f"the engine's process does not start: {exc}") from exc
        self._reaper = threading.Thread(target=self._reap, name="engine-reaper", daemon=True)
        self._reaper.start()

    def ended(self) -> bool:
        """Whether the child has ended; `on_exit` follows the change."""
        return self._process.returncode is not None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def load(self, seconds: float) -> Ready:
        """Wait until the engine is loaded; raises `ConfigurationError`."""
        try:
            answer = self._exchange([sys.path, self._spec], seconds)
        except BatchFault as exc:
            raise ConfigurationError(
                f"the engine does not start: it {exc}; try `facerec model verify` or another FACEREC_ENGINE"
            ) from exc
        if isinstance(answer, ErrorReply):
            log.debug("engine_not_loaded", reason=answer.reason, traceback=answer.traceback)
            raise ConfigurationError(answer.reason)
        ready: Ready = answer
        return ready

    def analyse(self, images: list[bytes], seconds: float) -> list[Any]:
        """Return one answer per image; `seconds` is for the whole batch. Raises `BatchFault`."""
        answer = self._exchange([images], seconds)
        if isinstance(answer, ErrorReply):
            log.error("engine_raised", reason=answer.reason, traceback=answer.traceback)
            raise BatchFault(answer.reason, FaultCause.RAISED)
        answers: list[Any] = answer
        return answers

    def kill(self) -> None:
        """Kill the child; a thread that waits for its answer gets `BatchFault`."""
        self._process.kill()

    def close(self) -> None:
        """Let the child end, and kill it if it does not; no process, thread or descriptor remains."""
        self._pipe.close()
        self._reaper.join(_CLOSE_SECONDS)
        if self._reaper.is_alive():
            self.kill()
            self._reaper.join()

    def _exchange(self, messages: list[Any], seconds: float) -> Any:
        # The timer covers a child that computes for ever, stops reading, or sends a part of an answer.
        timer = threading.Timer(seconds, self._overrun)
        timer.daemon = True
        timer.start()
        try:
            for message in messages:
                self._pipe.send(message)
            return self._pipe.recv()
        except Exception as exc:
            # The pipe was closed, broke within an answer (OSError), or brought an answer that cannot be unpickled. The
            # child cannot be trusted any more, and it may hang in its exit.
            self.kill()
            self._reaper.join()
            raise self._fault(seconds) from exc
        finally:
            timer.cancel()
            timer.join()
            if self._overran:
                self._reaper.join()  # the answer may have come just before: the next batch must see that it ended

    def _overrun(self) -> None:
        self._overran = True
        self.kill()

    def _fault(self, seconds: float) -> BatchFault:
        if self._overran:
            return BatchFault(f"exceeded {seconds:g} s", FaultCause.OVERRAN)
        status = self._process.returncode
        reason = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
        return BatchFault(reason, FaultCause.CRASHED)

    def _reap(self) -> None:
        self._process.wait()
        self._on_exit()
