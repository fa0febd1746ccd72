"""A local Greengrass nucleus for one component, to which AWS's own IPC client connects, and a cloud behind it."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from facerec.edge_messages import faces_topic, frames_topic, results_topic, status_topic
from facerec.errors import Transient
from facerec.local.edge.ipc_server import NUCLEUS_FRAME_BYTES, IpcComponent, IpcServer

TOKEN = "a-token"


class CloudBehindNucleus:
    """AWS IoT Core as the nucleus reaches it; it takes nothing while `away` is set."""

    def __init__(self) -> None:
        self.away = False
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        done: Future[None] = Future()
        if self.away:
            done.set_exception(Transient("AWS IoT Core is away"))
        else:
            self.received.put((topic, payload))
            done.set_result(None)
        return done

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        self._handlers[topic] = handler

    def send(self, topic: str, payload: bytes) -> None:
        """Send to the devices that have subscribed."""
        self._handlers[topic](topic, payload)


@dataclass(frozen=True)
class Nucleus:
    """A running server, its component and its cloud."""

    server: IpcServer
    component: IpcComponent
    cloud: CloudBehindNucleus


def access_of(thing: str) -> dict[str, Any]:
    """What the component of this thing may do."""
    faces, status, results, frames = (make(thing) for make in (faces_topic, status_topic, results_topic, frames_topic))
    return {
        "aws.greengrass.ipc.mqttproxy": {
            "publish": {"operations": ["aws.greengrass#PublishToIoTCore"], "resources": [faces, status]},
            "subscribe": {"operations": ["aws.greengrass#SubscribeToIoTCore"], "resources": [results]},
        },
        "aws.greengrass.ipc.pubsub": {
            "frames": {
                "operations": ["aws.greengrass#SubscribeToTopic", "aws.greengrass#PublishToTopic"],
                "resources": [frames],
            }
        },
    }


@contextmanager
def running_nucleus(
    folder: Path, thing: str, *, max_frame_bytes: int = NUCLEUS_FRAME_BYTES, configuration: dict[str, Any] | None = None
) -> Iterator[Nucleus]:
    """Run a nucleus; this process has the environment of its component meanwhile."""
    cloud = CloudBehindNucleus()
    component = IpcComponent("com.facerec.FaceDetection", TOKEN, access_of(thing), configuration or {})
    server = IpcServer(folder / "ipc.socket", cloud, max_frame_bytes=max_frame_bytes)
    server.add(component)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(folder / "ipc.socket"))
        patch.setenv("SVCUID", TOKEN)
        try:
            yield Nucleus(server, component, cloud)
        finally:
            server.stop()
