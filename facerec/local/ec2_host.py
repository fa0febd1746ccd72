"""The machine behind the emulated EC2: every running instance of the fleet is a real worker process.

The emulator keeps books only: instances are launched, started, stopped and terminated in it, as in AWS. This host
follows the books. An instance boots for `boot_seconds`, then its worker runs, and is started again when it dies, as
systemd does on a real instance; when the instance is stopped or terminated, its worker gets SIGTERM.
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
from facerec.errors import FacerecError
from facerec.messages import FLEET_TAG
from facerec.processes.children import Command, Leash, Process, describe_exit
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef


def emulated_ec2(variables: Mapping[str, str]) -> "EC2Client":
    """A client of the EC2 that a local system's variables lead to, whatever this process's own lead to."""
    session = boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
    return session.client("ec2", endpoint_url=variables["AWS_ENDPOINT_URL"])


def running_instances(ec2: "EC2Client", prefix: str, *, pending: bool = False) -> dict[str, str]:
    """The names of the fleet's running (and `pending`) instances by their ids; raises `Transient`."""
    states = ["pending", "running"] if pending else ["running"]
    with translated("read the emulated EC2's instances"):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": f"tag:{FLEET_TAG}", "Values": [prefix]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
    return {one["InstanceId"]: _name(one) for one in found}


def _name(instance: "InstanceTypeDef") -> str:
    """The instance's name, which it gets a moment after its launch; its id until then."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return tags.get("Name", instance["InstanceId"])


log = structlog.get_logger(__name__)
_LOOK_SECONDS = 0.25
_RESTART_SECONDS = 1.0
"""As the unit's `RestartSec`."""
_STOP_SECONDS = 25.0
"""For a worker to finish what it holds: above the time limit of a task, as the unit's `TimeoutStopSec`."""


@dataclass(slots=True, eq=False)
class _Machine:
    """A running instance."""

    name: str
    boots_until: float
    process: Process | None = None


class Ec2Host:
    """Runs what the emulated EC2 says is running; `worker` makes the command of an instance's worker."""

    def __init__(
        self,
        clients: Clients,
        settings: Settings,
        worker: Callable[[str, str], Command],
        *,
        log_dir: Path,
        boot_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ec2 = clients.ec2
        self._prefix = settings.prefix
        self._worker = worker
        self._log_dir = log_dir
        self._boot_seconds = boot_seconds
        self._clock = clock
        self._leash = Leash()
        self._machines: dict[str, _Machine] = {}
        self._ending: list[tuple[Process, float, str]] = []
        self._unreachable = False

    def run(self, stopped: threading.Event) -> None:
        """Follow the books until told to stop, then end every worker."""
        log.info("ec2_host_ready", boot_seconds=self._boot_seconds)
        while not stopped.wait(_LOOK_SECONDS):
            self.look()
        self.close()

    def look(self) -> None:
        """Follow the books once; while they cannot be read everything stays as it is."""
        self._reap()
        try:
            running = running_instances(self._ec2, self._prefix)
        except FacerecError as exc:
            if not self._unreachable:
                log.warning("ec2_unreadable", reason=str(exc))
            self._unreachable = True
            return
        self._unreachable = False
        now = self._clock()
        for instance_id in self._machines.keys() - running.keys():
            self._switch_off(instance_id, now)
        ending = {instance_id for _, _, instance_id in self._ending}
        for instance_id, name in running.items():
            # One that is started again before its former worker has ended waits for that, as a machine would.
            if instance_id not in self._machines and instance_id not in ending:
                log.info("instance_boots", instance=name, instance_id=instance_id)
                self._machines[instance_id] = _Machine(name, now + self._boot_seconds)
        for instance_id, machine in self._machines.items():
            if machine.process is None and now >= machine.boots_until:
                machine.name = running[instance_id]  # it gets it a moment after its launch
                command = self._worker(instance_id, machine.name)
                machine.process = Process(command, self._log_dir / f"{machine.name}.log", self._leash)
                log.info("worker_started", instance=machine.name, instance_id=instance_id, pid=machine.process.pid)

    def close(self) -> None:
        """End every worker: ask all, then wait."""
        now = self._clock()
        for instance_id in list(self._machines):
            self._switch_off(instance_id, now)
        for process, _, _ in self._ending:
            process.finish(_STOP_SECONDS)
        self._ending.clear()
        self._leash.close()

    def _reap(self) -> None:
        """See to workers that have ended, and to those that take too long to."""
        now = self._clock()
        for instance_id, machine in self._machines.items():
            status = None if machine.process is None else machine.process.wait(0)
            if status is not None:
                log.warning("worker_died", instance=machine.name, instance_id=instance_id, how=describe_exit(status))
                machine.process = None
                machine.boots_until = now + _RESTART_SECONDS
        still = []
        for process, deadline, instance_id in self._ending:
            status = process.finish(0) if now >= deadline else process.wait(0)
            if status is None:
                still.append((process, deadline, instance_id))
            else:
                log.info("worker_ended", instance=process.name, instance_id=instance_id, how=describe_exit(status))
        self._ending = still

    def _switch_off(self, instance_id: str, now: float) -> None:
        machine = self._machines.pop(instance_id)
        log.info("instance_ends", instance=machine.name, instance_id=instance_id)
        if machine.process is not None:
            machine.process.terminate()
            self._ending.append((machine.process, now + _STOP_SECONDS, instance_id))


def worker_command(argv: tuple[str, ...], environ: Mapping[str, str]) -> Callable[[str, str], Command]:
    """Commands for the workers of instances: `argv` with the instance's id among the variables."""
    return lambda instance_id, name: Command(name, argv, {**environ, "FACEREC_WORKER__INSTANCE_ID": instance_id})
