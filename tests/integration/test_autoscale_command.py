"""`python -m autoscale` and `facerec fleet` as an operator runs them, on the emulator's queue, table and EC2."""

import json
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from facerec.aws.clients import Clients
from facerec.provision.launch_template import provision_launch_template
from facerec.settings import Settings
from facerec.settings.resources import InstancesSettings
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import CHECKOUT, Command, run

AUTOSCALE = (sys.executable, "-m", "autoscale")
TIMEOUT_SECONDS = 60
BACKLOG = b'facerec_backlog_messages{state="visible"} 1.0'


class Autoscaler(Command):
    """A running `python -m autoscale`, and what it logs."""

    def __init__(self, environ: Mapping[str, str], *arguments: str) -> None:
        super().__init__([*AUTOSCALE, *arguments], environ)

    def await_line(self, event: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The first line of the event that fits, once it is there."""

        def matches(line: str) -> bool:
            record = json.loads(line)
            return record["event"] == event and fits(record)

        return dict(json.loads(self.wait_until(matches)))

    def logged(self, event: str) -> bool:
        """Whether there is such a line by now."""
        return any(json.loads(line)["event"] == event for line in self.output.splitlines())


@pytest.fixture
def clients(fresh: Settings) -> Iterator[Clients]:
    """Clients of the emulator; what was launched is terminated afterwards."""
    found = Clients(fresh)
    yield found
    instances = [one["InstanceId"] for one in describe_instances(found, fresh)]
    if instances:
        found.ec2.terminate_instances(InstanceIds=instances)


@pytest.fixture
def environ(emulator: EmulatedAws, fresh: Settings, clients: Clients) -> dict[str, str]:
    """The environment of an autoscaler that can launch, and hurries."""
    image_id = clients.ec2.describe_images()["Images"][0]["ImageId"]
    settings = fresh.changed(instances=InstancesSettings(image_id=image_id, volume_gb=100))
    provision_launch_template(clients, settings, image_id)
    return environ_of(fresh, emulator.environ) | {
        "FACEREC_AUTOSCALE__INTERVAL_SECONDS": "0.1",
        "FACEREC_AUTOSCALE__LEASE_SECONDS": "3",
        "FACEREC_LOG__FORMAT": "json",
    }


def submit(clients: Clients, settings: Settings) -> None:
    """Put a message into the request queue."""
    url = clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"]
    clients.sqs.send_message(QueueUrl=url, MessageBody="a task")


def describe_instances(clients: Clients, settings: Settings) -> list[Any]:
    """The fleet's instances that are not terminated, as EC2 describes them."""
    answer = clients.ec2.describe_instances(Filters=[{"Name": "tag:facerec:fleet", "Values": [settings.prefix]}])
    found = [one for reservation in answer["Reservations"] for one in reservation["Instances"]]
    return [one for one in found if one["State"]["Name"] in {"pending", "running", "stopping", "stopped"}]


def names(instance: Any) -> str:
    """An instance's name."""
    return str(next(tag["Value"] for tag in instance["Tags"] if tag["Key"] == "Name"))


def test_task_in_the_queue_launches_an_instance(
    environ: dict[str, str], fresh: Settings, clients: Clients, tmp_path: Path
) -> None:
    """Log, metrics, status, history and plot show it, and the instance outlives the autoscaler."""
    with Autoscaler(environ) as command:
        address = command.await_line("metrics_served")["address"]
        command.await_line("reconciled", lambda line: line["needed"] == 0)
        assert not describe_instances(clients, fresh)
        submit(clients, fresh)
        line = command.await_line("reconciled", lambda line: line["actions"] == "launch 1")
        assert line["visible"] == 1
        assert line["reason"].startswith("1 open")
        command.await_line("reconciled", lambda line: line["phases"] == {"booting": 1})
        assert [names(one) for one in describe_instances(clients, fresh)] == ["app-tier-instance-1"]
        metrics = httpx.get(address).content
        assert BACKLOG in metrics
        assert b'facerec_fleet_instances{phase="booting"} 1.0' in metrics
        assert b'facerec_autoscaler_actions_total{action="launch"} 1.0' in metrics
        assert b"facerec_autoscaler_leader 1.0" in metrics
        seen = run("fleet", "status", "--format", "json", environ=environ)
        assert seen.returncode == 0, seen.stderr
        status = json.loads(seen.stdout)
        assert [(one["number"], one["phase"]) for one in status["instances"]] == [(1, "booting")]
        assert status["queue"]["visible"] == 1
        assert status["lease_holder"]
        assert command.stop() == 0
        assert not command.logged("action_failed")
    assert len(describe_instances(clients, fresh)) == 1
    shown = run("fleet", "status", environ=environ).stdout
    assert "no process holds the lease" in shown
    assert "booting" in shown
    history = json.loads(run("fleet", "history", "--format", "json", environ=environ).stdout)
    assert [record["actions"] for record in history if record["actions"]] == ["launch 1"]
    assert "launch 1" in run("fleet", "history", "--since", "10m", environ=environ).stdout
    plot = tmp_path / "fleet.png"
    drawn = run("fleet", "history", "--plot", str(plot), environ=environ)
    assert drawn.returncode == 0, drawn.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_fleet_of_a_serverless_app_tier_ends(environ: dict[str, str], fresh: Settings, clients: Clients) -> None:
    """Although a task waits; log and status state why."""
    submit(clients, fresh)
    with Autoscaler(environ) as command:
        command.await_line("reconciled", lambda line: line["phases"] == {"booting": 1})
        assert command.stop() == 0
    with Autoscaler(environ | {"FACEREC_APP_TIER": "serverless"}) as command:
        line = command.await_line("reconciled", lambda line: line["actions"] == "drain 1")
        assert line["reason"] == "1 open; the app tier is serverless, so that no instance is wanted; 1 to drain"
        command.await_line("reconciled", lambda line: "terminate 1" in line["actions"])
        command.await_line("reconciled", lambda line: not line["phases"] and not line["actions"])
        assert not describe_instances(clients, fresh)
        assert "the app tier is serverless" in run("fleet", "status", environ=environ).stdout
        assert not command.logged("action_failed")
        assert command.stop() == 0


def test_second_autoscaler_takes_over(environ: dict[str, str], fresh: Settings, clients: Clients) -> None:
    """At once when the first one leaves, after the lease when it was killed; nothing is launched twice."""
    submit(clients, fresh)
    with Autoscaler(environ) as first:
        first.await_line("reconciled", lambda line: line["phases"] == {"booting": 1})
        with Autoscaler(environ) as second:
            second.await_line("waiting_for_the_lease")
            assert not second.logged("leading")
            assert first.stop() == 0
            second.await_line("leading")
            assert not second.logged("lease_taken_over")
            with Autoscaler(environ) as third:
                third.await_line("waiting_for_the_lease")
                second.stop(signal.SIGKILL)
                third.await_line("leading")
                assert third.logged("lease_taken_over")
                third.await_line("reconciled", lambda line: line["phases"] == {"booting": 1})
                assert third.stop(signal.SIGINT) == 0
    assert len(describe_instances(clients, fresh)) == 1


def test_dry_run_changes_nothing(environ: dict[str, str], fresh: Settings, clients: Clients) -> None:
    """`--dry-run` decides and prints, also beside an active autoscaler; `--once` without it acts."""
    submit(clients, fresh)
    printed = run("autoscale", "--once", "--dry-run", environ=environ)
    assert printed.returncode == 0, printed.stderr
    assert "queue    1 visible" in printed.stdout
    assert "would    launch 1" in printed.stdout
    assert not describe_instances(clients, fresh)
    with Autoscaler(environ, "--dry-run") as command:
        assert command.process.stdout is not None
        assert select.select([command.process.stdout], [], [], TIMEOUT_SECONDS)[0]
        assert command.process.stdout.readline().startswith("queue    1 visible")
        assert command.stop() == 0
    assert not describe_instances(clients, fresh)
    printed = run("autoscale", "--once", environ=environ)
    assert "did      launch 1" in printed.stdout
    assert len(describe_instances(clients, fresh)) == 1
    with Autoscaler(environ) as command:
        command.await_line("leading")
        assert run("autoscale", "--once", environ=environ).returncode == 1


def failure(environ: dict[str, str], *arguments: str) -> str:
    """The one sentence with which the autoscaler ends."""
    ended = subprocess.run(
        [*AUTOSCALE, *arguments],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    return line


def test_start_names_missing_resources(environ: dict[str, str], fresh: Settings, clients: Clients) -> None:
    """Template, table and queue, each with the command that makes it."""
    clients.ec2.delete_launch_template(LaunchTemplateName=fresh.launch_template)
    assert failure(environ).startswith("autoscale: there is no launch template")
    assert "facerec provision" in failure(environ)
    clients.dynamodb.delete_table(TableName=fresh.fleet_table)
    assert failure(environ) == (
        f"autoscale: there is no table {fresh.fleet_table!r}; create it with `facerec provision`"
    )
    missing = environ | {"FACEREC_NAMES__REQUEST_QUEUE": "nowhere"}
    assert failure(missing) == "autoscale: there is no queue 'nowhere'; create it with `facerec provision`"


def test_taken_port_is_named(environ: dict[str, str]) -> None:
    """With the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failure(environ | {"FACEREC_AUTOSCALE__METRICS_PORT": str(port)})
    assert line.startswith(f"autoscale: cannot serve metrics on 127.0.0.1 port {port}")
    assert "FACEREC_AUTOSCALE__METRICS_PORT" in line
