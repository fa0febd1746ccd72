"""The Greengrass nucleus as its components see it: AWS's own IPC clients connect to it over a Unix socket.

It has the operations that our component uses, and enforces the access control of the component's recipe. It is no
nucleus: it keeps no messages while AWS IoT Core is away, and knows no validation of configurations.
"""

import asyncio
import json
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from facerec.local.edge.event_stream import BadFrame, Flag, MessageType, StreamFrame, encode, read_frame

log = structlog.get_logger(__name__)

NUCLEUS_FRAME_BYTES = 16 * 1024 * 1024
"""The event stream's own limit; a frame to nucleus lite may have 10 000 bytes."""
_MODEL = "aws.greengrass#"
_MQTT, _LOCAL = "aws.greengrass.ipc.mqttproxy", "aws.greengrass.ipc.pubsub"
_START_SECONDS = 10.0
_REFUSAL_SECONDS = 1.0

Json = Mapping[str, Any]


class IotCore(Protocol):
    """What stands behind the nucleus: a link of its own to AWS IoT Core, or a test."""

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Send a message; the future is done when it was taken."""

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Have the handler called for each message of the topic."""


@dataclass(eq=False)
class IpcComponent:
    """A component that may connect."""

    name: str
    token: str
    """Its `SVCUID`."""
    access: Json
    """`accessControl` of its recipe, without variables."""
    configuration: dict[str, Any] = field(default_factory=dict)
    state: str | None = None
    """What it reported last with UpdateState: RUNNING or ERRORED."""


class _Refused(Exception):
    """The operation fails with this error of the service's model."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(eq=False)
class _Connection:
    """An open connection; `streams` are its subscriptions, by their topic or their configuration's key."""

    component: IpcComponent
    writer: asyncio.StreamWriter
    streams: dict[int, tuple[str, str]] = field(default_factory=dict)

    def send(self, stream: int, model: str, body: Json, *, flags: Flag = Flag.NONE, error: bool = False) -> None:
        if not self.writer.is_closing():
            kind = MessageType.APPLICATION_ERROR if error else MessageType.APPLICATION_MESSAGE
            headers = {":content-type": "application/json", "service-model-type": _MODEL + model}
            self.writer.write(encode(StreamFrame(kind, flags, stream, headers, json.dumps(body).encode())))


