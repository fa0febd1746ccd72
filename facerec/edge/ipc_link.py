"""The link through the Greengrass nucleus, which has the connection to AWS IoT Core: by AWS's own IPC client."""

import json
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import structlog
from awsiot.greengrasscoreipc import model  # type: ignore[import-untyped] # it ships no types
from awsiot.greengrasscoreipc.client import (  # type: ignore[import-untyped] # as above
    SubscribeToIoTCoreStreamHandler,
    SubscribeToTopicStreamHandler,
)
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2  # type: ignore[import-untyped] # as above

from facerec.background import BackgroundThread, backoff_seconds
from facerec.edge.connection import CLOSED, Blame, Connection, deliver, too_large
from facerec.edge.ipc_client import FAILURES, connect, disconnect, said
from facerec.edge.link import LinkState, ReceivedMessage
from facerec.edge_messages import frames_topic
from facerec.errors import ConfigurationError, Refused, Transient
from facerec.settings.edge import EdgeSettings, missing_nucleus_variables

log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 10.0
_LITE_MESSAGE_BYTES = 5000
"""Nucleus lite ends the connection at a larger message."""
_AT_LEAST_ONCE = model.QOS.AT_LEAST_ONCE
_SERVICES = {
    "PublishToIoTCore": "aws.greengrass.ipc.mqttproxy",
    "SubscribeToIoTCore": "aws.greengrass.ipc.mqttproxy",
    "SubscribeToTopic": "aws.greengrass.ipc.pubsub",
}
"""The service of each operation, as an access control policy names it."""
_Handler = Callable[[ReceivedMessage], None]


