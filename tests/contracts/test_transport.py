"""Our SQS transport as kombu's consumers use it, on a queue of the emulator."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.parsers import ResponseParserError
from celery import Celery
from kombu import Connection

from facerec.aws.clients import Clients
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue
from facerec.celery import configuration
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.errors import QueueMissing, Transient
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from tests.support.logs import capture_logs

BODY = {
    "headers": {"task": TASK_NAME, "id": "f2cf5a3e-8d8c-4b63-9b80-0d6a7a3a4c11"},
    "properties": {"delivery_info": {}},
    "body": "[[1], {}, {}]",
    "content-type": "application/json",
}


@pytest.fixture
def gate() -> ConsumerGate:
    """The process's gate."""
    return ConsumerGate()


@pytest.fixture
def channel(fresh: Settings, gate: ConsumerGate) -> Iterator[Any]:
    """A consumer's channel."""
    conf = configuration(fresh)
    options = conf["broker_transport_options"] | {"consumer_gate": gate}
    with Connection(conf["broker_url"], transport=conf["broker_transport"], transport_options=options) as connection:
        yield connection.channel()


@pytest.fixture
def sqs(fresh: Settings) -> Any:
    """The queue's other users."""
    return Clients(fresh).sqs


@pytest.fixture
def url(fresh: Settings, sqs: Any) -> str:
    """The queue's URL, with one message in it."""
    url: str = sqs.get_queue_url(QueueName=fresh.request_queue)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(BODY))
    return url


def receive(sqs: Any, url: str, wait_seconds: int = 0) -> list[int]:
    """The receive counts of what is visible to others."""
    reply = sqs.receive_message(
        QueueUrl=url, WaitTimeSeconds=wait_seconds, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )
    return [int(message["Attributes"]["ApproximateReceiveCount"]) for message in reply.get("Messages", [])]


def take(channel: Any, queue: str) -> Any:
    """The next message, held by the channel."""
    messages: list[Any] = []
    channel.basic_consume(queue, False, messages.append, "tag")
    channel.connection.drain_events(channel.connection, timeout=1)
    channel.basic_cancel("tag")
    (message,) = messages
    return message


@contextmanager
def giving_back(channel: Any, happens: Callable[[], None]) -> Iterator[None]:
    """Whenever a message is about to be given back this happens, too."""
    event = "before-call.sqs.ChangeMessageVisibilityBatch"

    def handler(**_: Any) -> None:
        happens()

    events = channel.sqs().meta.events  # of the process's client
    events.register(event, handler)
    try:
        yield
    finally:
        events.unregister(event, handler)


def test_rejected_message_comes_back_later(
    channel: Any, sqs: Any, url: str, fresh: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not deleted, nor delivered again at once; the pause depends on how often it was delivered."""
    asked: list[int] = []

    def pause(receives: int, _jitter: float) -> int:
        asked.append(receives)
        return 1

    monkeypatch.setattr("facerec.celery_sqs.in_flight.redelivery_seconds", pause)
    take(channel, fresh.request_queue).reject()
    assert receive(sqs, url) == []
    assert receive(sqs, url, wait_seconds=10) == [2]
    assert asked == [1]


def test_message_rejected_for_the_last_time_is_a_dead_letter(
    channel: Any, sqs: Any, url: str, fresh: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS would put it there, too, but without a reason."""
    monkeypatch.setattr(channel.in_flight, "_max_receives", 1)
    take(channel, fresh.request_queue).reject()
    dead_letters = sqs.get_queue_url(QueueName=fresh.dead_letter_queue)["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=dead_letters, WaitTimeSeconds=20, MessageAttributeNames=["All"])[
        "Messages"
    ]
    assert json.loads(message["Body"]) == BODY
    assert "last delivery" in message["MessageAttributes"]["reason"]["StringValue"]
    channel.close()
    assert receive(sqs, url) == []


def test_requeued_message_is_visible_at_once(
    channel: Any, sqs: Any, url: str, fresh: Settings, gate: ConsumerGate
) -> None:
    """To another worker, but not to a receive of this one that is open."""
    take(channel, fresh.request_queue).reject(requeue=True)
    assert receive(sqs, url) == [2]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(BODY))
    message = take(channel, fresh.request_queue)
    assert gate.begin_receive("queue")
    message.reject(requeue=True)
    assert receive(sqs, url) == []


def test_closing_channel_makes_its_messages_visible_at_once(channel: Any, sqs: Any, url: str, fresh: Settings) -> None:
    """Another worker takes over without delay."""
    take(channel, fresh.request_queue)
    assert receive(sqs, url) == []
    channel.close()
    assert receive(sqs, url, wait_seconds=5) == [2]


def test_closed_channel_holds_nothing(channel: Any, url: str, fresh: Settings, gate: ConsumerGate) -> None:
    """The process may connect again, and be quiet then."""
    del url  # it has put a message into the queue
    take(channel, fresh.request_queue)
    gate.pause()
    assert not gate.quiet
    channel.close()
    assert gate.quiet


def test_message_that_cannot_be_given_back_takes_no_place(channel: Any, url: str, fresh: Settings) -> None:
    """Whatever the fault: it comes back by itself when its visibility timeout is over."""
    del url  # it has put a message into the queue
    message = take(channel, fresh.request_queue)

    def fail() -> None:
        raise ResponseParserError("a proxy's page")

    with giving_back(channel, fail), capture_logs() as logs:
        message.reject()
    assert len(channel.in_flight) == 0
    assert [entry["event"] for entry in logs] == ["messages_not_given_back"]


