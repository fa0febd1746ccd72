"""Faults during a burst on the real local fleet: is anything lost, is the cap exceeded, is the end zero?

    python -m benchmarks.chaos --requests 600 --max-instances 4

One after the other, while uploads wait: an instance is stopped behind the autoscaler's back, the workers of two others
are killed, the autoscaler is killed and started again, its DescribeInstances fails for 20 s, and the emulated AWS is
frozen for 10 s (SIGSTOP). A second autoscaler stands by all the time. The last line is one JSON object, as of
benchmarks.burst, with the faults and when they happened.
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

from benchmarks.burst import judged
from benchmarks.fault_rules import Harm, Rule, of
from benchmarks.faulty_aws import FaultyAws, faulty_aws
from benchmarks.fleet_watch import FleetWatch
from benchmarks.load import Upload, upload_all
from benchmarks.roundtrip import workload
from benchmarks.system import FACEREC, ROOT, System
from facerec.local.instances import emulated_ec2, running_instances

_DESCRIBE_FAILS_SECONDS = 20.0
_FROZEN_SECONDS = 10.0
_HARMED = 3
"""Instances: one is stopped, the workers of the others are killed."""


class Faults:
    """Does the harm, in a thread of its own, and notes what it did."""

    def __init__(self, system: System, proxy: FaultyAws, autoscaler: "Autoscaler") -> None:
        self._system, self._proxy, self._autoscaler = system, proxy, autoscaler
        self._ec2 = emulated_ec2(system.environ)
        self._began = time.monotonic()
        self.done: list[str] = []

    def run(self) -> None:
        """All of them, once as many workers run as are to be harmed."""
        self._await(lambda: len(self._workers()) >= _HARMED)
        time.sleep(3)
        before = self._workers()
        self._note(f"stopped {self._stop_one()}")
        self._await(lambda: len(set(before) - set(self._workers())) > 0)
        for pid in [pid for pid in self._workers() if pid in before][: _HARMED - 1]:
            os.killpg(pid, signal.SIGKILL)
            self._note("killed a worker")
        self._autoscaler.kill()
        self._note("killed the autoscaler")
        time.sleep(3)
        self._autoscaler.start()
        self._note("started the autoscaler again")
        self._proxy.rules = (Rule(Harm.REFUSE, matches=of("ec2", "DescribeInstances"), code="Unavailable"),)
        self._note(f"DescribeInstances fails for {_DESCRIBE_FAILS_SECONDS:g} s")
        time.sleep(_DESCRIBE_FAILS_SECONDS)
        self._proxy.rules = ()
        [emulator] = self._system.processes("facerec.local.ministack_server")
        self._note(f"froze the emulated AWS for {_FROZEN_SECONDS:g} s")
        os.kill(emulator, signal.SIGSTOP)
        time.sleep(_FROZEN_SECONDS)
        os.kill(emulator, signal.SIGCONT)
        self._note("thawed it")

    def _stop_one(self) -> str:
        running = running_instances(self._ec2, self._system.environ.get("FACEREC_PREFIX", "facerec"))
        instance_id = min(running)
        self._ec2.stop_instances(InstanceIds=[instance_id])
        return running[instance_id]

    def _workers(self) -> list[int]:
        """The process groups of the instances' workers."""
        return [pid for pid in self._system.processes("facerec.cli worker") if os.getpgid(pid) == pid]

    def _note(self, what: str) -> None:
        self.done.append(f"{time.monotonic() - self._began:.1f} s: {what}")
        print(self.done[-1], file=sys.stderr)

    @staticmethod
    def _await(condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("the workers are not as they should be by now")
            time.sleep(0.1)


class Autoscaler:
    """`facerec autoscale` as a process that can be killed and started again."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self._environ, self._log = environ, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen((*FACEREC, "autoscale"), cwd=ROOT, env=self._environ, stderr=log)

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="uploads in all")
    parser.add_argument("--concurrency", type=int, default=200, help="uploads at once")
    parser.add_argument("--max-instances", type=int, default=4, help="the fleet's cap")
    parser.add_argument("--images", type=Path, default=ROOT / "examples", help="as of benchmarks.roundtrip")
    options = parser.parse_args()
    environ = {
        "FACEREC_REPLY_STYLE": "name",
        "FACEREC_AUTOSCALE__MAX_INSTANCES": str(options.max_instances),
        "FACEREC_AUTOSCALE__COOLDOWN_SECONDS": "5",
        "FACEREC_AUTOSCALE__TARGET_SECONDS": "3",  # short enough for several instances
    }
    with tempfile.TemporaryDirectory(prefix="facerec-chaos-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        state = Path(folder) / "state"
        with (
            System(state, workers=None, options=("--no-autoscaler",), environ=environ) as system,
            faulty_aws(system.environ["AWS_ENDPOINT_URL"]) as proxy,
        ):
            system.run("enrol", "--folder", str(people))
            endpoint = {"FACEREC_AWS__ENDPOINT_URL": proxy.url, "AWS_ENDPOINT_URL": proxy.url}
            autoscalers = [Autoscaler(system.environ | endpoint, state / f"autoscale{n}.log") for n in (1, 2)]
            for autoscaler in autoscalers:
                autoscaler.start()
            try:
                faults = Faults(system, proxy, autoscalers[0])
                chosen = [photos[index % len(photos)] for index in range(options.requests)]
                uploads = [
                    Upload(f"{i:05d}_{photo.path.name}", photo.path.read_bytes()) for i, photo in enumerate(chosen)
                ]
                with FleetWatch(system) as watch, ThreadPoolExecutor(1) as thread:
                    harm = thread.submit(faults.run)
                    began = time.monotonic()
                    replies = upload_all(system.url, uploads, options.concurrency)
                    ended = time.monotonic()
                    harm.result()
                    to_zero = watch.zero_after(max(ended, time.monotonic()), 240)
                    figures = judged(system, replies, chosen) | {
                        "max_running": watch.most(),
                        "max_instances": options.max_instances,
                        "to_last_answer_s": round(ended - began, 2),
                        "to_zero_s": round(to_zero, 2),
                    }
            finally:
                for autoscaler in autoscalers:
                    autoscaler.kill()
    print(json.dumps(figures | {"faults": faults.done}))


if __name__ == "__main__":
    main()
