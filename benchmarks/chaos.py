"""Faults during uploads on the real local fleet. Checks that nothing is lost and that the fleet keeps its limits.

    python -m benchmarks.chaos --requests 600 --max-instances 4

The faults come one after the other, while uploads wait:

1. an instance is stopped without the autoscaler's knowledge;
2. the workers of two other instances are killed;
3. the leading autoscaler is killed and started again;
4. DescribeInstances fails for 20 s;
5. the emulated AWS is frozen for 10 s (SIGSTOP).

A second autoscaler waits for the lease all the time. The clients upload until the last fault is over. They send again
what is refused with 503 (`refused`). The last line is one JSON object, as of benchmarks.burst, with the faults and
their times. `not_harmed` names a fault that had no effect, so that the run proves nothing. The exit status is 1 if
`amiss` or `not_harmed` is set.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.burst import judged
from benchmarks.endless import ContinuousUploads
from benchmarks.roundtrip import workload
from facerec.local.ec2_host import emulated_ec2, running_instances
from tests.support.faults.cases import NotInjected
from tests.support.faults.faulty_aws import FaultyAws, faulty_aws
from tests.support.faults.rules import Harm, Rule, of
from tests.support.local_system import FleetWatch, LocalSystem
from tests.support.measurements.summaries import BurstFigures, burst_failures
from tests.support.processes import CHECKOUT, facerec

_DESCRIBE_FAILS_SECONDS = 20.0
_FROZEN_SECONDS = 10.0
_HARMED = 3
"""Instances: one is stopped, the workers of the others are killed."""


class Faults:
    """Injects the faults in its own thread and records them; raises `NotInjected` if one has no effect."""

    def __init__(
        self,
        system: LocalSystem,
        proxy: FaultyAws,
        leader: "Autoscaler",
        standby: "Autoscaler",
        clients: ContinuousUploads,
    ) -> None:
        self._system, self._proxy, self._crowd = system, proxy, clients
        self._leader, self._standby = leader, standby
        self._ec2 = emulated_ec2(system.environ)
        self._began = time.monotonic()
        self.done: list[str] = []

    def run(self) -> None:
        """Inject all faults, once enough workers run."""
        self._await("there are too few workers", lambda: len(self._workers()) >= _HARMED)
        time.sleep(3)
        before = self._workers()
        self._note(f"stopped {self._stop_one()}")
        self._await("no worker has ended", lambda: len(set(before) - set(self._workers())) > 0)
        victims = [pid for pid in self._workers() if pid in before][: _HARMED - 1]
        if len(victims) < _HARMED - 1:
            raise NotInjected(f"only {len(victims)} workers are left to be killed")
        for pid in victims:
            os.killpg(pid, signal.SIGKILL)
            self._note("killed a worker")
        self._leader.kill()
        self._note("killed the leading autoscaler")
        time.sleep(3)
        self._leader.start()
        self._note("started it again")
        self._await("the other autoscaler never took over", lambda: self._standby.logged("leading"))
        self._note("the other one has taken over")
        self._refuse_describing()
        self._freeze()

    def _refuse_describing(self) -> None:
        before = sum(self._proxy.harmed.values())
        self._proxy.rules = (Rule(Harm.REFUSE, matches=of("ec2", "DescribeInstances"), code="Unavailable"),)
        self._note(f"DescribeInstances fails for {_DESCRIBE_FAILS_SECONDS:g} s")
        time.sleep(_DESCRIBE_FAILS_SECONDS)
        self._proxy.rules = ()
        refused = sum(self._proxy.harmed.values()) - before
        if not refused:
            raise NotInjected("no DescribeInstances was refused")
        self._note(f"it was refused {refused} times")

    def _freeze(self) -> None:
        [emulator] = self._system.processes("facerec.local.ministack_server")
        os.kill(emulator, signal.SIGSTOP)
        try:
            self._note(f"froze the emulated AWS for {_FROZEN_SECONDS:g} s")
            self._await("the emulated AWS goes on", lambda: _stopped(emulator), 1)
            answered = len(self._crowd.replies)
            time.sleep(_FROZEN_SECONDS)
            if not self._crowd.open:
                raise NotInjected("no upload waited for the frozen AWS")
        finally:
            os.kill(emulator, signal.SIGCONT)
        self._note(f"thawed it; {len(self._crowd.replies) - answered} uploads were answered meanwhile")

    def _stop_one(self) -> str:
        running = running_instances(self._ec2, self._system.environ.get("FACEREC_PREFIX", "facerec"))
        instance_id = min(running)
        self._ec2.stop_instances(InstanceIds=[instance_id])
        return running[instance_id]

    def _workers(self) -> list[int]:
        """The process groups of the instances' workers."""
        return [pid for pid in self._system.processes("facerec.cli worker") if os.getpgid(pid) == pid]

    def _note(self, what: str) -> None:
        waiting = self._crowd.open
        if not waiting:
            raise NotInjected(f"no upload waited: {what}")
        self.done.append(f"{time.monotonic() - self._began:.1f} s, {waiting} uploads open: {what}")
        print(self.done[-1], file=sys.stderr)

    @staticmethod
    def _await(otherwise: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise NotInjected(otherwise)
            time.sleep(0.1)


def _stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal (proc(5), `/proc/<pid>/stat`)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Autoscaler:
    """`facerec autoscale` as a process that can be killed and started again."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._environ, self._log = environ, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(facerec("autoscale"), cwd=CHECKOUT, env=self._environ, stderr=log)

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def logged(self, event: str) -> bool:
        """Whether it has logged this event."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return any(json.loads(line)["event"] == event for line in lines if line.endswith("}"))

    def await_line(self, event: str, seconds: float = 60) -> None:
        """Wait until it has logged this event; raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not self.logged(event):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the autoscaler has not logged {event!r}: {self._log.read_text()}")
            time.sleep(0.1)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="least number of uploads")
    parser.add_argument("--concurrency", type=int, default=200, help="uploads at once")
    parser.add_argument("--max-instances", type=int, default=4, help="most instances of the fleet")
    parser.add_argument(
        "--images", type=Path, default=CHECKOUT / "examples", help="folder of photos, as for benchmarks.roundtrip"
    )
    options = parser.parse_args()
    summary = measured(options.requests, options.concurrency, options.max_instances, options.images)
    print(json.dumps(summary, allow_nan=False))
    sys.exit(1 if summary["amiss"] or summary["not_harmed"] else 0)


def measured(requests: int, concurrency: int, max_instances: int, images: Path) -> dict[str, Any]:
    """The figures of one run."""
    environ = {
        "FACEREC_REPLY_STYLE": "name",
        "FACEREC_LOG__FORMAT": "json",
        "FACEREC_AUTOSCALE__MAX_INSTANCES": str(max_instances),
        "FACEREC_AUTOSCALE__COOLDOWN_SECONDS": "5",
        "FACEREC_AUTOSCALE__TARGET_SECONDS": "3",  # short enough to need several instances
    }
    with tempfile.TemporaryDirectory(prefix="facerec-chaos-") as folder:
        people, photos = workload(images, Path(folder) / "people")
        state = Path(folder) / "state"
        with (
            LocalSystem(state, workers=None, options=("--no-autoscaler",), environ=environ) as system,
            faulty_aws(system.environ["AWS_ENDPOINT_URL"]) as proxy,
        ):
            system.run("enrol", "--folder", str(people))
            endpoint = {"FACEREC_AWS__ENDPOINT_URL": proxy.url, "AWS_ENDPOINT_URL": proxy.url}
            autoscalers = [Autoscaler(system.environ | endpoint, state / f"autoscale{n}.log") for n in (1, 2)]
            leader, standby = autoscalers
            try:
                leader.start()
                leader.await_line("leading")
                standby.start()
                standby.await_line("waiting_for_the_lease")
                clients = ContinuousUploads(system.url, photos, concurrency)
                return harmed(system, Faults(system, proxy, leader, standby, clients), clients, requests, max_instances)
            finally:
                for autoscaler in autoscalers:
                    autoscaler.kill()


def harmed(
    system: LocalSystem, faults: Faults, clients: ContinuousUploads, requests: int, max_instances: int
) -> dict[str, Any]:
    """Upload while the faults are injected, and wait until the fleet is at zero."""
    with FleetWatch(system) as watch, ThreadPoolExecutor(1) as thread:
        harm = thread.submit(faults.run)
        began = time.monotonic()
        clients.upload(requests, harm.done)
        ended = time.monotonic()
        not_harmed = None
        try:
            harm.result()
        except NotInjected as exc:
            not_harmed = str(exc)
        to_zero = watch.zero_after(max(ended, time.monotonic()), 240)
        figures: BurstFigures = judged(system, clients.replies, clients.photos) | {
            "max_running": watch.most(),
            "to_last_answer_s": round(ended - began, 2),
            "to_zero_s": round(to_zero, 2),
        }
    return {
        **figures,
        "max_instances": max_instances,
        "refused": clients.refused,
        "faults": faults.done,
        "not_harmed": not_harmed,
        "amiss": burst_failures(figures, max_instances),
    }


if __name__ == "__main__":
    main()
