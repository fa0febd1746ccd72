"""The machine behind the emulated EC2: every running instance of the fleet is a real worker process.

The emulator only keeps the state of instances. An instance boots for `boot_seconds`, then its worker runs. A worker
that dies is started again, as systemd does. When the instance is stopped or terminated, its worker gets SIGTERM.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

from facerec.aws.clients import translated
from facerec.errors import FacerecError
from facerec.messages import FLEET_TAG
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Restarts, Supervisor

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_LOOK_SECONDS = 0.25
_RESTARTS = Restarts(first_seconds=1.0, longest_seconds=1.0, times=None)
"""As the unit's `RestartSec`."""
_STOP_SECONDS = 25.0
"""For a worker to finish its tasks: above the time limit of a task, as the unit's `TimeoutStopSec`."""


def emulated_ec2(variables: Mapping[str, str]) -> "EC2Client":
    """A client of the emulated EC2 that a local system's variables name, whatever this process's own variables name."""
    return emulated_session(variables).client("ec2", endpoint_url=variables["AWS_ENDPOINT_URL"])


def emulated_session(variables: Mapping[str, str]) -> boto3.Session:
    """A session with the credentials and the region of a local system's variables."""
    return boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )


def running_instances(ec2: "EC2Client", prefix: str, *, pending: bool = False) -> dict[str, str]:
    """The names of the fleet's running (and `pending`) instances by their ids; raises `Transient`.

    An instance without a name, as in the first moment after its launch, has its id as name.
    """
    states = ["pending", "running"] if pending else ["running"]
    with translated("read the emulated EC2's instances"):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": f"tag:{FLEET_TAG}", "Values": [prefix]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
    return {
        one["InstanceId"]: {tag["Key"]: tag["Value"] for tag in one.get("Tags", [])}.get("Name", one["InstanceId"])
        for one in found
    }


@dataclass(slots=True, eq=False)
class _Machine:
    boots_until: float
    worker: Child | None = None
    on: bool = True


class Ec2Host:
    """Runs `worker` for each running instance, with the instance's id among its variables, in a stage of its own."""

    def __init__(
        self,
        ec2: "EC2Client",
        prefix: str,
        supervisor: Supervisor,
        worker: Command,
        *,
        boot_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = ec2
        self._prefix = prefix
        self._supervisor = supervisor
        self._worker = worker
        self._boot_seconds = boot_seconds
        self._clock = clock
        self._machines: dict[str, _Machine] = {}
        self._stage = supervisor.start()

    def run(self, stopping: threading.Event) -> None:
        """Follow EC2 until `stopping` is set; the supervisor ends the workers."""
        while not stopping.wait(_LOOK_SECONDS):
            with suppress(FacerecError):  # the supervisor reports that the emulator has ended
                self.look()

    def look(self) -> None:
        """Read EC2 once, and start and end workers accordingly; raises `Transient` while EC2 cannot be read."""
        running = running_instances(self._ec2, self._prefix)
        for instance_id, machine in list(self._machines.items()):
            if machine.on and instance_id not in running:
                machine.on = False
                if machine.worker is not None:
                    self._supervisor.end(machine.worker, _STOP_SECONDS)
            # An instance that is started again before its former worker has ended waits for that, as a machine does.
            if not machine.on and (machine.worker is None or not machine.worker.running):
                del self._machines[instance_id]
        now = self._clock()
        for instance_id, name in running.items():
            machine = self._machines.setdefault(instance_id, _Machine(now + self._boot_seconds))
            if machine.on and machine.worker is None and now >= machine.boots_until:
                environ = {**self._worker.environ, "FACEREC_WORKER__INSTANCE_ID": instance_id}
                command = Command(name, self._worker.argv, environ)
                machine.worker = self._supervisor.start(command, restarts=_RESTARTS, stage=self._stage)[-1]
