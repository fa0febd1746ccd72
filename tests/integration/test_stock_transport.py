"""What kombu's own SQS transport fails at, and ours does not: each test runs with both.

With kombu's each is known to fail. Where one passes, because kombu has been mended, the test fails and says which of
our overrides can go.
"""

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from io import BytesIO
from typing import Any
from unittest.mock import Mock

import kombu.asynchronous
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError
from kombu import Connection
from kombu.asynchronous.http import Response

from facerec.aws.clients import Clients
from facerec.celery import configuration
from facerec.errors import QueueMissing
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from facerec.settings.resources import QueueSettings
from facerec.settings.tiers import WorkerSettings
from tests.support.cloud import answer
from tests.support.emulated import EmulatedAws, changed

OURS = "facerec.celery_sqs.transport:Transport"
BODY = json.dumps(
    {
        "headers": {"task": TASK_NAME, "id": "f2cf5a3e-8d8c-4b63-9b80-0d6a7a3a4c11"},
        "properties": {"delivery_info": {}},
        "body": "[[], {}, {}]",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
)
MISSING = b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "gone"}'
THROTTLED = b'{"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"}'


def both(override: str, raises: type[Exception] = AssertionError) -> pytest.MarkDecorator:
    """Run a test with kombu's transport, which fails, and with ours."""
    fails = pytest.mark.xfail(strict=True, raises=raises, reason=f"once kombu passes, {override} can go")
    stock = pytest.param("kombu.transport.SQS:Transport", marks=fails, id="kombu")
    return pytest.mark.parametrize("transport", [stock, pytest.param(OURS, id="ours")])


class Hub:
    """An event loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self.scheduled: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []

    def call_soon(self, call: Callable[..., Any], *args: Any) -> None:
        """As kombu's."""
        self.scheduled.append((0, call, args))

    def call_later(self, seconds: float, call: Callable[..., Any], *args: Any) -> None:
        """As kombu's."""
        self.scheduled.append((seconds, call, args))

    def step(self) -> float:
        """Make the next call; returns how long it had to wait."""
        seconds, call, args = self.scheduled.pop(0)
        call(*args)
        return seconds


class Http:
    """Answers each request of kombu's asynchronous client at once, with the next of `answers`."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[dict[str, Any]] = []

    def add_request(self, request: Any) -> None:
        """As kombu's."""
        self.asked.append(json.loads(request.body))
        status, body = self.answers.pop(0)
        request.on_ready(Response(request, status, buffer=BytesIO(body)))


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
    """Connections to queues of the test's own, without a redrive policy; a heartbeat beats three times a second."""
    settings = changed(
        emulator.settings,
        prefix=f"test-{uuid.uuid4().hex[:12]}",
        worker=WorkerSettings(task_time_limit_seconds=0.5),
        queue=QueueSettings(visibility_timeout_seconds=1),
    )
    broker = Broker(settings, sqs)
    yield broker
    broker.close()


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Http:
    """What answers the receives."""
    http = Http()
    monkeypatch.setattr("kombu.asynchronous.aws.connection.get_client", lambda: http)
    monkeypatch.setattr("facerec.celery_sqs.receiver.http_client", lambda: http)
    return http


@contextmanager
def hooked(channel: Any, operation: str, hook: Callable[..., Any]) -> Iterator[None]:
    """See, or answer, the calls of a channel's client."""
    events = channel.sqs().meta.events
    events.register(f"before-call.sqs.{operation}", hook)
    try:
        yield
    finally:
        events.unregister(f"before-call.sqs.{operation}", hook)


def messages(*bodies: str) -> tuple[int, bytes]:
    """The answer to a receive."""
    received = [
        {"MessageId": str(n), "ReceiptHandle": f"r-{n}", "Body": body, "Attributes": {"ApproximateReceiveCount": "1"}}
        for n, body in enumerate(bodies)
    ]
    return 200, json.dumps({"Messages": received}).encode()


def consuming(channel: Any, queue: str) -> tuple[Hub, list[Any]]:
    """Begin to consume; returns the loop and what is received."""
    received: list[Any] = []
    channel.hub = hub = Hub()
    channel.basic_consume(queue, False, received.append, "tag")
    return hub, received


