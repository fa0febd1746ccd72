"""The link through the Greengrass nucleus, and our server in its place: AWS's own IPC client is on the one side."""

import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from awsiot import greengrasscoreipc as ipc  # type: ignore[import-untyped] # it ships no types
from awsiot.greengrasscoreipc import model  # type: ignore[import-untyped] # as above
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2  # type: ignore[import-untyped] # as above

from facerec.edge.ipc_link import IpcLink
from facerec.edge_messages import faces_topic, frames_topic, results_topic
from facerec.errors import ConfigurationError, Refused, Transient
from facerec.processes.addresses import poll_until
from facerec.settings.edge import EdgeSettings
from tests.support.ipc import Nucleus, running_nucleus
from tests.support.logs import capture_logs

THING = "camera-1"
FACES = faces_topic(THING)
SECONDS = 20
LITE_FRAME_BYTES, LITE_MESSAGE_BYTES = 10_000, 5_000
"""The limits of the Greengrass nucleus lite."""


@pytest.fixture
def nucleus(tmp_path: Path) -> Iterator[Nucleus]:
    """A nucleus, and the environment of its component."""
    configuration = {"source": {"folder": "/frames", "rate": 2}, "results": True}
    with running_nucleus(tmp_path, THING, configuration=configuration) as nucleus:
        yield nucleus


@contextmanager
def component() -> Iterator[GreengrassCoreIPCClientV2]:
    """AWS's client, as any component has it."""
    client = GreengrassCoreIPCClientV2(ipc.connect(), executor=None)
    try:
        yield client
    finally:
        client.close().result(SECONDS)


@contextmanager
def started(settings: EdgeSettings | None = None) -> Iterator[IpcLink]:
    """A link that is connected."""
    link = IpcLink(settings or EdgeSettings(), THING)
    link.start()
    try:
        assert link.wait_connected(SECONDS)
        yield link
    finally:
        link.close()


def has_problem(link: IpcLink, text: str) -> bool:
    """Whether the link's problem soon has this text."""
    return poll_until(lambda: text in (link.state.problem or ""), SECONDS)


def has_reconnected(link: IpcLink, times: int) -> bool:
    """Whether the link has reconnected so often, and is connected."""
    return link.state.connected and link.state.reconnections == times


def test_refused_publish_names_the_policy_that_is_missing(nucleus: Nucleus) -> None:
    """As the recipe would have to say it."""
    with started() as link, pytest.raises(Refused) as refused:
        link.publish("facerec/other/faces", b"forged").result(SECONDS)
    assert '"operations": ["aws.greengrass#PublishToIoTCore"], "resources": ["facerec/other/faces"]' in str(
        refused.value
    )


def test_refused_subscription_is_said_and_messages_are_still_sent(nucleus: Nucleus) -> None:
    """It is logged once, over several connections."""
    topic = results_topic("camera-2")
    link = IpcLink(EdgeSettings(), THING)
    link.subscribe(topic, lambda _: None)
    with capture_logs() as logs:
        link.start()
        assert link.wait_connected(SECONDS)
        nucleus.server.stop()
        assert poll_until(lambda: not link.state.connected, SECONDS)
        nucleus.server.start()
        assert link.wait_connected(SECONDS)
    try:
        assert has_problem(link, f"no messages of {topic} come")
        link.publish(FACES, b"a face").result(SECONDS)
    finally:
        link.close()
    assert [log["event"] for log in logs].count("subscription_refused") == 1


def test_publish_fails_transiently_while_the_nucleus_cannot_take_it(nucleus: Nucleus) -> None:
    """Its own spool may be full, for example."""
    with started() as link:
        nucleus.cloud.away = True
        assert isinstance(link.publish(FACES, b"a face").exception(SECONDS), Transient)
        nucleus.cloud.away = False
        link.publish(FACES, b"a face").result(SECONDS)


