"""One suite for the way back to devices: in memory, and over AWS IoT Core as the emulator has it."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.iot_data import IotDeviceResults
from facerec.edge_messages import results_topic
from facerec.errors import Refused, Transient
from facerec.messages import Face, Outcome, RecognitionResult, ResultBox, ResultMatch
from facerec.ports import DeviceResults
from facerec.settings import Settings
from facerec.settings.edge import IOT_MESSAGE_BYTES
from facerec.settings.resources import AwsSettings
from tests.fakes.results import InMemoryDeviceResults, InMemoryQueues

ROLE = "arn:aws:iam::000000000000:role/rules"


@dataclass(frozen=True)
class Way:
    """A device of the test's own that listens, and what it has received."""

    thing: str
    results: DeviceResults
    receive: Callable[[], list[str]]


@pytest.fixture(params=["memory", "emulator"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each way in turn."""
    name = f"t{uuid.uuid4().hex[:12]}"
    topic = results_topic(name)
    if request.param == "memory":
        queues = InMemoryQueues(topic)
        yield Way(name, InMemoryDeviceResults(queues), lambda: [body for body, _ in queues.receive(topic, 0)])
        return
    # A rule stands for the device: what it puts onto a queue was published on the topic.
    clients: Clients = request.getfixturevalue("ministack_clients")
    url = clients.sqs.create_queue(QueueName=name)["QueueUrl"]
    action: Any = {"sqs": {"queueUrl": url, "roleArn": ROLE, "useBase64": False}}
    sql = f"SELECT * FROM '{topic}'"  # noqa: S608 - of IoT's rules, on a topic of ours
    rule: Any = {"sql": sql, "awsIotSqlVersion": "2016-03-23", "actions": [action]}
    clients.iot.create_topic_rule(ruleName=name, topicRulePayload=rule)

    def receive() -> list[str]:
        answer = clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=3)
        return [message["Body"] for message in answer.get("Messages", [])]

    yield Way(name, IotDeviceResults(clients), receive)
    clients.iot.delete_topic_rule(ruleName=name)
    clients.sqs.delete_queue(QueueUrl=url)


def a_result(faces: int = 1) -> RecognitionResult:
    """A result with so many faces."""
    face = Face(
        box=ResultBox(x_min=1 / 3, y_min=2 / 3, x_max=100 / 3, y_max=200 / 3),
        probability=2 / 3,
        landmarks=((1 / 3, 2 / 3),) * 5,
        matches=(ResultMatch(identity="Jane", similarity=2 / 3, threshold=1 / 3),) * 5,
    )
    return RecognitionResult(
        request_id=uuid.uuid4(),
        result="Jane",
        filename="😀 door.jpg",
        outcome=Outcome.MATCH,
        faces=(face,) * faces,
        thing="door-1",
        captured_at=datetime.now(UTC),
        completed_at=datetime.now(UTC),
    )


def test_device_gets_its_result_unchanged(way: Way) -> None:
    """Every field of it, on its own topic."""
    result = a_result()
    way.results.publish(way.thing, result)
    (body,) = way.receive()
    assert RecognitionResult.parse(body) == result


def test_result_of_a_crowd_is_shortened_to_a_message(way: Way) -> None:
    """Its first faces decide; AWS IoT Core would refuse more bytes."""
    result = a_result(faces=400)
    way.results.publish(way.thing, result)
    (body,) = way.receive()
    received = RecognitionResult.parse(body)
    assert 50 < len(received.faces) < 400
    left = {"faces": received.faces, "more_faces": 400 - len(received.faces), "shortened": True}
    assert received == result.model_copy(update=left)
    assert len(body) <= IOT_MESSAGE_BYTES


def test_device_that_does_not_listen_is_no_error(way: Way) -> None:
    """It may be offline, or removed."""
    way.results.publish(f"{way.thing}-2", a_result())
    assert way.receive() == []


@pytest.mark.parametrize("thing", ["+", "a/#", "x" * 300])
def test_name_that_is_no_topic_is_refused(way: Way, thing: str) -> None:
    """A retry would not help."""
    with pytest.raises(Refused):
        way.results.publish(thing, a_result())


def test_refused_connection_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worth a retry."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    clients = Clients(Settings(aws=AwsSettings.model_validate({"endpoint_url": "http://127.0.0.1:9"})))
    with pytest.raises(Transient):
        IotDeviceResults(clients).publish("door-1", a_result())


def test_endpoint_is_the_accounts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS says it: the region's common one is for tests only."""
    clients = Clients(Settings(aws=AwsSettings()))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    asked: list[str] = []

    class Registry:
        def describe_endpoint(self, **keywords: str) -> dict[str, str]:
            asked.append(keywords["endpointType"])
            return {"endpointAddress": "a1b2-ats.iot.us-east-1.amazonaws.com"}

    monkeypatch.setattr(Clients, "iot", Registry())
    assert clients.iot_data.meta.endpoint_url == "https://a1b2-ats.iot.us-east-1.amazonaws.com"
    assert clients.iot_data is clients.iot_data
    assert asked == ["iot:Data-ATS"]
