"""`facerec edge rules` against the emulated AWS: deploy, what devices then send, status, update, remove."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import boto3
import pytest
from click.testing import CliRunner, Result

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.cli import cli
from facerec.edge_messages import NO_FACE_FIELDS, no_face_result
from facerec.errors import FacerecError
from facerec.local.emulator import EmulatorKind
from facerec.messages import RecognitionResult
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


def no_face() -> RecognitionResult:
    """The result of a frame without a face, as devices send it."""
    return no_face_result(
        request_id=UUID(int=1),
        filename="empty.jpg",
        captured_at=datetime(2026, 11, 30, tzinfo=UTC),
        thing="gate",
        model_id="model",
        engine="onnx",
        precision="fp32",
        timings_ms={"detect": 1.5},
    )


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
    assert state["rules"] == {f"{name}_{rule}": "enabled" for rule in ("faces", "no_face", "other")}
    assert state["queues"][fresh.faces_queue] == {"visible": 0, "in_flight": 0, "delayed": 0}
    assert "is deleted" in run("remove", stdin="y\n").stderr
    assert set(json.loads(run("status", "--json").stdout)["rules"].values()) == {"absent"}
    assert "there is no stack" in run("remove", "--yes").stderr


def test_messages_go_to_the_queue_of_their_kind(run: Run, fresh: Settings, publish: Callable[[str, Any], None]) -> None:
    """Faces to their queue, a frame without a face to the response queue."""
    run("deploy")
    face = {"filename": "face.jpg", "encoded": "…", "thing": "gate"}
    nobody = json.loads(no_face().to_json())
    publish("gate", face)
    publish("gate", nobody)
    assert received(fresh, fresh.faces_queue) == [face]
    [passed_on] = received(fresh, fresh.response_queue)
    assert RecognitionResult.parse(passed_on) == RecognitionResult.parse(nobody)
    assert received(fresh, fresh.request_queue) == []


def test_message_that_names_another_thing_reaches_no_queue(
    run: Run, fresh: Settings, publish: Callable[[str, Any], None]
) -> None:
    """AWS does not say whose name a rule would pass on. A message without a name is none of a device, either."""
    run("deploy")
    for message in ({"filename": "a.jpg"}, {"filename": "a.jpg", "result": "No-Face"}):
        publish("gate", message | {"thing": "yard"})
        publish("gate", message)
    for queue in (fresh.faces_queue, fresh.response_queue, fresh.faces_dead_letter_queue):
        assert received(fresh, queue) == []


def test_any_other_result_goes_to_the_faces_queue(
    run: Run, fresh: Settings, publish: Callable[[str, Any], None]
) -> None:
    """It was acknowledged, so it must not vanish: what takes the queue makes a dead letter of it."""
    run("deploy")
    results: list[object] = ["Jane Doe", "", None, 1, ["No-Face"], {"a": 1}]
    sent = [{"filename": "forged.jpg", "result": result, "thing": "gate"} for result in results]
    for message in sent:
        publish("gate", message)
    found = received(fresh, fresh.faces_queue)
    assert len(found) == len(sent)
    assert all(message in found for message in sent)
    assert received(fresh, fresh.response_queue) == []


def test_result_without_a_face_has_nothing_else_to_believe(
    run: Run, fresh: Settings, publish: Callable[[str, Any], None]
) -> None:
    """Whatever a device that was taken over adds: another outcome, faces with names, a detail."""
    run("deploy")
    honest = json.loads(no_face().to_json())
    match = {"identity": "Jane Doe", "similarity": 1, "threshold": 0.1}
    face = {"box": dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), 0), "probability": 1, "landmarks": []}
    forged = {"outcome": "match", "faces": [face | {"matches": [match]}], "detail": "open the door", "reply": "x"}
    publish("gate", honest | forged | {"collection": "another", "frame_id": honest["request_id"], "more_faces": 3})
    [passed_on] = received(fresh, fresh.response_queue)
    assert RecognitionResult.parse(passed_on) == no_face()
    assert set(passed_on) == {*NO_FACE_FIELDS, "outcome", "thing"}


def test_message_that_cannot_be_passed_on_is_a_dead_letter(
    run: Run, fresh: Settings, publish: Callable[[str, Any], None]
) -> None:
    """With the message and the reason."""
    run("deploy")
    sqs = Clients(fresh).sqs
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=fresh.faces_queue)["QueueUrl"])
    publish("gate", {"filename": "face.jpg", "thing": "gate"})
    [letter] = received(fresh, fresh.faces_dead_letter_queue)
    assert letter["topic"] == "facerec/gate/faces"
    assert letter["failures"][0]["failedAction"] == "SqsAction"
    assert letter["base64OriginalPayload"]


def test_rules_are_not_deployed_without_their_queues(run: Run, fresh: Settings) -> None:
    """Every message would be lost."""
    with pytest.raises(FacerecError, match=r"faces-queue.*provision"):
        run("deploy", prefix=f"{fresh.prefix}-x")