def test_frame_of_another_component_comes_as_json_or_as_bytes(nucleus: Nucleus) -> None:
    """Over the device's own publish and subscribe."""
    messages: queue.Queue[bytes] = queue.Queue()
    with started() as link, component() as other:
        link.subscribe(frames_topic(THING), lambda message: messages.put(message.payload))
        for message in (
            model.PublishMessage(json_message=model.JsonMessage(message={"filename": "a.jpg"})),
            model.PublishMessage(binary_message=model.BinaryMessage(message=b"bytes")),
        ):
            other.publish_to_topic(topic=frames_topic(THING), publish_message=message)
        assert [messages.get(timeout=SECONDS) for _ in range(2)] == [b'{"filename": "a.jpg"}', b"bytes"]


def test_message_over_the_frame_limit_of_nucleus_lite_is_explained(tmp_path: Path) -> None:
    """It ends the connection until the message is given up; with the setting for it, the message is refused at once."""
    with running_nucleus(tmp_path, THING, max_frame_bytes=LITE_FRAME_BYTES):
        with started() as link:
            for times in (1, 2):
                assert isinstance(link.publish(FACES, bytes(LITE_FRAME_BYTES)).exception(SECONDS), Transient)
                assert poll_until(partial(has_reconnected, link, times), SECONDS)
            assert has_problem(link, "FACEREC_EDGE__MAX_MESSAGE_BYTES must be set to 5000")
            with pytest.raises(Refused, match="MAX_MESSAGE_BYTES"):
                link.publish(FACES, bytes(LITE_FRAME_BYTES)).result(SECONDS)
            assert poll_until(partial(has_reconnected, link, 3), SECONDS)
            link.publish(FACES, b"after").result(SECONDS)
        with started(EdgeSettings(max_message_bytes=LITE_MESSAGE_BYTES)) as link:
            link.publish(FACES, bytes(LITE_MESSAGE_BYTES)).result(SECONDS)
            with pytest.raises(Refused):
                link.publish(FACES, bytes(LITE_MESSAGE_BYTES + 1)).result(SECONDS)
            assert link.state.reconnections == 0


def test_token_that_the_nucleus_does_not_know_is_said_once(nucleus: Nucleus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link keeps trying."""
    monkeypatch.setenv("SVCUID", "another")
    link = IpcLink(EdgeSettings(), THING)
    with capture_logs() as logs:
        link.start()
        assert has_problem(link, "access denied")
        monkeypatch.setenv("SVCUID", "a-token")
        assert link.wait_connected(SECONDS)
    link.close()
    assert [log["event"] for log in logs] == ["iot_core_unreachable", "iot_core_reachable_again"]


def test_process_without_a_nucleus_is_a_configuration_error() -> None:
    """The link of a device without Greengrass is another one."""
    with pytest.raises(ConfigurationError, match=r"SVCUID must be set, as Greengrass does .* FACEREC_EDGE__LINK=mqtt"):
        IpcLink(EdgeSettings(), THING).start()


def test_server_gives_the_configuration_and_tells_of_changes(nucleus: Nucleus) -> None:
    """As a component asks for it."""
    changes: queue.Queue[list[str]] = queue.Queue()
    with component() as client:
        assert client.get_configuration(key_path=["source"]).value == {"folder": "/frames", "rate": 2}
        assert client.get_configuration(key_path=["source", "rate"]).value == {"rate": 2}
        with pytest.raises(model.ResourceNotFoundError):
            client.get_configuration(key_path=["nothing"])
        client.subscribe_to_configuration_update(
            key_path=[],
            on_stream_event=lambda event: changes.put(event.configuration_update_event.key_path),
            on_stream_error=lambda _: True,
            on_stream_closed=lambda: None,
        )
        nucleus.server.configure(nucleus.component, {"source": {"folder": "/frames", "rate": 5}, "results": True})
        assert changes.get(timeout=SECONDS) == ["source"]
        assert client.get_configuration(key_path=["source", "rate"]).value == {"rate": 5}


def test_server_notes_the_state_that_a_component_reports(nucleus: Nucleus) -> None:
    """UpdateState."""
    with component() as client:
        client.update_state(state="RUNNING")
    assert nucleus.component.state == "RUNNING"


def test_server_ends_a_connection_that_sends_no_frames(nucleus: Nucleus, tmp_path: Path) -> None:
    """Others are not affected."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "ipc.socket"))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stranger.settimeout(SECONDS)
        assert stranger.recv(1) == b""
    with started() as link:
        link.publish(FACES, b"a face").result(SECONDS)
