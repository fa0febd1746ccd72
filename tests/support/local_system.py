"""The real system for a measurement or a test: `facerec local up` as a child process, ended by Ctrl-C."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import boto3

from facerec.local.ec2_host import emulated_ec2, running_instances
from facerec.processes.addresses import poll_until
from tests.support.processes import CHECKOUT, facerec


class LocalSystem:
    """A running system in its own state directory; a context manager.

    With `workers` None its fleet is elastic. `options` are more options of `facerec local up`, `environ` more
    `FACEREC_*` variables; of the inherited ones only FACEREC_MODEL__* are used. Raises `RuntimeError` with its output
    if it does not start.
    """

    def __init__(
        self,
        state: Path,
        *,
        workers: int | None = 1,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        start_timeout_seconds: float = 120,
    ) -> None:
        self.state = state
        self._options = (*options, *(() if workers is None else ("--workers", str(workers))))
        self._start_timeout_seconds = start_timeout_seconds
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "FACEREC_")) or name.startswith("FACEREC_MODEL__")
        }
        self._base = {
            **inherited,
            **(environ or {}),
        }
        self.environ: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the web tier, with a slash at its end."""
        return f"http://127.0.0.1:{self.environ['FACEREC_WEB__PORT']}/"

    @property
    def pid(self) -> int:
        """The process id of `facerec local up`, whose children are the emulator and the tiers."""
        if self._process is None:
            raise RuntimeError("the system has not been started")
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it and wait until it serves."""
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._output = self.state / "up.log"
        # Flower is off: measurements and tests are of the service.
        arguments = ("local", "up", "--no-flower", "--port", "0", "--state", str(self.state), *self._options)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                facerec(*arguments), cwd=CHECKOUT, env=self._base, stdout=output, stderr=subprocess.STDOUT
            )
        process = self._process
        exports: dict[str, str] = {}

        def is_decided() -> bool:
            nonlocal exports
            exports = self._exports()
            return bool(exports) or process.poll() is not None

        poll_until(is_decided, self._start_timeout_seconds)
        if not exports:
            self.stop()
            raise RuntimeError(f"the system did not come up:\n{self._output.read_text()}")
        self.environ = {**self._base, **exports}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it as Ctrl-C does."""
        self.stop()

    def stop(self, timeout_seconds: float = 20) -> float:
        """Send Ctrl-C's signal and wait for the end; returns the seconds it took."""
        started = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout_seconds)
            finally:
                if self._process.poll() is None:
                    self._process.kill()
        return time.monotonic() - started

    def processes(self, words: str) -> list[int]:
        """The ids of this system's processes whose command line holds these words."""
        marks = (str(self.state).encode(), self.environ["AWS_ENDPOINT_URL"].encode())
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    environ = (folder / "environ").read_bytes()
                except OSError:  # it has just ended, or belongs to another user
                    continue
                if words in command and any(mark in environ for mark in marks):
                    found.append(int(folder.name))
        return found

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `facerec` command against it; raises `CalledProcessError` with the output in its notes."""
        done = subprocess.run(
            facerec(*arguments), cwd=CHECKOUT, env=self.environ, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(
                f"facerec {shlex.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    @contextmanager
    def worker(self, environ: Mapping[str, str] | None = None, *, tree: Path = CHECKOUT) -> Iterator[int]:
        """One more worker, started as an operator does it from a checkout's root; yields its process id.

        It gets SIGTERM at the end of the block. Its output is in `bench-worker.log` in the state directory.
        """
        with (self.state / "bench-worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "facerec", "worker"],
                cwd=tree,
                env={**self.environ, "PYTHONPATH": str(tree), **(environ or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield worker.pid
            finally:
                worker.send_signal(signal.SIGTERM)
                worker.wait(60)

    def _exports(self) -> dict[str, str]:
        """The variables that `facerec local env` prints, once the system is ready; nothing before."""
        # The command takes half a second of a processor, so it is not asked before it can answer.
        if not (self.state / "running.json").exists():
            return {}
        done = subprocess.run(
            facerec("local", "env", "--state", str(self.state)),
            cwd=CHECKOUT,
            env=self._base,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {}
        words = shlex.split(done.stdout, comments=True)
        return dict(word.split("=", 1) for word in words if "=" in word)


_LOOK_SECONDS = 0.1
_QUIET_SECONDS = 2.0


class FleetWatch:
    """Counts pending and running instances ten times a second, in its own thread; a context manager."""

    def __init__(self, system: LocalSystem) -> None:
        self._ec2 = emulated_ec2(system.environ)
        self._prefix = system.environ.get("FACEREC_PREFIX", "facerec")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[tuple[float, int]] = []
        """(`time.monotonic()`, instances)."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._stopped.set()
        self._thread.join()

    def most(self) -> int:
        """The greatest number of instances at one time."""
        return max((count for _, count in self.seen), default=0)

    def zero_after(self, moment: float, timeout_seconds: float) -> float:
        """Seconds from `moment` (of `time.monotonic()`) until there are none, and none for two seconds more.

        Raises `TimeoutError` after `timeout_seconds`.
        """

        def last_busy() -> float:
            return max((at for at, count in self.seen if count > 0), default=moment)

        def quiet() -> bool:
            empty = bool(self.seen) and self.seen[-1][1] == 0
            return empty and time.monotonic() - max(last_busy(), moment) > _QUIET_SECONDS

        if not poll_until(quiet, timeout_seconds):
            raise TimeoutError(f"instances still run {timeout_seconds:g} s after the last answer")
        return max(last_busy() - moment, 0.0)

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                count = len(running_instances(self._ec2, self._prefix, pending=True))
            except Exception:  # noqa: BLE001, S112 - the emulator may be frozen on purpose
                continue
            self.seen.append((time.monotonic(), count))


def queue_counts(system: LocalSystem, queue: str) -> tuple[int, int]:
    """Messages that are visible and in flight in a queue."""
    sqs = boto3.Session(
        aws_access_key_id=system.environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=system.environ["AWS_SECRET_ACCESS_KEY"],
        region_name=system.environ["AWS_DEFAULT_REGION"],
    ).client("sqs", endpoint_url=system.environ["AWS_ENDPOINT_URL"])
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]  # type: ignore[arg-type] # literals
    return int(attributes[names[0]]), int(attributes[names[1]])  # type: ignore[index] # as above
