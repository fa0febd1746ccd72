"""What kombu's own SQS transport fails at, and ours does not: each test runs with both.

With kombu's each is known to fail. Where one passes, because kombu has been mended, the test fails and says which of
our overrides can go.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError
from kombu import Connection

from facerec.aws.clients import Clients
from facerec.celery import configuration
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.errors import QueueMissing
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from facerec.settings.resources import QueueSettings
from facerec.settings.tiers import WorkerSettings
from tests.support.emulated import EmulatedAws
from tests.support.fleet_cloud import refusal

OURS = "facerec.celery_sqs.transport:Transport"
BODY = json.dumps(
    {
        "headers": {"task": TASK_NAME, "id": "f2cf5a3e-8d8c-4b63-9b80-0d6a7a3a4c11"},
        "properties": {"delivery_info": {}},
        "body": "[[1], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
)


def both(override: str, raises: type[Exception] = AssertionError) -> pytest.MarkDecorator:
    """Run a test with kombu's transport, which fails, and with ours."""
    fails = pytest.mark.xfail(strict=True, raises=raises, reason=f"once kombu passes, {override} can go")
    stock = pytest.param("kombu.transport.SQS:Transport", marks=fails, id="kombu")
    return pytest.mark.parametrize("transport", [stock, pytest.param(OURS, id="ours")])


class Broker:
    """Connections with one of the transports to the queues of one test."""

    def __init__(self, settings: Settings, sqs: Any) -> None:
        self.settings = settings
        self.queue = settings.request_queue
        self.sqs = sqs
        self.url: str = self.sqs.create_queue(QueueName=self.queue)["QueueUrl"]
        self.dead_letters: str = self.sqs.create_queue(QueueName=settings.dead_letter_queue)["QueueUrl"]
        self._opened: list[Connection] = []

    def channel(self, transport: str) -> Any:
        """A channel of a new connection."""
        address = str(self.settings.endpoint_url).removeprefix("http://").rstrip("/")
        options = configuration(self.settings)["broker_transport_options"] | {"is_secure": False}
        self._opened.append(Connection(f"sqs://id:secret@{address}", transport=transport, transport_options=options))
        return self._opened[-1].channel()

    def close(self) -> None:
        """End them all."""
        for connection in self._opened:
            connection.close()

    def send(self) -> None:
        """Send a task."""
        self.sqs.send_message(QueueUrl=self.url, MessageBody=BODY)

    @property
    def left(self) -> int:
        """How many messages are not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)


@pytest.fixture(scope="module")
def sqs(emulator: EmulatedAws) -> Any:
    """The queues' other users; to make a client takes longer than most tests here."""
    return Clients(emulator.settings).sqs


@pytest.fixture
def broker(emulator: EmulatedAws, sqs: Any) -> Iterator[Broker]:
    """Connections to queues of the test's own, without a redrive policy; visibility is extended every 0.33 s."""
    settings = emulator.settings.changed(
        prefix=f"test-{uuid.uuid4().hex[:12]}",
        worker=WorkerSettings(task_time_limit_seconds=0.5),
        queue=QueueSettings(visibility_timeout_seconds=1),
    )
    broker = Broker(settings, sqs)
    yield broker
    broker.close()


@contextmanager
def hooked(channel: Any, operation: str, hook: Callable[..., Any]) -> Iterator[None]:
    """See, or answer, the calls of a channel's client."""
    events = channel.sqs().meta.events
    events.register(f"before-call.sqs.{operation}", hook)
    try:
        yield
    finally:
        events.unregister(f"before-call.sqs.{operation}", hook)


def receive(channel: Any, queue: str, tries: int = 1) -> list[Any]:
    """Consume as Celery's synchronous loop does; returns what is received, after so many receives at most."""
    received: list[Any] = []
    channel.basic_consume(queue, False, received.append, "tag")
    for _ in range(tries):
        with suppress(Empty):
            channel.drain_events(timeout=1)
        if received:
            break
    return received


