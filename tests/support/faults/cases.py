"""The faults: how each is injected into a running system, and what its processes need for it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from facerec.processes.addresses import poll_until
from facerec.processes.supervisor import Child
from tests.support.faults import clock
from tests.support.faults.clients import FaultAction
from tests.support.faults.outcomes import held
from tests.support.faults.proxied_system import START_SECONDS, Processes, ProxiedSystem
from tests.support.faults.rules import Harm, Rule, of
from tests.support.processes import descendants

_LEAD_SECONDS = 4.0
"""Undisturbed load before the fault."""
_FROZEN_SECONDS = 15.0
_KILLS = 5
_IDLE_SECONDS = 60.0
_GATHER_SECONDS = 2.0
_WITHOUT_QUEUE_SECONDS = 5.0
_LOST_DELETES_SECONDS = 10.0
_AN_HOUR_SECONDS = 3600
_MOVED_SECONDS = 60.0
_LAST_LINES = 5

_DISK = "FACEREC_MODEL__CACHE_DIR"


class NotInjected(Exception):
    """The fault was not injected, so a good outcome proves nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    If it `lasts`, the proxy injects it until the last client has its answer; otherwise the load continues until it is
    over. If it `redelivers`, it had no effect unless a task was delivered again. `processes` gets its own folder.
    `missing` says what this machine lacks. Every `poisoned`-th photo kills the engine; 0 for none.
    """

    name: str
    harm: FaultAction
    processes: Callable[[Path], Processes] = lambda _: Processes()
    missing: Callable[[], str | None] = lambda: None
    lasts: bool = False
    redelivers: bool = False
    poisoned: int = 0


def kill_workers(
    system: ProxiedSystem,
    over: threading.Event,
    kills: int = _KILLS,
    pause_seconds: float = _LEAD_SECONDS,
    idle_seconds: float = _IDLE_SECONDS,
) -> None:
    """SIGKILL one worker after the other, each while it holds a task; each is started again.

    Raises `NotInjected` if a worker has no task for `idle_seconds`.
    """
    for number in range(kills):
        over.wait(pause_seconds)
        worker = system.workers[number % len(system.workers)]
        if not poll_until(partial(system.works, worker), idle_seconds):
            raise NotInjected(f"{worker.name} has held no task for {idle_seconds:g} s")
        system.kill(worker)


def kill_engines(system: ProxiedSystem, over: threading.Event) -> None:
    """SIGKILL the engine process of each worker. Its successor finds the files that it left."""
    over.wait(_LEAD_SECONDS)
    engines = [pid for worker in system.workers for pid in descendants(worker.pid, "facerec.engine.child")]
    if not engines:
        raise NotInjected("no worker has an engine process")
    for pid in engines:
        os.kill(pid, signal.SIGKILL)


def kill_web(system: ProxiedSystem, over: threading.Event, lead_seconds: float = _LEAD_SECONDS) -> None:
    """SIGKILL the web tier; it is started again."""
    over.wait(lead_seconds)
    before = system.web.pid
    system.kill(system.web)
    if not poll_until(lambda: system.web.pid != before and system.serves(), START_SECONDS):
        raise TimeoutError("the web tier has not come back")


def freeze_aws(
    system: ProxiedSystem, over: threading.Event, seconds: float = _FROZEN_SECONDS, lead_seconds: float = _LEAD_SECONDS
) -> None:
    """SIGSTOP the emulator for a while: connections stay open, and no call is answered."""
    over.wait(lead_seconds)
    system.send(signal.SIGSTOP, system.emulator)
    try:
        time.sleep(seconds)
    finally:
        system.send(signal.SIGCONT, system.emulator)


def rules(*harms: Rule) -> FaultAction:
    """Give the proxy these rules until the last client has its answer."""

    def lasting(system: ProxiedSystem, over: threading.Event) -> None:
        system.proxy.rules = harms
        over.wait()
        system.proxy.rules = ()

    return lasting


def recreate_queue(
    system: ProxiedSystem,
    over: threading.Event,
    seconds: float = _WITHOUT_QUEUE_SECONDS,
    lead_seconds: float = _LEAD_SECONDS,
) -> None:
    """Delete the request queue while tasks wait in it, and create it again as an operator does.

    Raises `NotInjected`, and deletes nothing, if no task waits.
    """
    over.wait(lead_seconds)
    sqs = system.aws("sqs")
    url = sqs.get_queue_url(QueueName=f"{system.prefix}-req-queue")["QueueUrl"]
    system.send(signal.SIGSTOP, *system.workers)  # so that tasks wait in it
    try:
        time.sleep(_GATHER_SECONDS)
        if not held(sqs, url):
            raise NotInjected("no task was in the queue")
        sqs.delete_queue(QueueUrl=url)
    finally:
        system.send(signal.SIGCONT, *system.workers)
    time.sleep(seconds)
    system.run("provision")


def duplicate(system: ProxiedSystem, over: threading.Event, seconds: float = _LOST_DELETES_SECONDS) -> None:
    """Send every other message twice, tasks and results alike, and for `seconds` drop every fifth delete.

    `seconds` is below the visibility timeout, so that SQS moves no task to the dead-letter queue.
    """
    sends = Rule(Harm.TWICE, share=0.5, matches=of("sqs", "SendMessage", "SendMessageBatch"))
    deletes = Rule(Harm.SWALLOW, share=0.2, matches=of("sqs", "DeleteMessage", "DeleteMessageBatch"))
    system.proxy.rules = (sends, deletes)
    over.wait(seconds)
    system.proxy.rules = (sends,)
    over.wait()
    system.proxy.rules = ()


def jump_clock(system: ProxiedSystem, over: threading.Event) -> None:
    """Put the clock of both tiers an hour ahead, then an hour behind, then right; check their logs for it."""
    for offset in (_AN_HOUR_SECONDS, -_AN_HOUR_SECONDS, 0):
        over.wait(_LEAD_SECONDS)
        clock.shift(system.environ, offset)
        for tier in (system.web, *system.workers):
            if not poll_until(partial(_is_ahead, system, tier, offset), _MOVED_SECONDS):
                raise NotInjected(f"the clock of {tier.command.name} has not moved by {offset} s")


def _is_ahead(system: ProxiedSystem, child: Child, offset: int) -> bool:
    """Whether the last lines of a process's log are `offset` seconds ahead of the true time, within a minute."""
    lines = system.log(child).rpartition("\n")[0].splitlines()[-_LAST_LINES:]  # the last one may still be written
    stamps = [json.loads(line).get("timestamp") for line in lines if line.startswith("{")]
    now = datetime.now(UTC)
    return any(
        abs((datetime.fromisoformat(stamp) - now).total_seconds() - offset) < _MOVED_SECONDS
        for stamp in stamps
        if stamp
    )


