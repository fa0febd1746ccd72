"""One suite for every dead-letter queue: in memory, and on SQS in both emulators."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterReader, SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue
from facerec.dead_letters import DeadLetter, DeadLetterReader
from facerec.errors import QueueMissing
from facerec.settings import Settings
from facerec.settings.resources import SQS_MESSAGE_BYTES
from tests.fakes.dead_letters import InMemoryDeadLetterQueue

FAILED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Implementation:
    """An empty queue: its writer, what SQS does to move a message to it, and its reading end."""

    put: Callable[..., None]
    move: Callable[[str], object]
    queue: DeadLetterReader
    other: DeadLetterReader
    """The same queue, read by another operator."""


@pytest.fixture(params=["memory", "ministack", "moto"])
def dead_letters(request: pytest.FixtureRequest) -> Implementation:
    """One implementation each."""
    if request.param == "memory":
        fake = InMemoryDeadLetterQueue()
        return Implementation(fake.put, fake.move, fake, fake)
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}-dlq"
    clients.sqs.create_queue(QueueName=name)
    return Implementation(
        SqsDeadLetterWriter(SqsQueue(clients.sqs, name)).put,
        SqsQueue(clients.sqs, name).send,
        SqsDeadLetterReader(clients, name, poll_seconds=0),
        SqsDeadLetterReader(clients, name, poll_seconds=0),
    )


def seen(queue: DeadLetterReader, limit: int | None = None) -> list[DeadLetter]:
    """The messages of one look."""
    with queue.look(limit) as letters:
        return list(letters)


def test_look_shows_body_and_attributes_of_the_writer(dead_letters: Implementation) -> None:
    """The body is as it came."""
    dead_letters.put("body é", reason="the engine crashed", request_id="17", failed_at=FAILED_AT)
    (letter,) = seen(dead_letters.queue)
    assert (letter.body, letter.reason, letter.request_id) == ("body é", "the engine crashed", "17")
    assert (letter.failed_at, letter.receives) == (FAILED_AT, 1)


def test_longest_task_fits_with_its_reason(ministack_clients: Clients, fresh: Settings) -> None:
    """The writer cuts reason and id, which may come from outside, to what the queue has room for."""
    queue = fresh.dead_letter_queue
    writer = SqsDeadLetterWriter(SqsQueue(ministack_clients.sqs, queue))
    writer.put("x" * 200_000, reason="é" * 60_000, request_id="😀" * 60_000, failed_at=FAILED_AT)
    (letter,) = seen(SqsDeadLetterReader(ministack_clients, queue, poll_seconds=0))
    attributes = sum(len(f"{name}String{value}".encode()) for name, value in letter.attributes.items())
    assert fresh.queue.max_message_bytes + attributes <= SQS_MESSAGE_BYTES


def test_message_moved_by_sqs_has_no_attributes(dead_letters: Implementation) -> None:
    """The reason comes from the body, and the time is when it was sent."""
    dead_letters.move("no task")
    (letter,) = seen(dead_letters.queue)
    assert (letter.reason, letter.request_id) == ("not a task of facerec", None)
    assert abs((letter.failed_at - datetime.now(UTC)).total_seconds()) < 60


def test_look_removes_nothing(dead_letters: Implementation) -> None:
    """Every message is seen once and visible again at the end; the receives count the looks."""
    for number in range(23):
        dead_letters.move(f"{number}")
    for looks in (1, 2):
        letters = seen(dead_letters.queue)
        assert sorted(int(letter.body) for letter in letters) == list(range(23))
        assert {letter.receives for letter in letters} == {looks}
    assert dead_letters.queue.count() == 23


def test_look_hides_messages_from_other_readers(dead_letters: Implementation) -> None:
    """Until it ends, also with Ctrl-C."""
    dead_letters.move("a")
    with pytest.raises(KeyboardInterrupt), dead_letters.queue.look() as letters:  # noqa: PT012 - what is seen within counts
        assert len(list(letters)) == 1
        assert seen(dead_letters.other) == []
        raise KeyboardInterrupt
    assert len(seen(dead_letters.other)) == 1


def test_look_with_a_limit_receives_no_more(dead_letters: Implementation) -> None:
    """The receives of the others stay 0."""
    for number in range(13):
        dead_letters.move(f"{number}")
    assert len(seen(dead_letters.queue, 11)) == 11
    assert sum(letter.receives for letter in seen(dead_letters.queue)) == 13 + 11


def test_remove_deletes_one_and_purge_all(dead_letters: Implementation) -> None:
    """The rest stays."""
    for number in range(3):
        dead_letters.move(f"{number}")
    with dead_letters.queue.look() as letters:
        for letter in letters:
            if letter.body != "1":
                dead_letters.queue.remove(letter)
    (left,) = seen(dead_letters.queue)
    assert left.body == "1"
    dead_letters.queue.purge()
    assert seen(dead_letters.queue) == []


def test_missing_queue_is_named(ministack_clients: Clients) -> None:
    """In the error."""
    queue = SqsDeadLetterReader(ministack_clients, "never-made-dlq")
    with pytest.raises(QueueMissing, match="never-made-dlq"):
        queue.count()
    with pytest.raises(QueueMissing), queue.look() as letters:
        next(letters)


def test_message_of_a_failed_iot_rule_is_read(ministack_clients: Clients) -> None:
    """As the emulated AWS IoT Core writes it when a rule's queue is missing: the reason, and the device's message."""
    name = f"t{uuid.uuid4().hex[:12]}"
    dead, missing = (
        ministack_clients.sqs.create_queue(QueueName=f"{name}{end}")["QueueUrl"] for end in ("-dlq", "-faces")
    )
    ministack_clients.sqs.delete_queue(QueueUrl=missing)
    to_faces, to_dead = (
        {"sqs": {"queueUrl": url, "roleArn": "arn:aws:iam::000000000000:role/rules", "useBase64": False}}
        for url in (missing, dead)
    )
    rule: Any = {
        "sql": f"SELECT *, topic(2) AS thing FROM 'facerec/{name}/faces'",  # noqa: S608 - of IoT's rules
        "awsIotSqlVersion": "2016-03-23",
        "actions": [to_faces],
        "errorAction": to_dead,
    }
    ministack_clients.iot.create_topic_rule(ruleName=name, topicRulePayload=rule)
    sent = {"filename": "a.jpg", "thing": "another"}
    ministack_clients.iot_data.publish(topic=f"facerec/{name}/faces", qos=1, payload=json.dumps(sent))
    (letter,) = seen(SqsDeadLetterReader(ministack_clients, f"{name}-dlq"))
    ministack_clients.iot.delete_topic_rule(ruleName=name)
    assert letter.reason.startswith(f"the IoT rule {name} failed: ")
    assert f"{name}-faces" in letter.reason
    assert json.loads(letter.content) == sent | {"thing": name}
