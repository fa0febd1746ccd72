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
from facerec.processes.children import Command, OrphanReaper, Process
from facerec.processes.supervisor import Child, ChildFailed, Restarts, Supervisor
from tests.support.processes import alive

QUICK = Restarts(first_seconds=0.01, times=2, stable_seconds=60)


def command(name: str, script: str) -> Command:
    """A shell command."""
    return Command(name, ("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]})


class Reports(list[str]):
    """Collects what the supervisor reports."""

    def __call__(self, child: Child, how: str, restart_seconds: float) -> None:
        """Take a report."""
        self.append(f"{child.name}: {how}, {restart_seconds:g} s")


@pytest.fixture
def reports() -> Reports:
    """What the supervisor reports."""
    return Reports()


@pytest.fixture
def supervisor(tmp_path: Path, reports: Reports) -> Iterator[Supervisor]:
    """A supervisor with quick restarts."""
    with Supervisor(reports, log_dir=tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("restarts", "delays"),
    [(Restarts(), [0.5, 1, 2, 4, 8, None]), (Restarts(1, 30, times=None), [1, 2, 4, 8, 16, 30, 30])],
)
def test_restarts_come_less_and_less_often(restarts: Restarts, delays: list[float | None]) -> None:
    """Until the child is given up, or without an end."""
    assert [restarts.delay_seconds(failures) for failures in range(1, len(delays) + 1)] == delays


def test_stages_end_in_reverse_order(tmp_path: Path, supervisor: Supervisor) -> None:
    """What was started last ends first: what it depends on still runs."""
    order = tmp_path / "order"
    trap = f"trap 'echo $0 >> {order}; exit 0' TERM; touch {tmp_path}/$0.up; while :; do sleep 0.01; done"
    for names in (("a",), ("b", "c"), ("d",)):
        supervisor.start(*(Command(n, ("/bin/sh", "-c", trap, n), {"PATH": os.environ["PATH"]}) for n in names))
    assert poll_until(lambda: all((tmp_path / f"{n}.up").exists() for n in "abcd"), 10)
    supervisor.stop()
    written = order.read_text().split()
    assert (written[0], set(written[1:3]), written[3]) == ("d", {"b", "c"}, "a")


def test_crashed_child_is_started_again(supervisor: Supervisor, reports: Reports) -> None:
    """After a report, and `on_restart` is called."""
    restarted = threading.Event()
    [child] = supervisor.start(command("victim", "exec sleep 60"), restarts=QUICK, on_restart=lambda _: restarted.set())
    supervisor.wait_until_ready(child, lambda: True, 5)
    first = child.pid
    os.kill(first, signal.SIGKILL)
    assert restarted.wait(10)
    assert reports == ["victim: killed by SIGKILL, 0.01 s"]
    assert alive(child.pid)
    assert child.pid != first


def test_child_that_keeps_crashing_is_given_up(supervisor: Supervisor, reports: Reports, tmp_path: Path) -> None:
    """The failure ends with the end of the log."""
    script = f"test -e {tmp_path}/go || exec sleep 60; echo 'no luck'; exit 3"
    [child] = supervisor.start(command("crasher", script), restarts=QUICK)
    supervisor.wait_until_ready(child, lambda: True, 5)
    (tmp_path / "go").touch()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildFailed, match=r"(?s)crasher ended 3 times in a row \(exit status 3\).*no luck"):
        supervisor.wait(10)
    assert len(reports) == QUICK.times


@pytest.mark.parametrize("restarts", [Restarts(0.01, times=None), Restarts(0.01, times=1, stable_seconds=0)])
def test_child_is_never_given_up(tmp_path: Path, reports: Reports, restarts: Restarts) -> None:
    """Without a limit, or if each of its processes has run for long enough."""
    with Supervisor(reports, log_dir=tmp_path) as supervisor:
        [child] = supervisor.start(command("crasher", f"test -e {tmp_path}/go || exec sleep 60"), restarts=restarts)
        supervisor.wait_until_ready(child, lambda: True, 5)
        (tmp_path / "go").touch()
        os.kill(child.pid, signal.SIGKILL)
        assert poll_until(lambda: len(reports) >= 4, 10)
        supervisor.wait(0)


def test_ended_child_is_not_started_again(supervisor: Supervisor, reports: Reports, tmp_path: Path) -> None:
    """It gets SIGTERM, and its whole group SIGKILL after the grace."""
    gentle, deaf = supervisor.start(
        command("gentle", "exec sleep 60"),
        command("deaf", f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 1; done"),
    )
    assert poll_until((tmp_path / "up").exists, 10)
    for child in (gentle, deaf):
        supervisor.wait_until_ready(child, lambda: True, 5)
        supervisor.end(child, 0.2)
    assert poll_until(lambda: not gentle.running and not deaf.running, 10)
    assert reports == []


def test_child_that_ends_before_it_is_ready_fails_the_start(supervisor: Supervisor, reports: Reports) -> None:
    """With the command's own words; it is not started again."""
    [child] = supervisor.start(command("wrong", "echo 'port taken'; exit 1"))
    with pytest.raises(ChildFailed, match=r"(?s)wrong ended before it was ready \(exit status 1\).*port taken"):
        supervisor.wait_until_ready(child, lambda: False, 10)
    assert reports == []


def test_child_that_never_gets_ready_fails_the_start(supervisor: Supervisor) -> None:
    """The time is over."""
    [child] = supervisor.start(command("sleeper", "exec sleep 60"))
    with pytest.raises(ChildFailed, match=r"sleeper was not ready within 0\.1 s"):
        supervisor.wait_until_ready(child, lambda: False, 0.1)


def test_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, reports: Reports) -> None:
    """After the grace, as a whole process group."""
    with Supervisor(reports, log_dir=tmp_path) as supervisor:
        [child] = supervisor.start(
            command("deaf", f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; while :; do wait; done"),
            grace_seconds=0.2,
        )
        assert poll_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", 10)
    grandchild = int((tmp_path / "pid").read_text())
    assert not alive(child.pid)
    assert poll_until(lambda: not alive(grandchild), 5)


def test_processes_that_a_child_leaves_behind_are_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    """A command that ends before its own child leaves no orphan."""
    supervisor.run(command("parent", f"sleep 60 & echo $! > {tmp_path}/pid"))
    orphan = int((tmp_path / "pid").read_text())
    assert poll_until(lambda: not alive(orphan), 5)


def test_output_goes_to_the_log_and_input_is_empty(supervisor: Supervisor, tmp_path: Path) -> None:
    """Both streams are kept, and a failure shows the end of the log."""
    with pytest.raises(ChildFailed, match=r"(?s)talker failed \(exit status 4\).*out"):
        supervisor.run(command("talker", "cat; echo out; echo err >&2; exit 4"))
    assert sorted((tmp_path / "talker.log").read_text().split()) == ["err", "out"]


def test_failing_report_is_the_failure_of_the_supervisor(tmp_path: Path) -> None:
    """Nothing would be started again."""

    def gone(_child: Child, _how: str, _seconds: float) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with Supervisor(gone, log_dir=tmp_path) as supervisor:
        [child] = supervisor.start(command("victim", "exec sleep 60"), restarts=QUICK)
        supervisor.wait_until_ready(child, lambda: True, 5)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(FacerecError, match="BrokenPipeError"):
            supervisor.wait(5)


def test_child_that_cannot_be_started_again_is_given_up(tmp_path: Path, reports: Reports) -> None:
    """As when there is no space for its log, or for another process."""
    with Supervisor(reports, log_dir=tmp_path / "logs") as supervisor:
        [child] = supervisor.start(command("victim", "exec sleep 60"), restarts=QUICK)
        supervisor.wait_until_ready(child, lambda: True, 5)
        (tmp_path / "logs").rename(tmp_path / "elsewhere")
        (tmp_path / "logs").touch()
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ChildFailed, match=r"cannot be started: .*logs"):
            supervisor.wait(5)


def test_command_that_runs_at_a_restart_does_not_delay_the_stop(tmp_path: Path, reports: Reports) -> None:
    """It is ended with the others."""
    with Supervisor(reports, log_dir=tmp_path) as supervisor:

        def provision(_: Child) -> None:
            supervisor.run(command("hanging", f"touch {tmp_path}/up; exec sleep 60"))

        [child] = supervisor.start(command("victim", "exec sleep 60"), restarts=QUICK, on_restart=provision)
        supervisor.wait_until_ready(child, lambda: True, 5)
        os.kill(child.pid, signal.SIGKILL)
        assert poll_until((tmp_path / "up").exists, 10)
        began = time.monotonic()
        supervisor.stop()
        assert time.monotonic() - began < 15


def test_interrupted_stop_kills_the_children(supervisor: Supervisor, tmp_path: Path) -> None:
    """As by a second stop signal."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    [child] = supervisor.start(command("deaf", f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 1; done"))
    assert poll_until((tmp_path / "up").exists, 10)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        supervisor.stop()
    signal.signal(signal.SIGALRM, before)
    assert not alive(child.pid)


def test_stop_is_harmless_twice(supervisor: Supervisor) -> None:
    """The second call has nothing to do."""
    supervisor.start(command("sleeper", "exec sleep 60"))
    supervisor.stop()
    supervisor.stop()


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """The orphan reaper ends its children by SIGTERM, or after the grace by SIGKILL."""
    script = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from facerec.processes.children import Command, OrphanReaper, Process
        reaper = OrphanReaper(grace_seconds=0.2)
        gentle = "trap 'touch {tmp_path}/gentle; exit 0' TERM; echo ok > {tmp_path}/up; while :; do sleep 0.01; done"
        deaf = "trap '' TERM; echo ok > {tmp_path}/up2; while :; do sleep 0.01; done"
        pids = [
            Process(Command(n, ("/bin/sh", "-c", s), os.environ), reaper, Path("{tmp_path}/log")).pid
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


def test_reaper_forgets_a_process_that_has_ended(tmp_path: Path) -> None:
    """Another process may get its number."""
    reaper = OrphanReaper(grace_seconds=0.1)
    process = Process(command("short", "exit 0"), reaper, tmp_path / "log")
    assert process.finish(10) == 0
    reaper.close()
    assert process.poll() == 0


def test_log_of_a_running_process_is_bounded(tmp_path: Path, reports: Reports) -> None:
    """However much it writes."""
    with Supervisor(reports, log_dir=tmp_path, log_bytes=100) as supervisor:
        supervisor.start(command("loud", "while :; do echo line; sleep 0.01; done"))
        former = tmp_path / "loud.log.1"
        assert poll_until(former.exists, 10)
        former.unlink()
        assert poll_until(former.exists, 10)
