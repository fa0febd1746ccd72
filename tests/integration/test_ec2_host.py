"""The machine behind the emulated EC2: its instances are processes here."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from facerec.aws.clients import Clients
from facerec.errors import Transient
from facerec.local.ec2_host import Ec2Host, running_instances
from facerec.messages import FLEET_TAG
from facerec.processes.addresses import poll_until
from facerec.processes.children import Command
from facerec.processes.supervisor import Supervisor
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws
from tests.support.processes import alive

_WORKER = """
import os, signal, sys
def end(*_):
    print("ends", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("runs", os.getpid(), os.environ["FACEREC_WORKER__INSTANCE_ID"], flush=True)
while True:
    signal.pause()
"""


class Fleet:
    """A fleet in the emulated EC2, and its host; `time` is the host's clock."""

    def __init__(self, settings: Settings, log_dir: Path, boot_seconds: float) -> None:
        self.time = 0.0
        self._clients = Clients(settings)
        self._prefix = settings.prefix
        self._log_dir = log_dir
        self.supervisor = Supervisor(lambda _child, _how, _seconds: None, log_dir=log_dir)
        self.host = Ec2Host(
            self._clients.ec2,
            self._prefix,
            self.supervisor,
            Command("worker", (sys.executable, "-c", _WORKER), os.environ),
            boot_seconds=boot_seconds,
            clock=lambda: self.time,
        )

    def launch(self, name: str) -> str:
        """Launch an instance as the autoscaler does; returns its id."""
        tags = [{"Key": FLEET_TAG, "Value": self._prefix}, {"Key": "Name", "Value": name}]
        launched = self._clients.ec2.run_instances(
            ImageId="ami-12345678",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],  # type: ignore[misc,list-item] # literals
        )
        return launched["Instances"][0]["InstanceId"]

    def stop(self, instance_id: str) -> None:
        """Stop it."""
        self._clients.ec2.stop_instances(InstanceIds=[instance_id])

    def start(self, instance_id: str) -> None:
        """Start it again."""
        self._clients.ec2.start_instances(InstanceIds=[instance_id])

    def lines(self, name: str) -> list[str]:
        """The lines that the instance's workers have printed, without one that is only begun."""
        log = self._log_dir / f"{name}.log"
        return log.read_text().split("\n")[:-1] if log.exists() else []

    def prints(self, name: str, *words: str, step_seconds: float = 0.0) -> bool:
        """Look until the instance's workers have printed lines that begin with these words."""

        def printed() -> bool:
            self.host.look()
            self.time += step_seconds
            return [line.split()[0] for line in self.lines(name)] == list(words)

        return poll_until(printed, 20)


@pytest.fixture
def settings(emulator: EmulatedAws, request: pytest.FixtureRequest) -> Settings:
    """With a prefix of the test's own; only EC2 is needed."""
    return emulator.settings.changed(prefix=f"host-{abs(hash(request.node.name)) % 10**9}")


@contextmanager
def fleet_of(settings: Settings, log_dir: Path, boot_seconds: float = 0.0) -> Iterator[Fleet]:
    """A fleet whose processes end with the block."""
    opened = Fleet(settings, log_dir, boot_seconds)
    try:
        yield opened
    finally:
        opened.supervisor.stop()


def test_running_instance_has_a_worker_after_its_boot(settings: Settings, tmp_path: Path) -> None:
    """The worker gets the instance's id; instances of another prefix are ignored."""
    with (
        fleet_of(settings, tmp_path, boot_seconds=30) as fleet,
        fleet_of(settings.changed(prefix="other"), tmp_path) as other,
    ):
        instance_id = fleet.launch("app-tier-instance-1")
        other.launch("app-tier-instance-9")
        fleet.host.look()
        fleet.time = 29.0
        fleet.host.look()
        assert fleet.lines("app-tier-instance-1") == []
        fleet.time = 30.0
        assert fleet.prints("app-tier-instance-1", "runs")
        assert fleet.lines("app-tier-instance-1")[0].split()[2] == instance_id
        assert fleet.lines("app-tier-instance-9") == []


def test_stopped_instance_can_be_started_again(settings: Settings, tmp_path: Path) -> None:
    """Its worker ends by SIGTERM before the next one starts."""
    with fleet_of(settings, tmp_path) as fleet:
        instance_id = fleet.launch("app-tier-instance-1")
        assert fleet.prints("app-tier-instance-1", "runs")
        fleet.stop(instance_id)
        assert fleet.prints("app-tier-instance-1", "runs", "ends")
        fleet.start(instance_id)
        assert fleet.prints("app-tier-instance-1", "runs", "ends", "runs")


def test_dead_worker_is_started_again(settings: Settings, tmp_path: Path) -> None:
    """As by systemd's `Restart=always`."""
    with fleet_of(settings, tmp_path) as fleet:
        fleet.launch("app-tier-instance-1")
        assert fleet.prints("app-tier-instance-1", "runs")
        os.kill(int(fleet.lines("app-tier-instance-1")[0].split()[1]), signal.SIGKILL)
        assert fleet.prints("app-tier-instance-1", "runs", "runs", step_seconds=0.5)


def test_nothing_changes_while_ec2_cannot_be_read(settings: Settings, tmp_path: Path, emulator: EmulatedAws) -> None:
    """An emulator that does not answer is not an empty fleet."""
    with fleet_of(settings, tmp_path) as fleet:
        instance_id = fleet.launch("app-tier-instance-1")
        assert fleet.prints("app-tier-instance-1", "runs")
        ec2 = fleet.host._ec2
        fleet.host._ec2 = Clients(settings.changed(aws={"endpoint_url": "http://127.0.0.1:9"})).ec2
        with pytest.raises(Transient):
            fleet.host.look()
        assert alive(pid(fleet))
        fleet.host._ec2 = ec2
        assert running_instances(ec2, settings.prefix) == {instance_id: "app-tier-instance-1"}
        fleet.stop(instance_id)
        assert fleet.prints("app-tier-instance-1", "runs", "ends")


def pid(fleet: Fleet) -> int:
    """The process of the first worker."""
    return int(fleet.lines("app-tier-instance-1")[0].split()[1])
