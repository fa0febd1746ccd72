"""One suite for the queue of events: in memory, and over SQS as both emulators have it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import QueueMissing
from tests.fakes.event_queue import InMemoryEventQueue


@dataclass(frozen=True)
class Way:
    """A queue of its own, and how many messages it still has."""

    queue: SqsQueue | InMemoryEventQueue
    left: Callable[[], int]


@pytest.fixture(params=["memory", "ministack", "moto"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each implementation."""
    if request.param == "memory":
        fake = InMemoryEventQueue()
        fake.sent_at = datetime.now(UTC).timestamp()
        return Way(fake, lambda: fake.left)
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}-events-queue"
    url = clients.sqs.create_queue(QueueName=name)["QueueUrl"]
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def left() -> int:
        return sum(
            map(int, clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())
        )

    return Way(SqsQueue(clients.sqs, name), left)


def received(way: Way, count: int) -> list[Any]:
    """So many messages, in as many receives as that takes."""
    messages: list[Any] = []
    while len(messages) < count:
        messages += way.queue.receive(wait_seconds=1, attributes=["SentTimestamp"])
    return messages


def test_receive_brings_what_was_sent_with_its_time(way: Way) -> None:
    """The clock is the queue's."""
    began = datetime.now(UTC).timestamp()
    bodies = {f'{{"number": {number}}}' for number in range(12)}
    for body in bodies:
        way.queue.send(body)
    messages = received(way, 12)
    assert {message["Body"] for message in messages} == bodies
    assert all(abs(int(message["Attributes"]["SentTimestamp"]) / 1000 - began) < 60 for message in messages)


def test_queue_keeps_messages_until_they_are_deleted(way: Way) -> None:
    """A reader that dies loses nothing."""
    way.queue.send("one")
    way.queue.send("two")
    messages = received(way, 2)
    assert way.left() == 2
    assert way.queue.delete_batch([message["ReceiptHandle"] for message in messages]) == []
    assert way.left() == 0


def test_empty_receive_and_empty_delete_are_no_errors(way: Way) -> None:
    """An idle system is the usual one."""
    assert way.queue.receive(wait_seconds=0, attributes=["SentTimestamp"]) == []
    assert way.queue.delete_batch([]) == []


def test_queue_that_is_created_again_is_found(ministack_clients: Clients) -> None:
    """After an error that says that it is gone."""
    name = f"test-{uuid.uuid4().hex[:12]}-events-queue"
    queue = SqsQueue(ministack_clients.sqs, name)
    with pytest.raises(QueueMissing, match=name):
        queue.send("one")
    ministack_clients.sqs.create_queue(QueueName=name)
    queue.send("two")
    ministack_clients.sqs.delete_queue(QueueUrl=ministack_clients.sqs.get_queue_url(QueueName=name)["QueueUrl"])
    with pytest.raises(QueueMissing, match=name):
        queue.receive(wait_seconds=0)
    ministack_clients.sqs.create_queue(QueueName=name)
    assert queue.receive(wait_seconds=0) == []