class IpcServer:
    """Serves components on a Unix socket, in a thread of its own; `start` and `stop` may be repeated."""

    def __init__(self, socket: Path, iot_core: IotCore, *, max_frame_bytes: int = NUCLEUS_FRAME_BYTES) -> None:
        self._socket = socket
        self._iot_core = iot_core
        self._max_frame_bytes = max_frame_bytes
        self._components: dict[str, IpcComponent] = {}
        self._connections: set[_Connection] = set()
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        """The tasks of all connections, also of those that have not been accepted."""
        self._iot_topics: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    def add(self, component: IpcComponent) -> None:
        """Let a component connect with its token."""
        self._components[component.token] = component

    def start(self) -> None:
        """Listen; returns when components can connect."""
        self._socket.unlink(missing_ok=True)
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="greengrass-ipc", daemon=True
        )
        self._thread.start()
        started.result(_START_SECONDS)

    def stop(self) -> None:
        """End all connections."""
        if self._thread is not None:
            self._in_loop(self._stopping.set)
            self._thread.join()
            self._thread = None

    def publish_local(self, topic: str, payload: bytes) -> None:
        """Publish to the components of this device, as another component does."""
        self._in_loop(lambda: self._publish_local(topic, {"binaryMessage": {"message": b64encode(payload).decode()}}))

    def configure(self, component: IpcComponent, configuration: dict[str, Any]) -> None:
        """Change a component's configuration, as a deployment does, and tell it which keys have changed."""
        old, component.configuration = component.configuration, configuration
        changed = sorted(key for key in {*old, *configuration} if old.get(key) != configuration.get(key))
        self._in_loop(lambda: self._tell_configuration(component, changed))

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    async def _serve(self, started: "Future[None]") -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_unix_server(self._begin, self._socket)
        except OSError as exc:
            started.set_exception(exc)
            return
        started.set_result(None)
        await self._stopping.wait()
        server.close()
        open_connections = dict(self._open)
        for writer in open_connections.values():
            writer.transport.abort()
        if open_connections:
            await asyncio.wait(open_connections)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._on_connection(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = None
        try:
            connection = await self._accept(reader, writer)
            while connection is not None:
                self._take(connection, await read_frame(reader, self._max_frame_bytes))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the component has left
        except BadFrame as exc:
            log.warning("ipc_frame_refused", reason=str(exc))
        finally:
            if connection is not None:
                self._connections.discard(connection)
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Connection | None:
        frame = await read_frame(reader, self._max_frame_bytes)
        try:
            token = json.loads(frame.payload)["authToken"] if frame.type is MessageType.CONNECT else None
        except (ValueError, KeyError, TypeError):
            token = None
        component = self._components.get(token) if isinstance(token, str) else None
        flags = Flag.NONE if component is None else Flag.CONNECTION_ACCEPTED
        writer.write(encode(StreamFrame(MessageType.CONNECT_ACK, flags, 0, {":version": "0.1.0"}, b"")))
        await writer.drain()
        if component is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), _REFUSAL_SECONDS)  # the client reads the refusal, and leaves
            return None
        connection = _Connection(component, writer)
        self._connections.add(connection)
        return connection

    def _take(self, connection: _Connection, frame: StreamFrame) -> None:
        if frame.type is MessageType.PING:
            pong = StreamFrame(MessageType.PING_RESPONSE, Flag.NONE, 0, {}, frame.payload)
            connection.writer.write(encode(pong))
        elif frame.flags & Flag.TERMINATE_STREAM:
            connection.streams.pop(frame.stream, None)
        elif frame.type is MessageType.APPLICATION_MESSAGE and frame.stream:
            operation = frame.headers.get("operation", "").removeprefix(_MODEL)
            try:
                self._operate(connection, frame.stream, operation, json.loads(frame.payload or b"{}"))
            except _Refused as exc:
                self._refuse(connection, frame.stream, exc.error, str(exc))
            except (ValueError, KeyError, TypeError, AttributeError) as exc:
                self._refuse(connection, frame.stream, "InvalidArgumentsError", repr(exc))

    def _operate(self, connection: _Connection, stream: int, operation: str, request: Json) -> None:
        answer: dict[str, Any] = {}
        flags = Flag.TERMINATE_STREAM
        component = connection.component
        match operation:
            case "PublishToIoTCore":
                topic = request["topicName"]
                _check(component, _MQTT, operation, topic)
                payload = b64decode(request.get("payload", ""))
                self._iot_core.publish(topic, payload).add_done_callback(
                    lambda done: self._in_loop(lambda: self._published(connection, stream, done))
                )
                return
            case "SubscribeToIoTCore":
                topic, flags = request["topicName"], Flag.NONE
                _check(component, _MQTT, operation, topic)
                self._subscribe_iot_core(topic)
                connection.streams[stream] = (operation, topic)
            case "SubscribeToTopic":
                topic, flags = request["topic"], Flag.NONE
                _check(component, _LOCAL, operation, topic)
                connection.streams[stream] = (operation, topic)
                answer = {"topicName": topic}
            case "PublishToTopic":
                _check(component, _LOCAL, operation, request["topic"])
                self._publish_local(request["topic"], request["publishMessage"])
            case "GetConfiguration":
                value = _configuration(component, request.get("keyPath") or [])
                answer = {"componentName": component.name, "value": value}
            case "SubscribeToConfigurationUpdate":
                flags = Flag.NONE
                connection.streams[stream] = (operation, "/".join(request.get("keyPath") or []))
            case "UpdateState":
                component.state = request["state"]
            case _:
                raise _Refused("InvalidArgumentsError", f"this nucleus has no operation {operation!r}")
        connection.send(stream, f"{operation}Response", answer, flags=flags)

    def _refuse(self, connection: _Connection, stream: int, error: str, message: str) -> None:
        connection.send(stream, error, {"message": message}, flags=Flag.TERMINATE_STREAM, error=True)

    def _published(self, connection: _Connection, stream: int, done: "Future[None]") -> None:
        if (failure := done.exception()) is None:
            connection.send(stream, "PublishToIoTCoreResponse", {}, flags=Flag.TERMINATE_STREAM)
        else:
            self._refuse(connection, stream, "ServiceError", str(failure))

    def _subscribe_iot_core(self, topic: str) -> None:
        if topic not in self._iot_topics:
            self._iot_topics.add(topic)
            self._iot_core.subscribe(
                topic, lambda topic, payload: self._in_loop(lambda: self._from_iot_core(topic, payload))
            )

    def _from_iot_core(self, topic: str, payload: bytes) -> None:
        message = {"message": {"topicName": topic, "payload": b64encode(payload).decode()}}
        self._send_to_subscribers("SubscribeToIoTCore", topic, "IoTCoreMessage", message)

    def _publish_local(self, topic: str, message: Json) -> None:
        parts = {kind: {**part, "context": {"topic": topic}} for kind, part in message.items()}
        self._send_to_subscribers("SubscribeToTopic", topic, "SubscriptionResponseMessage", parts)

    def _send_to_subscribers(self, operation: str, topic: str, model: str, body: Json) -> None:
        for connection in self._connections:
            for stream, subscription in connection.streams.items():
                if subscription == (operation, topic):
                    connection.send(stream, model, body)

    def _tell_configuration(self, component: IpcComponent, changed: Sequence[str]) -> None:
        for connection in self._connections:
            if connection.component is component:
                for stream, (operation, key) in connection.streams.items():
                    if operation == "SubscribeToConfigurationUpdate":
                        for path in [[name] for name in changed if key in {"", name}]:
                            event = {"componentName": component.name, "keyPath": path}
                            connection.send(stream, "ConfigurationUpdateEvents", {"configurationUpdateEvent": event})


def _check(component: IpcComponent, service: str, operation: str, topic: str) -> None:
    """Raise `_Refused` unless a policy allows the operation on the topic; `*` in a resource is any text."""
    for policy in component.access.get(service, {}).values():
        operations, resources = policy["operations"], policy["resources"]
        if {"*", _MODEL + operation} & set(operations) and any(
            re.fullmatch(".*".join(map(re.escape, resource.split("*"))), topic) for resource in resources
        ):
            return
    raise _Refused("UnauthorizedError", f"{component.name} is not authorized to perform {_MODEL}{operation} on {topic}")


def _configuration(component: IpcComponent, path: Sequence[str]) -> dict[str, Any]:
    """Return the value at the path; one that is no object under its own key, as the nucleus does."""
    value: Any = component.configuration
    for key in path:
        if not isinstance(value, dict) or key not in value:
            raise _Refused("ResourceNotFoundError", f"there is no configuration {'/'.join(path)!r}")
        value = value[key]
    return value if isinstance(value, dict) else {path[-1]: value}