def take(channel: Any, queue: str) -> Any:
    """The next message, held by the channel."""
    message = channel.basic_get(queue)
    channel.qos.append(message, message.delivery_tag)
    return message


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, THROTTLED, id="throttled"),
        pytest.param(400, MISSING, id="missing"),
        *(pytest.param(status, b"", id=str(status)) for status in (403, 408, 429, 500, 503, 504, 599)),
    ],
)
@both("Receiver._on_list_ready and Channel._loop1", raises=Exception)
def test_a_failed_receive_is_followed_by_another(
    broker: Broker, http: Http, transport: str, status: int, body: bytes
) -> None:
    """After a pause that grows; 599 is what kombu's HTTP client says to a refused connection and a time-out."""
    hub, received = consuming(broker.channel(transport), broker.queue)
    http.answers = [(status, body), (status, body), messages(BODY)]
    pauses = [hub.step() for _ in range(3)]
    assert pauses[0] == 0
    assert 0.25 <= pauses[1] <= 0.5 <= pauses[2] <= 1
    assert len(received) == 1


@pytest.fixture
def hub() -> Iterator[Any]:
    """The event loop as kombu has it."""
    with closing(kombu.asynchronous.Hub()) as hub:
        kombu.asynchronous.set_event_loop(hub)
        yield hub


def run_until(hub: Any, condition: Callable[[], bool]) -> None:
    """Run the loop, which turns once a second at least, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        hub.run_once()


@both("Receiver.get_http_connection and HttpClient")
def test_a_receive_that_nobody_answers_is_given_up(
    broker: Broker, hub: Any, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """As when a gateway has forgotten its connection: the next one has another."""
    monkeypatch.setattr("facerec.celery_sqs.receiver.ANSWER_SECONDS", 0.1)
    channel = broker.channel(transport)
    channel.wait_time_seconds = 0
    channel.hub = hub
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        monkeypatch.setattr(channel.sqs()._endpoint, "host", f"http://127.0.0.1:{silent.getsockname()[1]}")
        channel.basic_consume(broker.queue, False, print, "tag")

        def asked_again() -> bool:
            with suppress(BlockingIOError):
                connections.append(silent.accept()[0])
            return len(connections) > 1

        run_until(hub, asked_again)
        for connection in connections:
            connection.close()
    assert len(connections) == 2


def test_receives_leave_no_timers(broker: Broker, hub: Any) -> None:
    """Their time limits are curl's; kombu would keep each for hours."""
    channel = broker.channel(OURS)
    channel.wait_time_seconds = 0
    channel.hub = hub
    receives: list[str | None] = []
    channel.asynsqs()._on_outcome = receives.append
    channel.basic_consume(broker.queue, False, print, "tag")
    run_until(hub, lambda: len(receives) >= 20)
    assert receives == [None] * 20
    assert len(hub.timer.queue) < 10


@both("the except clauses of Channel._get_async and _get_from_sqs", raises=Exception)
@pytest.mark.parametrize("broken", ["url", "signature"])
def test_a_receive_that_cannot_begin_is_followed_by_another(
    broker: Broker, http: Http, monkeypatch: pytest.MonkeyPatch, transport: str, broken: str
) -> None:
    """A proxy answers with a page of its own; an instance's role has no credentials at the moment."""
    channel = broker.channel(transport)
    hub, received = consuming(channel, broker.queue)
    http.answers = [messages(BODY)]
    with monkeypatch.context() as patch:
        if broken == "url":
            channel._queue_cache.clear()
            patch.setattr(channel.sqs(), "get_queue_url", lambda **_: {})
            patch.setattr(channel.sqs(), "list_queues", lambda **_: {})
        else:
            patch.setattr(channel.sqs()._request_signer, "sign", Mock(side_effect=RuntimeError("expired")))
        hub.step()
    hub.step()
    assert len(received) == 1


@both("Channel._get_async and the forgetting of URLs", raises=Exception)
def test_a_queue_that_was_made_anew_is_found(broker: Broker, http: Http, transport: str) -> None:
    """Its URL may be another one."""
    channel = broker.channel(transport)
    hub, received = consuming(channel, broker.queue)
    http.answers = [(400, MISSING), messages(BODY)]
    hub.step()
    with hooked(channel, "GetQueueUrl", lambda **_: answer({"QueueUrl": "http://elsewhere/queue"})):
        hub.step()
    assert [asked["QueueUrl"] for asked in http.asked] == [broker.url, "http://elsewhere/queue"]
    assert len(received) == 1