def take(channel: Any, queue: str) -> Any:
    """The next message, held by the channel."""
    (message,) = receive(channel, queue)
    return message


@contextmanager
def failing_receives(channel: Any, count: int, failure: Callable[[], Any]) -> Iterator[None]:
    """Let so many receives fail."""
    left = [failure] * count
    with hooked(channel, "ReceiveMessage", lambda **_: left.pop()() if left else None):
        yield


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits after failed receives, which take no time."""
    waits: list[float] = []
    monkeypatch.setattr(ConsumerGate, "wait_while_open", lambda _self, seconds: waits.append(seconds))
    return waits


def refused_connection() -> Any:
    """What botocore raises."""
    raise EndpointConnectionError(endpoint_url="sqs")


def page_of_a_proxy() -> Any:
    """What botocore raises, which has none of its two base classes."""
    raise ResponseParserError("<html>")


@pytest.mark.parametrize(
    "failure",
    [
        refusal("RequestThrottled"),
        refusal("QueueDoesNotExist"),
        *(refusal("", status) for status in (403, 408, 429, 500, 503, 504)),
        refused_connection,
        page_of_a_proxy,
    ],
)
@both("the except clause of Channel._receive", raises=Exception)
def test_failed_receive_is_followed_by_another(
    broker: Broker, waits: list[float], transport: str, failure: Callable[[], Any]
) -> None:
    """After a wait that grows."""
    broker.send()
    channel = broker.channel(transport)
    with failing_receives(channel, 2, failure):
        assert len(receive(channel, broker.queue, tries=3)) == 1
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1


@both("the except clause of Channel._receive", raises=Exception)
@pytest.mark.parametrize("broken", ["url", "signature"])
def test_receive_that_cannot_begin_is_followed_by_another(
    broker: Broker, waits: list[float], monkeypatch: pytest.MonkeyPatch, transport: str, broken: str
) -> None:
    """A proxy answers with a page of its own; an instance's role has no credentials at the moment."""
    broker.send()
    channel = broker.channel(transport)
    channel.basic_consume(broker.queue, False, print, "first")
    channel.basic_cancel("first")
    with monkeypatch.context() as patch:
        if broken == "url":
            channel._queue_cache.clear()
            getattr(channel, "_queues", {}).clear()
            patch.setattr(channel.sqs(), "get_queue_url", lambda **_: {})
            patch.setattr(channel.sqs(), "list_queues", lambda **_: {})
        else:
            signer = channel.sqs()._request_signer
            patch.setattr(signer, "sign", Mock(side_effect=RuntimeError("expired")))
        assert receive(channel, broker.queue) == []
    assert waits
    assert len(receive(channel, broker.queue)) == 1


@both("SqsQueue.call", raises=Exception)
def test_queue_that_was_created_again_is_found(broker: Broker, transport: str) -> None:
    """Its URL may be another one."""
    broker.send()
    channel = broker.channel(transport)
    if transport == OURS:
        channel._queue(broker.queue)._url = f"{broker.url}-gone"
    channel._queue_cache[broker.queue] = f"{broker.url}-gone"
    assert len(receive(channel, broker.queue)) == 1


@both("Channel._put", raises=ClientError)
def test_send_finds_a_queue_that_was_created_again(broker: Broker, transport: str) -> None:
    """The URL that was known has gone."""
    channel = broker.channel(transport)
    if transport == OURS:
        channel._queue(broker.queue)._url = f"{broker.url}-gone"
    channel._queue_cache[broker.queue] = f"{broker.url}-gone"
    channel._put(broker.queue, json.loads(BODY))
    assert broker.left == 1


