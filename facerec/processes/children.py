"""Child processes, each in its own process group, with its own log file and on a leash."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from facerec.processes import orphan_reaper

# The shell registers its own id with the leash, whose pipe is its standard input, and becomes the command.
_REGISTER_THEN_BECOME = 'echo "+$$" >&0 && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `argv` with the whole environment `environ`; `name` titles its log and messages."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]


class Leash:
    """A helper process that ends every process on it once this process has gone, also by SIGKILL.

    It keeps the descriptors `hold` open, so a lock among them lasts until the last process has ended.
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

    def fileno(self) -> int:
        """The pipe's writing end, which a process to be leashed gets as its standard input."""
        return self._writer

    def release(self, pid: int) -> None:
        """Take a process off; its group has ended, so its number may soon belong to another."""
        if self._writer >= 0:
            with suppress(BrokenPipeError):  # the leash itself was killed: nothing is left to release from
                os.write(self._writer, f"-{pid}\n".encode())

    def close(self) -> None:
        """End whatever is still on the leash, and the leash; idempotent. On return no process is left."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
        self._process.wait(self._grace_seconds + 5)


class Process:
    """A running command; its output is appended to `log`. Not for two threads at once."""

    def __init__(self, command: Command, log: Path, leash: Leash) -> None:
        self.name = command.name
        self.log = log
        self._leash = leash
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are ours
                ["/bin/sh", "-c", _REGISTER_THEN_BECOME, "sh", *command.argv],
                env=dict(command.environ),
                stdin=leash.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """The process id, which is also its group's."""
        return self._process.pid

    def fileno(self) -> int:
        """A descriptor that is readable once the process has ended, for selectors."""
        return self._pidfd

    def wait(self, timeout_seconds: float) -> int | None:
        """Its exit status (negative: the signal), or nothing while it runs on; whatever it left behind is killed."""
        if self._process.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(max(0.0, timeout_seconds) * 1000):
                return None
            # Before the reaping, while the number cannot be another's yet.
            self._kill_group()
            self._process.wait()
            self._leash.release(self.pid)
            os.close(self._pidfd)
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it to end; its own children are its own affair."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def stop(self, grace_seconds: float) -> int:
        """Ask it to end, and kill its whole group after the grace; returns its exit status."""
        self.terminate()
        return self.finish(grace_seconds)

    def finish(self, grace_seconds: float) -> int:
        """Let it end, and kill its whole group after the grace; returns its exit status."""
        status = self.wait(grace_seconds)
        while status is None:
            self._kill_group()
            status = self.wait(1.0)
        return status

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def describe_exit(status: int) -> str:
    """An exit status in words: `exit status 1`, `killed by SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
