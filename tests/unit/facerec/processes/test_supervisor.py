"""The supervisor, with tiny commands in the place of real ones."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facerec.errors import FacerecError
from facerec.processes.addresses import poll_until
from facerec.processes.children import Command, Leash, Process
from facerec.processes.supervisor import Backoff, ChildFailed, Supervisor
from tests.support.processes import alive

QUICK = Backoff(first_seconds=0.01, times=2, stable_seconds=60)


def command(name: str, script: str) -> Command:
    """A shell command."""
    return Command(name, ("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]})


class Lines(list[str]):
    """Collects reported lines, and lets a test await one."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Semaphore(0)

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.append(line)
        self.arrived.release()


@pytest.fixture
def lines() -> Lines:
    """What the supervisor reports."""
    return Lines()


@pytest.fixture
def supervisor(tmp_path: Path, lines: Lines) -> Iterator[Supervisor]:
    """A supervisor with quick restarts."""
    with Supervisor(tmp_path, lines, QUICK) as found:
        yield found


def test_stages_end_in_reverse_order(tmp_path: Path, lines: Lines) -> None:
    """What was started last ends first, so that nobody loses what it depends on."""
    order = tmp_path / "order"
    trap = f"trap 'echo $0 >> {order}; exit 0' TERM; touch {tmp_path}/$0.up; while :; do sleep 0.01; done"
    with Supervisor(tmp_path, lines) as supervisor:
        for names in (("a",), ("b", "c"), ("d",)):
            supervisor.start(*(Command(n, ("/bin/sh", "-c", trap, n), {"PATH": os.environ["PATH"]}) for n in names))
        assert poll_until(lambda: all((tmp_path / f"{n}.up").exists() for n in "abcd"), 10)
    written = order.read_text().split()
    assert (written[0], set(written[1:3]), written[3]) == ("d", {"b", "c"}, "a")


def test_a_crashed_child_is_started_again(supervisor: Supervisor, lines: Lines, tmp_path: Path) -> None:
    """A SIGKILL costs one line and a new process, whose owner hears of it."""
    heard = threading.Event()
    [child] = supervisor.start(command("victim", "exec sleep 60"), on_restart=heard.set)
    supervisor.wait_until_ready(child, lambda: True, 5)
    first = child.process.pid
    os.kill(first, signal.SIGKILL)
    assert heard.wait(10)
    assert lines == ["victim ended (killed by SIGKILL); starting it again in 0.01 s"]
    assert alive(child.process.pid)
    assert child.process.pid != first


def test_a_child_that_keeps_crashing_is_given_up(supervisor: Supervisor, lines: Lines, tmp_path: Path) -> None:
    """After the last try the failure reaches the owner with the end of the log."""
    [child] = supervisor.start(command("crasher", f"test -e {tmp_path}/go || exec sleep 60; echo 'no luck'; exit 3"))
    supervisor.wait_until_ready(child, lambda: True, 5)
    (tmp_path / "go").touch()
    os.kill(child.process.pid, signal.SIGKILL)
    with pytest.raises(ChildFailed, match=r"(?s)crasher ended 3 times in a row \(exit status 3\).*no luck"):
        supervisor.wait(10)
    assert len(lines) == QUICK.times


def test_a_child_that_ends_before_it_is_ready_fails_the_start(supervisor: Supervisor, lines: Lines) -> None:
    """A wrong setting shows at once, with the command's own words, and is not tried again."""
    [child] = supervisor.start(command("wrong", "echo 'port taken'; exit 1"))
    with pytest.raises(ChildFailed, match=r"(?s)wrong ended before it was ready \(exit status 1\).*port taken"):
        supervisor.wait_until_ready(child, lambda: False, 10)
    assert lines == []


