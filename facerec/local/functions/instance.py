"""One instance of a function: the Runtime Interface Emulator (RIE) with the function's runtime, as a child process."""

import http.client
import json
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facerec.errors import FacerecError
from facerec.processes.addresses import LOOPBACK, free_port
from facerec.processes.children import Command, OrphanReaper, Process

MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
"""Lambda's limit of an event and of an answer. The RIE cuts a longer event."""

_TARGET = "/2015-03-31/functions/function/invocations"
_TIMED_OUT = b"Task timed out"
"""The RIE answers a timeout by this sentence, which is no JSON, with status 200."""
_LISTEN_SECONDS = 10.0
_LISTEN_POLL_SECONDS = 0.005
_SPARE_SECONDS = 5.0
"""Beyond the function's own timeout, which the RIE keeps."""
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Function:
    """A function as it is deployed: `argv` runs its runtime, `environ` are all of its variables but Lambda's own."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    memory_mb: int
    timeout_seconds: int
    region: str = "us-east-1"

    def variables(self) -> dict[str, str]:
        """The environment of an instance; the runtime's address and the log stream come from the RIE."""
        return {
            **self.environ,
            "AWS_REGION": self.region,
            "AWS_EXECUTION_ENV": "AWS_Lambda_Image",
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory_mb),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self.timeout_seconds),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
        }


class Failure(StrEnum):
    """How an invocation failed."""

    ERROR = "error"
    """The handler raised, or its module cannot be imported."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    """The process of the function, or the RIE, has ended."""


class FunctionFailed(FacerecError):
    """An invocation that has no answer; `began` says whether the function may have seen its event."""

    def __init__(self, failure: Failure, reason: str, *, began: bool = True) -> None:
        super().__init__(f"the function failed ({failure}): {reason}")
        self.failure = failure
        self.reason = reason
        self.began = began


class Instance(AbstractContextManager["Instance"]):
    """An instance for one invocation at a time; the function is initialised by the first one, as on AWS.

    After a timeout or a crash of the function, the RIE starts it again with the next invocation. Both write to `log`.
    """

    def __init__(self, function: Function, emulator: Path, reaper: OrphanReaper, log: Path | None = None) -> None:
        self._timeout_seconds = function.timeout_seconds
        self._port, runtime_port = free_port(), free_port()
        argv = (
            *(str(emulator), "--log-level", "error"),
            *("--runtime-interface-emulator-address", f"{LOOPBACK}:{self._port}"),
            *("--runtime-api-address", f"{LOOPBACK}:{runtime_port}"),
            *function.argv,
        )
        self._process = Process(Command(function.name, argv, function.variables()), reaper, log)

    @property
    def pid(self) -> int:
        """The process id of the RIE."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the RIE runs; the function itself may have to be started again."""
        return self._process.poll() is None

    def invoke(self, event: bytes) -> bytes:
        """Return the function's answer to an event, both JSON; raises `FunctionFailed`.

        An answer with `errorType` and `errorMessage` counts as an error: the RIE sends a handler's exception like that,
        with status 200.
        """
        connection = self._connected()
        try:
            connection.request("POST", _TARGET, body=event)
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError as exc:
            self._process.terminate()
            raise FunctionFailed(Failure.TIMEOUT, "the Runtime Interface Emulator does not answer") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise FunctionFailed(Failure.CRASH, f"the Runtime Interface Emulator has ended: {exc!r}") from exc
        finally:
            connection.close()
        if answer.startswith(_TIMED_OUT):
            raise FunctionFailed(Failure.TIMEOUT, answer.decode(errors="replace"))
        error = _error(answer)
        if error is not None:
            kind = Failure.CRASH if error.startswith("Runtime.ExitError") else Failure.ERROR
            raise FunctionFailed(kind, error)
        if response.status != http.client.OK or not answer:
            # Without a body: 502 if the function has ended while it was started again, 200 if the RIE is being ended.
            raise FunctionFailed(Failure.CRASH, f"status {response.status}: {answer[:200]!r}")
        return answer

    def terminate(self) -> None:
        """Ask the RIE to end, which ends the function at once; any thread may call it during an invocation."""
        self._process.terminate()

    def stop(self) -> None:
        """End the RIE and the function; idempotent."""
        self._process.terminate()
        self._process.finish(_STOP_SECONDS)

    def __exit__(self, *_: object) -> None:  # noqa: D105 - `with` ends the instance
        self.stop()

    def _connected(self) -> http.client.HTTPConnection:
        """A connection to the RIE, which listens some milliseconds after its start."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=self._timeout_seconds + _SPARE_SECONDS)
        deadline = time.monotonic() + _LISTEN_SECONDS
        while self.running and time.monotonic() < deadline:
            with suppress(ConnectionRefusedError):
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            time.sleep(_LISTEN_POLL_SECONDS)
        raise FunctionFailed(Failure.CRASH, "the Runtime Interface Emulator does not listen")


def _error(answer: bytes) -> str | None:
    """An error answer in words: `ValueError: bad`; None for any other answer."""
    if b'"errorType"' not in answer:
        return None
    with suppress(ValueError):
        read = json.loads(answer)
        if isinstance(read, dict) and "errorType" in read and "errorMessage" in read:
            return f"{read['errorType']}: {read['errorMessage']}"
    return None