class IpcLink:
    """A connection to the nucleus of this device.

    An acknowledged publish is one that the nucleus has taken. Its own spool then keeps the message until AWS IoT Core
    has it: in memory, and so not over a restart of the nucleus, unless the nucleus is configured otherwise
    (`mqtt.spooler.storageType: Disk`). Frames come by the local publish and subscribe of the device, other topics from
    AWS IoT Core. Nothing has to be acknowledged to the nucleus, which keeps no messages for a component that is away.

    A message must not block those after it: the first one in flight fails with `Refused` when the nucleus has ended the
    connection at it 3 times in a row and it is larger than nucleus lite takes, or 30 times.
    """

    def __init__(self, settings: EdgeSettings, thing: str) -> None:
        self._settings = settings
        self._local_topics = {frames_topic(thing)}
        self._connection = Connection(link="ipc")
        self._handlers: dict[str, _Handler] = {}
        self._lock = threading.Lock()
        self._client: GreengrassCoreIPCClientV2 | None = None
        self._in_flight: dict[Future[None], tuple[str, bytes]] = {}
        """Topic and payload, in the order of sending."""
        self._blame = Blame()
        self._blamed = False
        """Whether a message was blamed for the end of the present connection."""
        self._given_up: Future[None] | None = None
        self._lost = threading.Event()
        """Set when the present connection is lost, or the link is closed."""
        self._closed = False
        self._thread = BackgroundThread("edge-ipc", self._run)

    @property
    def state(self) -> LinkState:
        """The connection to the nucleus as it is now."""
        return self._connection.state

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until it is connected; returns whether it is."""
        return self._connection.wait_connected(timeout_seconds)

    def start(self) -> None:
        """Begin to connect; raises `ConfigurationError` in a process that the nucleus has not started."""
        if missing := missing_nucleus_variables():
            raise ConfigurationError(
                f"{' and '.join(missing)} must be set, as Greengrass does for its components; "
                "set FACEREC_EDGE__LINK=mqtt without Greengrass"
            )
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Send with QoS 1, as `Link.publish` has it."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()
        if (reason := too_large(payload, self._settings)) is not None:
            done.set_exception(Refused(reason))
            return done
        with self._lock:
            client = self._client
            if client is None:
                done.set_exception(CLOSED if self._closed else Transient("the nucleus is not connected"))
                return done
            self._in_flight[done] = topic, payload
            try:
                answer = client.publish_to_iot_core_async(topic_name=topic, qos=_AT_LEAST_ONCE, payload=payload)
            except FAILURES as exc:
                answer = Future()
                answer.set_exception(exc)
        answer.add_done_callback(partial(self._finish, topic, done))
        return done

    def subscribe(self, topic: str, handler: _Handler) -> None:
        """Have the handler called for each message, as `Link.subscribe` has it."""
        with self._lock:
            self._handlers[topic] = handler
            client, lost = self._client, self._lost
        if client is not None:
            try:
                self._subscribe(client, topic, lost)
            except FAILURES:
                lost.set()  # the next connection subscribes again

    def close(self) -> None:
        """Disconnect; publishes that are not acknowledged fail with `Transient`. Idempotent."""
        with self._lock:
            self._closed = True
            self._lost.set()
        self._thread.stop()
        self._connection.closed()

    def _run(self, stopping: threading.Event) -> None:
        failures = 0
        while not stopping.is_set():
            with self._lock:
                self._lost = lost = threading.Event()
                self._blamed = False
                if self._closed:
                    return
            client = None
            try:
                client = self._connect(lost)
                failures = 0
                lost.wait()
                if not self._closed:
                    self._note_end()
            except FAILURES as exc:
                failures += 1
                self._connection.failed(f"the Greengrass nucleus cannot be used ({said(exc)})")
            self._disconnect(client)
            stopping.wait(backoff_seconds(max(failures, 1), random.random()))  # noqa: S311 - no secret

    def _connect(self, lost: threading.Event) -> GreengrassCoreIPCClientV2:
        """Connect and subscribe; raises one of `FAILURES`."""
        client = connect(lost.set, _CONNECT_SECONDS)
        with self._lock:
            self._client = client
            topics = list(self._handlers)
        for topic in topics:
            self._subscribe(client, topic, lost)
        self._connection.connected()
        return client

    def _note_end(self) -> None:
        self._connection.ended_by_server(
            "the Greengrass nucleus ends each connection; nucleus lite does so at a message of more than "
            f"{_LITE_MESSAGE_BYTES} bytes, for which FACEREC_EDGE__MAX_MESSAGE_BYTES must be set to "
            f"{_LITE_MESSAGE_BYTES}"
        )
        self._connection.failed("the Greengrass nucleus ended the connection")

    def _disconnect(self, client: GreengrassCoreIPCClientV2 | None) -> None:
        with self._lock:
            client, self._client = client or self._client, None
            self._blame_first()
            left, self._in_flight = self._in_flight, {}
        for done in left:
            self._fail(done, "the nucleus ended the connection")
        if client is not None:
            disconnect(client)

    def _subscribe(self, client: GreengrassCoreIPCClientV2, topic: str, lost: threading.Event) -> None:
        local = topic in self._local_topics
        handler: _LocalMessages | _CloudMessages
        if local:
            handler = _LocalMessages(self._handlers, topic, lost)
            answer, _ = client.subscribe_to_topic_async(topic=topic, stream_handler=handler)
        else:
            handler = _CloudMessages(self._handlers, topic, lost)
            answer, _ = client.subscribe_to_iot_core_async(topic_name=topic, qos=_AT_LEAST_ONCE, stream_handler=handler)
        try:
            answer.result(_ANSWER_SECONDS)
        except model.UnauthorizedError:
            self._connection.subscribed(topic, _policy("SubscribeToTopic" if local else "SubscribeToIoTCore", topic))
        else:
            handler.established = True
            self._connection.subscribed(topic, None)

    def _finish(self, topic: str, done: "Future[None]", answer: "Future[Any]") -> None:
        error = answer.exception()
        with self._lock:
            if done not in self._in_flight:
                return  # it has failed with the connection
            if error is None:
                self._blame.clear()
            elif isinstance(error, FAILURES):
                self._blame_first()  # the streams of a connection end before it does
            del self._in_flight[done]
        if error is None:
            done.set_result(None)
        elif isinstance(error, model.UnauthorizedError):
            done.set_exception(Refused(_policy("PublishToIoTCore", topic)))
        elif isinstance(error, model.InvalidArgumentsError):
            done.set_exception(Refused(f"the nucleus does not take it ({said(error)})"))
        else:
            self._fail(done, f"the nucleus did not take the message ({said(error)})")

    def _blame_first(self) -> None:
        """Blame the first message in flight for the end of the connection, once; the lock is held."""
        first = next(iter(self._in_flight), None)
        if first is None or self._blamed or self._closed:
            return
        self._blamed = True
        topic, payload = self._in_flight[first]
        weight = Blame.SAID if len(payload) > _LITE_MESSAGE_BYTES else Blame.SILENT
        if self._blame.add(topic, payload, weight):
            self._blame.clear()
            self._given_up = first

    def _fail(self, done: "Future[None]", reason: str) -> None:
        if done is self._given_up:
            done.set_exception(
                Refused(
                    "the nucleus ended the connection each time; "
                    f"nucleus lite needs FACEREC_EDGE__MAX_MESSAGE_BYTES={_LITE_MESSAGE_BYTES}"
                )
            )
        else:
            done.set_exception(CLOSED if self._closed else Transient(reason))


class _Messages:
    """The stream of one subscription; when the nucleus ends it, the connection is made again."""

    def __init__(self, handlers: Mapping[str, _Handler], topic: str, lost: threading.Event) -> None:
        self._handlers = handlers
        self._topic = topic
        self._lost = lost
        self.established = False

    def deliver(self, payload: bytes) -> None:
        deliver(self._handlers, ReceivedMessage(self._topic, payload, lambda: None))

    def on_stream_error(self, error: Exception) -> bool:
        log.warning("nucleus_subscription_failed", topic=self._topic, reason=said(error))
        return True

    def on_stream_closed(self) -> None:
        if self.established:
            self._lost.set()


class _LocalMessages(_Messages, SubscribeToTopicStreamHandler):  # type: ignore[misc] # it ships no types
    """Messages of other components of this device."""

    def on_stream_event(self, event: model.SubscriptionResponseMessage) -> None:
        if event.binary_message is not None:
            self.deliver(event.binary_message.message)
        elif event.json_message is not None:
            self.deliver(json.dumps(event.json_message.message).encode())


class _CloudMessages(_Messages, SubscribeToIoTCoreStreamHandler):  # type: ignore[misc] # as above
    """Messages from AWS IoT Core."""

    def on_stream_event(self, event: model.IoTCoreMessage) -> None:
        self.deliver(event.message.payload or b"")


def _policy(operation: str, topic: str) -> str:
    policy = {"operations": [f"aws.greengrass#{operation}"], "resources": [topic]}
    access = {_SERVICES[operation]: {f"com.facerec.FaceDetection:{operation}:1": policy}}
    return f"the policy of the component does not allow it; its accessControl needs {json.dumps(access)}"