@both("Channel._take", raises=AttributeError)
def test_unreadable_message_is_a_dead_letter(broker: Broker, transport: str) -> None:
    """With its reason; the next message is worked on."""
    channel = broker.channel(transport)
    broker.sqs.send_message(QueueUrl=broker.url, MessageBody='{"properties": 5}')
    broker.send()
    assert len(receive(channel, broker.queue, tries=3)) == 1
    (message,) = broker.sqs.receive_message(
        QueueUrl=broker.dead_letters, WaitTimeSeconds=20, MessageAttributeNames=["All"]
    )["Messages"]
    assert message["Body"] == '{"properties": 5}'
    assert "not a task" in message["MessageAttributes"]["reason"]["StringValue"]


@both("Channel.basic_reject")
def test_rejected_message_is_not_lost_without_a_redrive_policy(broker: Broker, transport: str) -> None:
    """It failed for a reason that passes."""
    broker.send()
    take(broker.channel(transport), broker.queue).reject()
    assert broker.left == 1


@both("InFlightMessages.stop")
def test_message_that_was_not_begun_is_visible_at_once_at_shutdown(broker: Broker, transport: str) -> None:
    """Another worker takes over."""
    broker.send()
    channel = broker.channel(transport)
    channel.visibility_timeout = 600
    take(channel, broker.queue)
    channel.close()
    assert len(broker.sqs.receive_message(QueueUrl=broker.url, WaitTimeSeconds=0).get("Messages", [])) == 1


@both("InFlightMessages.extend")
def test_held_message_stays_hidden(broker: Broker, transport: str) -> None:
    """A task that takes longer than the visibility timeout is not delivered twice."""
    broker.send()
    channel = broker.channel(transport)
    extended = threading.Event()
    with hooked(channel, "ChangeMessageVisibilityBatch", lambda **_: extended.set()):
        take(channel, broker.queue)
        assert extended.wait(20 if transport == OURS else 1)


@both("the visibility timeout in Channel._receive", raises=KeyError)
def test_receive_asks_for_our_visibility_timeout(broker: Broker, transport: str) -> None:
    """The extension depends on it, whatever the queue's own timeout is."""
    channel = broker.channel(transport)
    asked: list[Any] = []
    with hooked(channel, "ReceiveMessage", lambda params, **_: asked.append(json.loads(params["body"]))):
        receive(channel, broker.queue)
    assert asked[0]["VisibilityTimeout"] == 1


@both("InFlightMessages.ack")
def test_acks_go_together_and_in_another_thread(broker: Broker, transport: str) -> None:
    """Each call takes milliseconds, in which the consumer takes no task."""
    channel = broker.channel(transport)
    threads: list[int] = []
    with hooked(channel, "*", lambda **_: threads.append(threading.get_ident())):
        for _ in range(3):
            broker.send()
        held = receive(channel, broker.queue, tries=3)
        threads.clear()
        for message in held:
            message.ack()
        channel.close()
    assert broker.left == 0
    assert len(threads) < 3
    assert threading.get_ident() not in threads


@both("Channel._new_queue")
def test_missing_queue_is_not_created(broker: Broker, transport: str) -> None:
    """It would have the wrong attributes, and no dead-letter queue."""
    name = f"{broker.queue}-missing"
    with suppress(QueueMissing):
        broker.channel(transport).queue_declare(name)
    assert not broker.sqs.list_queues(QueueNamePrefix=name).get("QueueUrls")


@both("Channel.queue_declare")
def test_declaration_does_not_ask_for_the_size(broker: Broker, transport: str) -> None:
    """Each connection declares its queue before the first task, while an upload waits."""
    channel = broker.channel(transport)
    asked: list[str] = []
    with hooked(channel, "*", lambda model, **_: asked.append(model.name)):
        channel.queue_declare(broker.queue)
    assert "GetQueueAttributes" not in asked


@both("broker_client")
def test_channels_share_a_client(broker: Broker, transport: str) -> None:
    """To make one costs as much as to send twenty tasks."""
    assert broker.channel(transport).sqs() is broker.channel(transport).sqs()
