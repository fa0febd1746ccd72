"""The machine behind the emulated EC2: every running instance of the fleet is a real worker process.

The emulator only keeps the state of instances. An instance boots for `boot_seconds`, then its worker runs. A worker
that dies is started again, as systemd does. When the instance is stopped or terminated, its worker gets SIGTERM.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import structlog

from facerec.aws.clients import Clients, translated
from facerec.background import OutageLog
from facerec.errors import FacerecError
from facerec.messages import FLEET_TAG
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Restarts, Supervisor
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.25
_RESTARTS = Restarts(first_seconds=1.0, longest_seconds=1.0, times=None)
"""As the unit's `RestartSec`."""
_STOP_SECONDS = 25.0
"""For a worker to finish its tasks: above the time limit of a task, as the unit's `TimeoutStopSec`."""


def emulated_ec2(variables: Mapping[str, str]) -> "EC2Client":
    """A client of the emulated EC2 that a local system's variables name, whatever this process's own variables name."""
    session = boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
    return session.client("ec2", endpoint_url=variables["AWS_ENDPOINT_URL"])


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
    """Runs a worker for each instance that runs in the emulated EC2: `argv`, with the instance's id in `environ`."""

    def __init__(
        self,
        clients: Clients,
        settings: Settings,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        *,
        log_dir: Path,
        boot_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = clients.ec2
        self._prefix = settings.prefix
        self._argv = argv
        self._environ = environ
        self._boot_seconds = boot_seconds
        self._clock = clock
        self._supervisor = Supervisor(_log_death, log_dir=log_dir, restarts=_RESTARTS, stop_seconds=_STOP_SECONDS)
        self._machines: dict[str, _Machine] = {}
        self._outage = OutageLog("ec2")

    def run(self, stopped: threading.Event) -> None:
        """Follow EC2 until `stopped` is set, then end every worker; raises `FacerecError`."""
        log.info("ec2_host_ready", boot_seconds=self._boot_seconds)
        try:
            while not stopped.wait(_LOOK_SECONDS):
                self._supervisor.wait(0)
                self.look()
        finally:
            self.close()

    def look(self) -> None:
        """Read EC2 once, and start and end workers accordingly; nothing changes while EC2 cannot be read."""
        try:
            running = running_instances(self._ec2, self._prefix)
        except FacerecError as exc:
            self._outage.failed(exc)
            return
        self._outage.succeeded()
        for instance_id, machine in list(self._machines.items()):
            if machine.on and instance_id not in running:
                log.info("instance_ends", instance_id=instance_id)
                self._switch_off(machine)
            # An instance that is started again before its former worker has ended waits for that, as a machine does.
            if not machine.on and (machine.worker is None or not machine.worker.running):
                del self._machines[instance_id]
        now = self._clock()
        for instance_id, name in running.items():
            if instance_id not in self._machines:
                log.info("instance_boots", instance=name, instance_id=instance_id)
                self._machines[instance_id] = _Machine(now + self._boot_seconds)
            machine = self._machines[instance_id]
            if machine.on and machine.worker is None and now >= machine.boots_until:
                machine.worker = self._start_worker(instance_id, name)

    def close(self) -> None:
        """End every worker: ask all, then wait."""
        for machine in self._machines.values():
            self._switch_off(machine)
        self._supervisor.stop()

    def _start_worker(self, instance_id: str, name: str) -> Child:
        command = Command(name, self._argv, {**self._environ, "FACEREC_WORKER__INSTANCE_ID": instance_id})
        [worker] = self._supervisor.start(command, grace_seconds=_STOP_SECONDS)
        log.info("worker_started", instance=name, instance_id=instance_id)
        return worker

    def _switch_off(self, machine: _Machine) -> None:
        if machine.on and machine.worker is not None:
            self._supervisor.end(machine.worker)
        machine.on = False


def _log_death(worker: Child, how: str, restart_seconds: float) -> None:
    log.warning("worker_died", instance=worker.name, how=how, restart_seconds=restart_seconds)
