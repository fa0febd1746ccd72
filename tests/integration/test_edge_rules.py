"""`facerec edge rules` against the emulated AWS: deploy, what devices then send, status, update, remove."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.cli import cli
from facerec.errors import FacerecError
from facerec.local.emulator import EmulatorKind
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, emulated_aws

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """An emulator of its own, with the services of the edge."""
    services = "cloudformation,cloudwatch,iam,iot,iot-data"
    with emulated_aws(EmulatorKind.MINISTACK, tmp_path_factory.mktemp("rules"), services=services) as aws:
        yield aws


@pytest.fixture
def run(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `facerec edge rules …` on resources of its own; settings are given as keywords."""
    monkeypatch.setenv("FACEREC_PREFIX", fresh.prefix)

    def run(*arguments: str, stdin: str = "", **settings: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"FACEREC_{name.upper()}", value)
            return CliRunner().invoke(cli, ["edge", "rules", *arguments], input=stdin, catch_exceptions=False)

    return run


@pytest.fixture
def publish(fresh: Settings) -> Callable[[str, Any], None]:
    """Publishes a message as a device does; what a device may publish is tested with MQTT."""
    client = boto3.client("iot-data", endpoint_url=fresh.endpoint_url)

    def publish(thing: str, message: Any) -> None:
        client.publish(topic=f"facerec/{thing}/faces", qos=1, payload=json.dumps(message))

    return publish


def received(settings: Settings, queue: str) -> list[Any]:
    """The messages of a queue."""
    found = SqsQueue(Clients(settings).sqs, queue).receive(10, wait_seconds=0)
    return [json.loads(message["Body"]) for message in found]


def test_rules_are_deployed_updated_and_removed(run: Run, fresh: Settings) -> None:
    """A second deployment of the same changes nothing, and removing twice is no error."""
    assert "there is no stack" in run("status").stdout
    dry = run("deploy", "--dry-run")
    assert "Add      Faces " in dry.stdout
    assert "nothing was changed" in dry.stderr
    made = run("deploy")
    assert made.exit_code == 0
    assert "neither workers nor functions take them" in made.stderr
    again = run("deploy", edge__enabled="true")
    assert "0 changes made" in again.stderr
    assert "note" not in again.stderr
    state = json.loads(run("status", "--json").stdout)
    name = fresh.prefix.replace("-", "_")
    assert state["rules"] == {f"{name}_faces": "enabled", f"{name}_no_face": "enabled"}
    assert state["queues"][fresh.faces_queue] == {"visible": 0, "in_flight": 0, "delayed": 0}
    assert "is deleted" in run("remove", stdin="y\n").stderr
    assert set(json.loads(run("status", "--json").stdout)["rules"].values()) == {"absent"}
    assert "there is no stack" in run("remove", "--yes").stderr


def test_messages_go_to_the_queue_of_their_kind(run: Run, fresh: Settings, publish: Callable[[str, Any], None]) -> None:
    """Faces to their queue, a frame without a face to the response queue, and no other result anywhere."""
    run("deploy")
    publish("gate", {"filename": "face.jpg", "encoded": "…", "thing": "another"})
    publish("gate", {"filename": "empty.jpg", "result": "No-Face"})
    publish("gate", {"filename": "forged.jpg", "result": "Jane Doe"})
    assert received(fresh, fresh.faces_queue) == [{"filename": "face.jpg", "encoded": "…", "thing": "gate"}]
    assert received(fresh, fresh.response_queue) == [{"filename": "empty.jpg", "result": "No-Face", "thing": "gate"}]
    assert received(fresh, fresh.request_queue) == []


def test_message_that_cannot_be_passed_on_is_a_dead_letter(
    run: Run, fresh: Settings, publish: Callable[[str, Any], None]
) -> None:
    """With the message and the reason."""
    run("deploy")
    sqs = Clients(fresh).sqs
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=fresh.faces_queue)["QueueUrl"])
    publish("gate", {"filename": "face.jpg"})
    [letter] = received(fresh, fresh.faces_dead_letter_queue)
    assert letter["topic"] == "facerec/gate/faces"
    assert letter["failures"][0]["failedAction"] == "SqsAction"
    assert letter["base64OriginalPayload"]


def test_rules_are_not_deployed_without_their_queues(run: Run, fresh: Settings) -> None:
    """Every message would be lost."""
    with pytest.raises(FacerecError, match=r"faces-queue.*provision"):
        run("deploy", prefix=f"{fresh.prefix}-x")