def nothing(system: ProxiedSystem, over: threading.Event) -> None:
    """Inject nothing: the fault is in the photos."""
    del system, over


def _on_a_clock(folder: Path) -> Processes:
    return Processes(environ=clock.shifted_clock(folder))


def _on_a_full_disk(folder: Path) -> Processes:
    """The model's cache is a file system of 64 KiB without a free byte, in a mount namespace of each process.

    Files can be made there, but stay empty; a process that finds them must not take them for complete.
    """
    disk = folder / "disk"
    disk.mkdir()
    return Processes(within=(*_unshare(), "sh", "-c", f'{_FILL_DISK} && exec "$@"', "sh"), environ={_DISK: str(disk)})


_FILL_DISK = f'mount -t tmpfs -o size=64k none "${_DISK}" && {{ cat /dev/zero > "${_DISK}/full" 2>/dev/null || true; }}'


def _unshare() -> tuple[str, ...]:
    return ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")


def _no_compiler() -> str | None:
    return None if clock.compiler() else "no C compiler to build the shifted clock: apt-get install gcc libc6-dev"


def _no_namespaces() -> str | None:
    tried = shutil.which("unshare") and subprocess.run(
        (*_unshare(), "mount", "-t", "tmpfs", "none", "/mnt"), capture_output=True, check=False
    )
    if tried and tried.returncode == 0:
        return None
    return "no mount namespaces here: run as root, or allow unprivileged user namespaces"


def _poisoned(folder: Path) -> Processes:
    del folder
    return Processes(worker=(sys.executable, "-m", "tests.support.faults.poisoned_worker"))


_REFUSED = Rule(Harm.REFUSE, share=0.2, matches=of("s3"), code="SlowDown")
_RESETS = (Rule(Harm.RESET_BEFORE, share=0.05), Rule(Harm.RESET_AFTER, share=0.05))

FAULTS = (
    Fault("worker killed 5 times", kill_workers, redelivers=True),
    Fault("web killed", kill_web),
    Fault("aws frozen 15 s", freeze_aws),
    Fault("connections reset 10 %", rules(*_RESETS), lasts=True),
    Fault("s3 503 20 %", rules(_REFUSED), lasts=True),
    Fault("latency 500 ms", rules(Rule(Harm.DELAY, seconds=0.5)), lasts=True),
    Fault("queue deleted and created", recreate_queue),
    Fault("duplicate deliveries", duplicate, lasts=True),
    Fault("clock jumps 1 h", jump_clock, processes=_on_a_clock, missing=_no_compiler),
    Fault("disk full", kill_engines, processes=_on_a_full_disk, missing=_no_namespaces),
    Fault("poison", nothing, processes=_poisoned, poisoned=40),
)