@both("Channel._put", raises=ClientError)
def test_sends_to_a_queue_that_was_made_anew(broker: Broker, transport: str) -> None:
    """Whose URL it remembered has gone."""
    channel = broker.channel(transport)
    channel._queue_cache[broker.queue] = f"{broker.url}-gone"
    channel._put(broker.queue, json.loads(BODY))
    assert broker.left == 1


@both("Channel._take", raises=AttributeError)
def test_a_message_that_cannot_be_read_ends_nobody(broker: Broker, http: Http, transport: str) -> None:
    """It is in the dead-letter queue with its reason, and its neighbour is worked on."""
    hub, received = consuming(broker.channel(transport), broker.queue)
    http.answers = [messages('{"properties": 5}', BODY)]
    hub.step()
    assert len(received) == 1
    (message,) = broker.sqs.receive_message(
        QueueUrl=broker.dead_letters, WaitTimeSeconds=20, MessageAttributeNames=["All"]
    )["Messages"]
    assert message["Body"] == '{"properties": 5}'
    assert "'int' object" in message["MessageAttributes"]["reason"]["StringValue"]


@both("HoldingChannel.basic_reject")
def test_a_rejected_message_is_not_lost_without_a_redrive_policy(broker: Broker, transport: str) -> None:
    """It failed for a reason that passes."""
    broker.send()
    take(broker.channel(transport), broker.queue).reject()
    assert broker.left == 1


@both("HoldingChannel._restore")
def test_what_was_not_begun_is_visible_at_once_at_shutdown(broker: Broker, transport: str) -> None:
    """Another worker takes over."""
    broker.send()
    channel = broker.channel(transport)
    channel.visibility_timeout = 600
    take(channel, broker.queue)
    channel.close()
    assert len(broker.sqs.receive_message(QueueUrl=broker.url, WaitTimeSeconds=0).get("Messages", [])) == 1


def test_an_outage_is_asked_once_for_all_that_is_given_back(broker: Broker) -> None:
    """Each call that gets no answer holds up the event loop for a quarter of a minute."""
    for _ in range(3):
        broker.send()
    channel = broker.channel(OURS)
    held = [take(channel, broker.queue) for _ in range(3)]
    asked: list[None] = []

    def fail(**_: Any) -> None:
        asked.append(None)
        raise ConnectTimeoutError(endpoint_url="sqs")

    with hooked(channel, "ChangeMessageVisibility", fail):
        for message in held:
            message.requeue()
    assert len(asked) == 1


@both("VisibilityKeeper")
def test_what_is_held_stays_hidden(broker: Broker, transport: str) -> None:
    """A task that takes longer than the visibility timeout is not delivered twice."""
    broker.send()
    channel = broker.channel(transport)
    extended = threading.Event()
    with hooked(channel, "ChangeMessageVisibilityBatch", lambda **_: extended.set()):
        take(channel, broker.queue)
        assert extended.wait(20 if transport == OURS else 1)


@both("the visibility timeout in Channel._get_from_sqs", raises=KeyError)
def test_a_receive_asks_for_our_visibility_timeout(broker: Broker, http: Http, transport: str) -> None:
    """The heartbeat is set by it, whatever the queue's own is."""
    hub, _ = consuming(broker.channel(transport), broker.queue)
    http.answers = [messages()]
    hub.step()
    assert http.asked[0]["VisibilityTimeout"] == 1


@both("Deletions")
def test_deletes_beside_the_event_loop_and_together(broker: Broker, transport: str) -> None:
    """Each call takes milliseconds, in which no task begins."""
    channel = broker.channel(transport)
    threads: list[int] = []
    with hooked(channel, "*", lambda **_: threads.append(threading.get_ident())):
        for _ in range(3):
            broker.send()
        held = [take(channel, broker.queue) for _ in range(3)]
        threads.clear()
        for message in held:
            message.ack()
        channel.close()
    assert broker.left == 0
    assert len(threads) < 3
    assert threading.get_ident() not in threads


@both("Channel._new_queue")
def test_a_missing_queue_is_not_made(broker: Broker, transport: str) -> None:
    """It would have the wrong attributes, and no dead-letter queue."""
    name = f"{broker.queue}-missing"
    with suppress(QueueMissing):
        broker.channel(transport).queue_declare(name)
    assert not broker.sqs.list_queues(QueueNamePrefix=name).get("QueueUrls")


@both("broker_client")
def test_channels_share_a_client(broker: Broker, transport: str) -> None:
    """To make one costs as much as to send twenty tasks."""
    assert broker.channel(transport).sqs() is broker.channel(transport).sqs()