def test_acknowledged_message_is_deleted(channel: Any, sqs: Any, url: str, fresh: Settings) -> None:
    """For good, and at the latest when its channel closes: it is not given back then."""
    take(channel, fresh.request_queue).ack()
    channel.close()
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert {attributes[name] for name in names} == {"0"}


def test_unconfirmed_task_does_not_count_as_sent(channel: Any, fresh: Settings) -> None:
    """A proxy that answers 200 with its own page has not stored it."""
    event = "before-call.sqs.SendMessage"

    def answer(**_: Any) -> Any:
        return SimpleNamespace(status_code=200), {}

    events = channel.sqs().meta.events  # of the process's client
    events.register(event, answer)
    try:
        with pytest.raises(Transient, match="has not confirmed"):
            channel._put(fresh.request_queue, BODY)
    finally:
        events.unregister(event, answer)


def test_queues_are_never_created(channel: Any, sqs: Any) -> None:
    """A queue made on the side would have the wrong attributes and no dead-letter queue."""
    with pytest.raises(QueueMissing):
        channel.queue_declare("no-such-queue")
    assert not sqs.list_queues(QueueNamePrefix="no-such-queue").get("QueueUrls")


def test_reason_may_hold_any_character(fresh: Settings, sqs: Any) -> None:
    """SQS refuses some characters; garbage must become a dead letter all the same."""
    reason = "bad \x00\x1b\ud800\ufffe byte\nJörg 😀"
    SqsDeadLetterWriter(SqsQueue(Clients(fresh).sqs, fresh.dead_letter_queue)).put(
        "body", reason=reason, request_id="", failed_at=datetime.now(UTC)
    )
    url = sqs.get_queue_url(QueueName=fresh.dead_letter_queue)["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10, MessageAttributeNames=["All"])["Messages"]
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["reason"].split() == ["bad", "byte", "Jörg", "😀"]
    assert attributes["request_id"] == "unknown"


def test_task_that_cannot_be_begun_stays_in_the_queue(channel: Any, sqs: Any, url: str, fresh: Settings) -> None:
    """A pool that is closing takes nothing: the task is no dead letter, holds no place, and comes back by itself."""
    del url  # it has put a message into the queue

    def refuse(_: Any) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    channel.basic_consume(fresh.request_queue, False, refuse, "tag")
    with capture_logs() as logs:
        channel.connection.drain_events(channel.connection, timeout=10)
        channel.close()
    assert [entry["event"] for entry in logs] == ["message_not_taken"]
    assert len(channel.in_flight) == 0
    dead_letters = sqs.get_queue_url(QueueName=fresh.dead_letter_queue)["QueueUrl"]
    assert receive(sqs, dead_letters) == []


def test_received_task_is_taken_though_its_queue_is_deleted(channel: Any, sqs: Any, url: str, fresh: Settings) -> None:
    """Another thread of the worker may notice it first, and forget the queue's URL. The task is no dead letter."""
    event = "after-call.sqs.ReceiveMessage"

    def delete(**_: Any) -> None:
        sqs.delete_queue(QueueUrl=url)
        with pytest.raises(QueueMissing):
            channel._queue(fresh.request_queue).delete_batch(["receipt"])

    events = channel.sqs().meta.events  # of the process's client
    events.register(event, delete)
    try:
        assert take(channel, fresh.request_queue).headers == BODY["headers"]
    finally:
        events.unregister(event, delete)


def test_task_of_a_stock_celery_is_taken(channel: Any, fresh: Settings) -> None:
    """With kombu's own transport, which sends JSON in base64, and every header of Celery."""
    address = str(fresh.endpoint_url).removeprefix("http://").rstrip("/")
    stock = Celery(broker=f"sqs://id:secret@{address}", set_as_current=False)
    stock.conf.broker_transport_options = {"region": fresh.aws.region, "is_secure": False}
    sent = stock.send_task(TASK_NAME, args=[{"a": 1}], queue=fresh.request_queue)
    taken = take(channel, fresh.request_queue)
    assert taken.headers["id"] == sent.id
    assert taken.delivery_info["argument"] == {"a": 1}


@pytest.mark.parametrize("cold", [False, True])
def test_message_of_a_receive_that_is_open_at_the_stop_is_not_hidden(
    channel: Any, sqs: Any, url: str, fresh: Settings, gate: ConsumerGate, *, cold: bool
) -> None:
    """A signal comes during a long poll, then a photo. A cold shutdown cancels the consumer meanwhile."""
    messages: list[Any] = []

    def stop(**_: Any) -> None:
        gate.leave()
        if cold:
            channel.basic_cancel("tag")

    event = "before-call.sqs.ReceiveMessage"
    events = channel.sqs().meta.events  # of the process's client
    events.register(event, stop)
    try:
        channel.basic_consume(fresh.request_queue, False, messages.append, "tag")
        channel.connection.drain_events(channel.connection, timeout=1)
    finally:
        events.unregister(event, stop)
    assert len(messages) == (0 if cold else 1)
    if not cold:
        channel.close()
    assert receive(sqs, url) == [2]


def test_paused_gate_stops_receives(channel: Any, sqs: Any, url: str, fresh: Settings, gate: ConsumerGate) -> None:
    """Celery's loop gets its turn, and the message stays visible to others."""
    gate.pause()
    with pytest.raises(TimeoutError):
        take(channel, fresh.request_queue)
    assert receive(sqs, url) == [1]
