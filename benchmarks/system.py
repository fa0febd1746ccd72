"""The real system for a measurement or a test: `facerec local up` as a child process, ended by Ctrl-C."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
FACEREC = (sys.executable, "-m", "facerec.cli")


class System:
    """A running system in its own state directory; a context manager.

    Without `workers` its fleet is elastic. `options` are further ones of `facerec local up`, `environ` further
    `FACEREC_*` variables; of the inherited ones only those of the model count. Raises `RuntimeError` with its output
    when it does not come up.
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
        self.state.mkdir(parents=True, exist_ok=True)
        self._output = self.state / "up.log"
        # What is measured or tested is the service; who wants Flower, too, says so.
        arguments = ("local", "up", "--no-flower", "--state", str(self.state), *self._options)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                (*FACEREC, *arguments), cwd=ROOT, env=self._base, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + self._start_timeout_seconds
        while not (exports := self._exports()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the system did not come up:\n{self._output.read_text()}")
            time.sleep(0.2)
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
                except OSError:  # it has just ended, or is another user's
                    continue
                if words in command and any(mark in environ for mark in marks):
                    found.append(int(folder.name))
        return found

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `facerec` command against it; raises `CalledProcessError` with the output in its notes."""
        done = subprocess.run(
            (*FACEREC, *arguments), cwd=ROOT, env=self.environ, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise RuntimeError(
                f"facerec {shlex.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    @contextmanager
    def worker(self, environ: Mapping[str, str] | None = None, *, tree: Path = ROOT) -> Iterator[int]:
        """One more worker, started as an operator does it from a checkout's root; yields its process id.

        It ends in good order at the end of the block. What it prints is in `bench-worker.log` in the state directory.
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
        done = subprocess.run(
            (*FACEREC, "local", "env", "--state", str(self.state)),
            cwd=ROOT,
            env=self._base,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {}
        words = shlex.split(done.stdout, comments=True)
        return dict(word.split("=", 1) for word in words if "=" in word)
