"""Our SQS transport with two queues, photos and faces, as a worker's consumer uses it, on queues of the emulator."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

from facerec.aws.clients import Clients
from facerec.celery import configuration
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.messages import FACES_TASK_NAME, TASK_NAME
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.support.logs import capture_logs

TIMEOUT_SECONDS = 30


class Consumer:
    """A worker's channel that consumes both queues, and their other users."""

    def __init__(self, settings: Settings, channel: Any, gate: ConsumerGate) -> None:
        self.settings, self.channel, self.gate = settings, channel, gate
        self.sqs: Any = Clients(settings).sqs
        self.taken: list[Any] = []
        for queue in (settings.request_queue, settings.faces_queue):
            channel.basic_consume(queue, False, self.taken.append, f"tag of {queue}")

    def drain(self, messages: int, turns: int = 20, timeout: float = 2) -> list[Any]:
        """Run Celery's loop until so many messages are taken."""
        for _ in range(turns):
            if len(self.taken) >= messages:
                break
            try:
                self.channel.drain_events(timeout=timeout)
            except (Empty, TimeoutError):
                continue
        return self.taken

    def url(self, queue: str) -> str:
        """A queue's URL."""
        return str(self.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def send_photo(self) -> str:
        """Send a task as the web tier does; returns its id."""
        request_id = str(uuid.uuid4())
        message = {
            "headers": {"task": TASK_NAME, "id": request_id},
            "properties": {"delivery_info": {}},
            "body": "[[1], {}, {}]",
            "content-type": "application/json",
        }
        self.sqs.send_message(QueueUrl=self.url(self.settings.request_queue), MessageBody=json.dumps(message))
        return request_id

    def send_faces(self, text: str | None = None) -> str:
        """Send a message as the IoT rule does; returns its id."""
        request_id = str(uuid.uuid4())
        body = (
            json.dumps({"request_id": request_id, "filename": "a.jpg", "thing": "camera-1"}) if text is None else text
        )
        self.sqs.send_message(QueueUrl=self.url(self.settings.faces_queue), MessageBody=body)
        return request_id

    def receives(self, queue: str, wait_seconds: int = 0) -> list[int]:
        """The receive counts of what is visible to others."""
        reply = self.sqs.receive_message(
            QueueUrl=self.url(queue),
            WaitTimeSeconds=wait_seconds,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [int(message["Attributes"]["ApproximateReceiveCount"]) for message in reply.get("Messages", [])]

    def dead_letter(self, queue: str) -> tuple[str, str]:
        """The body and the reason of the next dead letter."""
        (message,) = self.sqs.receive_message(
            QueueUrl=self.url(queue), WaitTimeSeconds=20, MessageAttributeNames=["All"]
        )["Messages"]
        return message["Body"], message["MessageAttributes"]["reason"]["StringValue"]


@pytest.fixture
def consumer(fresh: Settings) -> Iterator[Consumer]:
    """A consumer of both queues."""
    gate = ConsumerGate()
    conf = configuration(fresh.changed(edge=EdgeSettings(enabled=True)))
    options = conf["broker_transport_options"] | {"consumer_gate": gate}
    with Connection(conf["broker_url"], transport=conf["broker_transport"], transport_options=options) as connection:
        yield Consumer(fresh, connection.channel(), gate)


@contextmanager
def hooked(consumer: Consumer, event: str, hook: Callable[..., Any]) -> Iterator[None]:
    """See the calls of the process's client; `event` is botocore's."""
    events = consumer.channel.sqs().meta.events
    events.register(event, hook)
    try:
        yield
    finally:
        events.unregister(event, hook)


@contextmanager
def held_receives(consumer: Consumer, queue: str) -> Iterator[threading.Event]:
    """SQS does not answer the receives from the queue until this ends; the event is set when one is open."""
    opened, answer = threading.Event(), threading.Event()
    url = consumer.url(queue)

    def hold(params: Any, **_: Any) -> None:
        if json.loads(params["body"])["QueueUrl"] == url:
            opened.set()
            answer.wait(TIMEOUT_SECONDS)

    with hooked(consumer, "before-call.sqs.ReceiveMessage", hold):
        try:
            yield opened
        finally:
            answer.set()


def test_message_of_the_faces_queue_is_a_task(consumer: Consumer) -> None:
    """Its argument is the text as it came; Celery and Flower see its id and its file name."""
    request_id = consumer.send_faces()
    (message,) = consumer.drain(1)
    assert message.headers["task"] == FACES_TASK_NAME
    assert (message.headers["id"], message.headers["argsrepr"]) == (request_id, "a.jpg")
    assert json.loads(message.delivery_info["argument"])["request_id"] == request_id
    message.ack()
    consumer.channel.close()
    assert consumer.receives(consumer.settings.faces_queue) == []


@pytest.mark.parametrize("held", ["faces_queue", "request_queue"])
def test_queue_does_not_wait_for_the_long_poll_of_the_other(consumer: Consumer, held: str) -> None:
    """Neither a photo for the faces, nor faces for the photos: the other receive is still open."""
    with held_receives(consumer, getattr(consumer.settings, held)) as opened:
        with pytest.raises(Empty):
            consumer.channel.drain_events(timeout=2)  # the empty answer of the queue that is not held
        assert opened.wait(TIMEOUT_SECONDS)
        sent = [(consumer.send_photo if held == "faces_queue" else consumer.send_faces)() for _ in range(2)]
        taken = consumer.drain(2)
    assert sorted(message.headers["id"] for message in taken) == sorted(sent)


def test_neither_queue_starves_the_other(consumer: Consumer) -> None:
    """Both have a backlog, and tasks free one place at a time: each queue gets its turn."""
    consumer.channel.basic_qos(prefetch_count=1)
    for _ in range(6):
        consumer.send_photo()
        consumer.send_faces()
    for count in range(1, 7):
        # A queue whose answer is late would have its turn later.
        wait(consumer.channel._receives._open.values(), TIMEOUT_SECONDS)
        for message in consumer.drain(count):
            if not message.acknowledged:
                message.ack()
    tasks = [message.headers["task"] for message in consumer.taken[:6]]
    assert 2 <= tasks.count(FACES_TASK_NAME) <= 4


def test_full_worker_receives_nothing(consumer: Consumer) -> None:
    """Until a task ends; then it takes from both queues."""
    consumer.channel.basic_qos(prefetch_count=1)
    photo = consumer.send_photo()
    (message,) = consumer.drain(1)
    assert message.headers["id"] == photo
    with held_receives(consumer, consumer.settings.faces_queue) as opened:
        faces = consumer.send_faces()
        # What was opened before the photo came may still be answered.
        while len(consumer.channel._receives):
            consumer.drain(2, turns=1)
        taken = len(consumer.taken)
        assert not opened.is_set()
    if taken == 1:
        message.ack()
        consumer.drain(2)
    assert consumer.taken[1].headers["id"] == faces


@pytest.mark.parametrize("end", ["pause", "leave"])
def test_message_that_comes_after_the_gate_closed_is_given_back(consumer: Consumer, end: str) -> None:
    """At once, from both queues: the loop may have ended."""
    queues = (consumer.settings.request_queue, consumer.settings.faces_queue)
    with held_receives(consumer, queues[0]) as opened, held_receives(consumer, queues[1]) as also_opened:
        with pytest.raises(Empty):
            consumer.channel.drain_events(timeout=0.01)
        assert opened.wait(TIMEOUT_SECONDS)
        assert also_opened.wait(TIMEOUT_SECONDS)
        consumer.send_photo()
        consumer.send_faces()
        getattr(consumer.gate, end)()
    assert consumer.drain(1, turns=3, timeout=0.1) == []
    # Only then may another one receive what they have been given.
    wait(consumer.channel._receives._open.values(), TIMEOUT_SECONDS)
    for queue in queues:
        assert consumer.receives(queue, wait_seconds=5) == [2]
    consumer.gate.pause()
    assert consumer.gate.quiet


def test_message_that_came_before_the_gate_closed_is_delivered(consumer: Consumer) -> None:
    """The loop has not seen it yet: it must neither stay hidden nor keep the worker from being drained."""
    answered = threading.Event()
    consumer.send_photo()
    with hooked(consumer, "after-call.sqs.ReceiveMessage", lambda **_: answered.set()):
        with pytest.raises(Empty):
            consumer.channel.drain_events(timeout=0)
        assert answered.wait(TIMEOUT_SECONDS)
        consumer.channel._receives._open[consumer.settings.request_queue].result(TIMEOUT_SECONDS)
    consumer.gate.pause()
    (message,) = consumer.drain(1)
    message.ack()
    consumer.drain(2, turns=1, timeout=0)
    consumer.channel.close()
    assert consumer.gate.quiet


def test_closed_channel_gives_back_what_its_open_receives_bring(consumer: Consumer) -> None:
    """As when Celery connects again; the gate is open then."""
    with held_receives(consumer, consumer.settings.faces_queue) as opened:
        with pytest.raises(Empty):
            consumer.channel.drain_events(timeout=0.01)
        assert opened.wait(TIMEOUT_SECONDS)
        consumer.send_faces()
    consumer.channel.close()
    assert consumer.receives(consumer.settings.faces_queue, wait_seconds=5) in ([1], [2])
    assert consumer.taken == []


def test_rejected_faces_are_dead_letters_of_their_own_queue(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After their last delivery; a rejected photo goes to the dead-letter queue of photos."""
    monkeypatch.setattr(consumer.channel.in_flight, "_max_receives", 1)
    settings = consumer.settings
    for queue, send in (
        (settings.faces_dead_letter_queue, consumer.send_faces),
        (settings.dead_letter_queue, consumer.send_photo),
    ):
        request_id = send()
        consumer.taken.clear()
        (message,) = consumer.drain(1)
        message.reject()
        body, reason = consumer.dead_letter(queue)
        assert request_id in body
        assert "last delivery" in reason


@pytest.mark.parametrize("text", ["no json", "{}", '{"request": {"request_id": "x"}}'])
def test_faces_that_cannot_be_read_are_a_dead_letter_at_once(consumer: Consumer, text: str) -> None:
    """As they came, with the reason; no place is taken."""
    consumer.send_faces(text)
    with capture_logs() as logs:
        assert consumer.drain(1, turns=3) == []
        body, reason = consumer.dead_letter(consumer.settings.faces_dead_letter_queue)
    assert body == text
    assert reason.startswith("it cannot be read")
    assert [entry["event"] for entry in logs] == ["dead_lettered"]


def test_missing_faces_queue_does_not_stop_photos(consumer: Consumer) -> None:
    """Its outage is logged once."""
    consumer.sqs.delete_queue(QueueUrl=consumer.url(consumer.settings.faces_queue))
    with capture_logs() as logs:
        for number in range(1, 4):
            consumer.send_photo()
            assert len(consumer.drain(number)) == number
        consumer.gate.leave()
        consumer.channel.close()
    assert [entry["event"] for entry in logs] == ["queue_unreachable"]
