"""Child processes, each in its own process group, which end when this process ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from facerec.processes import orphan_reaper
from facerec.processes.addresses import poll_until

# The shell registers its own id with the reaper, whose pipe is its standard input, and becomes the command.
_REGISTER_THEN_BECOME = 'echo "+$$" >&0 && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `argv` with the whole environment `environ`, and the open descriptors `pass_fds`."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()


class OrphanReaper:
    """A process that ends the registered processes once this process has ended, also by SIGKILL.

    They get SIGTERM, and SIGKILL after the grace. The reaper keeps the descriptors `hold` open, so a lock among them
    lasts until the last process has ended.
    """

    def __init__(self, grace_seconds: float = 5.0, hold: Sequence[int] = ()) -> None:
        reader, self._writer = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", orphan_reaper.__file__, str(grace_seconds)],
            stdin=reader,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=hold,
        )
        os.close(reader)
        self._grace_seconds = grace_seconds

    @property
    def running(self) -> bool:
        """Whether the reaper still runs; without it no process can be started."""
        return self._process.poll() is None

    def fileno(self) -> int:
        """The pipe's writing end, which is the standard input of a process that registers itself."""
        return self._writer

    def release(self, pid: int) -> None:
        """Forget a process: its group has ended, and another process may get its number."""
        if self._writer >= 0:
            with suppress(BrokenPipeError):  # the reaper itself was killed
                os.write(self._writer, f"-{pid}\n".encode())

    def close(self) -> None:
        """End the processes that are still registered, and the reaper; idempotent."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        self._process.wait(self._grace_seconds + 5)


class Process:
    """A running command; its output is appended to `log`, or goes where this process's goes. For one thread at a time.

    Raises `OSError` when it cannot be started.
    """

    def __init__(self, command: Command, reaper: OrphanReaper, log: Path | None = None) -> None:
        self._reaper = reaper
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        with nullcontext() if log is None else log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are ours
                ["/bin/sh", "-c", _REGISTER_THEN_BECOME, "sh", *command.argv],
                env=dict(command.environ),
                stdin=reaper.fileno(),
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                pass_fds=command.pass_fds,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status (negative: the signal), or None while it runs; the rest of its group is killed first."""
        if self._process.returncode is None:
            # The process stays a zombie until its group is killed: no other process can get its number before.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            self._kill_group()
            self._process.wait()
            self._reaper.release(self.pid)
        return self._process.returncode

    def terminate(self) -> None:
        """Send SIGTERM to the process, not to its children."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def finish(self, grace_seconds: float) -> int:
        """Wait for its end, kill its group after the grace, and return its exit status."""
        poll_until(lambda: self.poll() is not None, grace_seconds)
        while (status := self.poll()) is None:
            self._kill_group()
            poll_until(lambda: self.poll() is not None, 1.0)
        return status

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """An exit status in words: `exit status 1`, `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"


def last_lines(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