def test_a_child_that_never_gets_ready_fails_the_start(supervisor: Supervisor) -> None:
    """Readiness is awaited for a bounded time."""
    [child] = supervisor.start(command("sleeper", "exec sleep 60"))
    with pytest.raises(ChildFailed, match=r"sleeper was not ready within 0\.1 s"):
        supervisor.wait_until_ready(child, lambda: False, 0.1)


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, lines: Lines) -> None:
    """After the grace the whole process group goes."""
    with Supervisor(tmp_path, lines) as supervisor:
        [child] = supervisor.start(
            command("deaf", f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; while :; do wait; done"),
            grace_seconds=0.2,
        )
        assert poll_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", 10)
    grandchild = int((tmp_path / "pid").read_text())
    assert not alive(child.process.pid)
    assert poll_until(lambda: not alive(grandchild), 5)


def test_what_a_child_leaves_behind_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    """A command that ends while a child of its own runs on leaves no orphan."""
    assert supervisor.run(command("parent", f"sleep 60 & echo $! > {tmp_path}/pid")) == 0
    orphan = int((tmp_path / "pid").read_text())
    assert poll_until(lambda: not alive(orphan), 5)


def test_output_goes_to_the_log_and_input_is_empty(supervisor: Supervisor, tmp_path: Path) -> None:
    """Both streams are kept, and a command never reads the terminal."""
    assert supervisor.run(command("talker", "cat; echo out; echo err >&2; exit 4")) == 4
    assert sorted((tmp_path / "talker.log").read_text().split()) == ["err", "out"]


def test_a_report_that_fails_is_not_the_end_of_all_watching_unnoticed(tmp_path: Path) -> None:
    """Whoever waits hears of it: nothing would be started again."""

    def gone(_: str) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with Supervisor(tmp_path, gone, QUICK) as supervisor:
        [child] = supervisor.start(command("victim", "exec sleep 60"))
        supervisor.wait_until_ready(child, lambda: True, 5)
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(FacerecError, match="BrokenPipeError"):
            supervisor.wait(5)


def test_a_child_that_cannot_be_started_again_is_told(tmp_path: Path, lines: Lines) -> None:
    """As when the disk has no place for its log, or the machine none for a process."""
    with Supervisor(tmp_path / "logs", lines, QUICK) as supervisor:
        [child] = supervisor.start(command("victim", "exec sleep 60"))
        supervisor.wait_until_ready(child, lambda: True, 5)
        (tmp_path / "logs").rename(tmp_path / "elsewhere")
        (tmp_path / "logs").touch()
        os.kill(child.process.pid, signal.SIGKILL)
        with pytest.raises(FacerecError, match="logs"):
            supervisor.wait(5)


def test_what_runs_at_a_restart_does_not_hold_up_the_stop(tmp_path: Path, lines: Lines) -> None:
    """A command that waits for a service that hangs is ended with the others."""
    with Supervisor(tmp_path, lines, QUICK) as supervisor:

        def provision() -> None:
            supervisor.run(command("hanging", f"touch {tmp_path}/up; exec sleep 60"))

        [child] = supervisor.start(command("victim", "exec sleep 60"), on_restart=provision)
        supervisor.wait_until_ready(child, lambda: True, 5)
        os.kill(child.process.pid, signal.SIGKILL)
        assert poll_until((tmp_path / "up").exists, 10)
        began = time.monotonic()
        supervisor.stop()
        assert time.monotonic() - began < 15


def test_stop_is_harmless_twice(supervisor: Supervisor) -> None:
    """The second call finds nothing to do."""
    supervisor.start(command("sleeper", "exec sleep 60"))
    supervisor.stop()
    supervisor.stop()


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """SIGKILL leaves the supervisor no last word; the leash ends its children, gently and then by force."""
    script = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from facerec.processes.children import Command, Leash, Process
        leash = Leash(grace_seconds=0.2)
        gentle = "trap 'touch {tmp_path}/gentle; exit 0' TERM; echo ok > {tmp_path}/up; while :; do sleep 0.01; done"
        deaf = "trap '' TERM; echo ok > {tmp_path}/up2; while :; do sleep 0.01; done"
        pids = [
            Process(Command(n, ("/bin/sh", "-c", s), os.environ), Path("{tmp_path}/log"), leash).pid
            for n, s in (("gentle", gentle), ("deaf", deaf))
        ]
        print(*pids, flush=True)
        sys.stdin.read()
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert poll_until(lambda: (tmp_path / "up").exists() and (tmp_path / "up2").exists(), 10)
        assert all(map(alive, pids))
        owner.kill()
    assert poll_until(lambda: not any(map(alive, pids)), 10)
    assert (tmp_path / "gentle").exists()


def test_the_leash_forgets_a_process_that_has_ended(tmp_path: Path) -> None:
    """Its number may belong to another process by then."""
    leash = Leash(grace_seconds=0.1)
    process = Process(command("short", "exit 0"), tmp_path / "log", leash)
    assert process.wait(10) == 0
    leash.close()
    assert process.wait(0) == 0
