"""One suite for every dead-letter queue: in memory, and over SQS as both emulators have it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterQueue, SqsDeadLetters
from facerec.aws.sqs.queue import SqsQueue
from facerec.dead_letters import DeadLetter, DeadLetterQueue
from facerec.errors import QueueMissing
from tests.fakes.dead_letters import InMemoryDeadLetters

FAILED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Way:
    """An empty queue: how workers write to it, how SQS moves a message to it, and its reading end."""

    put: Callable[..., None]
    move: Callable[[str], object]
    queue: DeadLetterQueue
    other: DeadLetterQueue
    """The same queue, as another operator reads it."""


@pytest.fixture(params=["memory", "ministack", "moto"])
def way(request: pytest.FixtureRequest) -> Way:
    """One implementation each."""
    if request.param == "memory":
        fake = InMemoryDeadLetters()
        return Way(fake.put, fake.move, fake, fake)
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}-dlq"
    clients.sqs.create_queue(QueueName=name)
    return Way(
        SqsDeadLetters(SqsQueue(clients.sqs, name)).put,
        SqsQueue(clients.sqs, name).send,
        SqsDeadLetterQueue(clients, name, poll_seconds=0),
        SqsDeadLetterQueue(clients, name, poll_seconds=0),
    )


def seen(queue: DeadLetterQueue, limit: int | None = None) -> list[DeadLetter]:
    """The messages of one look."""
    with queue.look(limit) as letters:
        return list(letters)


def test_look_shows_body_and_attributes_of_the_writer(way: Way) -> None:
    """The body is as it came."""
    way.put("body é", reason="the engine crashed", request_id="17", failed_at=FAILED_AT)
    (letter,) = seen(way.queue)
    assert (letter.body, letter.reason, letter.request_id) == ("body é", "the engine crashed", "17")
    assert (letter.failed_at, letter.receives) == (FAILED_AT, 1)


def test_message_moved_by_sqs_has_no_attributes(way: Way) -> None:
    """The reason comes from the body, and the time is when it was sent."""
    way.move("no task")
    (letter,) = seen(way.queue)
    assert (letter.reason, letter.request_id) == ("not a task of facerec", None)
    assert abs((letter.failed_at - datetime.now(UTC)).total_seconds()) < 60


def test_look_removes_nothing(way: Way) -> None:
    """Every message is seen once and visible again at the end; the receives count the looks."""
    for number in range(23):
        way.move(f"{number}")
    for looks in (1, 2):
        letters = seen(way.queue)
        assert sorted(int(letter.body) for letter in letters) == list(range(23))
        assert {letter.receives for letter in letters} == {looks}
    assert way.queue.count() == 23


def test_look_hides_messages_from_other_readers(way: Way) -> None:
    """Until it ends, also with Ctrl-C."""
    way.move("a")
    with pytest.raises(KeyboardInterrupt), way.queue.look() as letters:  # noqa: PT012 - what is seen within counts
        assert len(list(letters)) == 1
        assert seen(way.other) == []
        raise KeyboardInterrupt
    assert len(seen(way.other)) == 1


def test_look_with_a_limit_receives_no_more(way: Way) -> None:
    """The receives of the others stay 0."""
    for number in range(13):
        way.move(f"{number}")
    assert len(seen(way.queue, 11)) == 11
    assert sum(letter.receives for letter in seen(way.queue)) == 13 + 11


def test_remove_deletes_one_and_purge_all(way: Way) -> None:
    """The rest stays."""
    for number in range(3):
        way.move(f"{number}")
    with way.queue.look() as letters:
        for letter in letters:
            if letter.body != "1":
                way.queue.remove(letter)
    (left,) = seen(way.queue)
    assert left.body == "1"
    way.queue.purge()
    assert seen(way.queue) == []


def test_missing_queue_is_named(ministack_clients: Clients) -> None:
    """In the error."""
    queue = SqsDeadLetterQueue(ministack_clients, "never-made-dlq")
    with pytest.raises(QueueMissing, match="never-made-dlq"):
        queue.count()
    with pytest.raises(QueueMissing), queue.look() as letters:
        next(letters)
