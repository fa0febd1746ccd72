"""The device's own link over MQTT: what goes wrong with brokers, certificates and client ids. AWS's client is real."""

import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from awscrt import exceptions, mqtt5  # type: ignore[import-untyped] # it ships no types

from facerec.edge.link import Link, ReceivedMessage
from facerec.edge.mqtt_link import MqttLink
from facerec.edge.no_delay import connections_to
from facerec.edge_messages import faces_topic, frames_topic, status_topic
from facerec.errors import ConfigurationError, Refused, Transient
from facerec.processes.addresses import poll_until
from facerec.settings.edge import EdgeSettings
from tests.support.certificates import Certificate, CertificateAuthority
from tests.support.logs import capture_logs
from tests.support.mosquitto import CLOUD, Mosquitto, find_mosquitto
from tests.support.mqtt_endpoint import mqtt_endpoint
from tests.support.processes import CHECKOUT

pytestmark = pytest.mark.skipif(
    find_mosquitto() is None, reason="mosquitto is not installed (apt-get install mosquitto)"
)

THING = "camera-1"
FACES = faces_topic(THING)
SECONDS = 20
TLS_SECONDS = 60
"""AWS's client waits 10 to 30 s before it tells of a failed handshake, so that timing tells an attacker nothing."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """One broker; each test restarts it as it likes and leaves it running."""
    with Mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="module", autouse=True)
def untrusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[MqttLink]]:
    """Links to endpoints with another name, and of another authority; they connect while the other tests run."""
    folder = tmp_path_factory.mktemp("untrusted")
    with ExitStack() as stack:
        misnamed = stack.enter_context(Mosquitto(folder / "misnamed", hosts=("elsewhere.example",)))
        strange = stack.enter_context(Mosquitto(folder / "strange"))
        other = CertificateAuthority(folder / "other")
        yield [
            stack.enter_context(started(settings, connected=False))
            for settings in (misnamed.settings(THING), strange.settings(THING, ca_file=other.ca_file))
        ]


@contextmanager
def started(settings: EdgeSettings, *, client_id: str = f"{THING}-1", connected: bool = True) -> Iterator[MqttLink]:
    """A link that has started."""
    link = MqttLink(settings, settings.thing or THING, client_id)
    link.start()
    try:
        assert not connected or link.wait_connected(SECONDS)
        yield link
    finally:
        link.close()


def received(link: Link, topic: str) -> "queue.Queue[ReceivedMessage]":
    """What the link receives of the topic."""
    messages: queue.Queue[ReceivedMessage] = queue.Queue()
    link.subscribe(topic, messages.put)
    return messages


def has_problem(link: Link, text: str, seconds: float = SECONDS) -> bool:
    """Whether the link's problem soon has this text."""
    return poll_until(lambda: text in (link.state.problem or ""), seconds)


def test_connection_does_not_wait_for_more_to_send(broker: Mosquitto) -> None:
    """Also the next one has TCP_NODELAY."""
    with started(broker.settings(THING)) as link:
        assert no_delays(broker.port) == [True]
        broker.restart()
        assert poll_until(lambda: link.state.reconnections == 1, SECONDS)
        assert no_delays(broker.port) == [True]


def no_delays(port: int) -> list[bool]:
    """Whether TCP_NODELAY is set, for each connection of this process to the port."""
    return [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0 for one in connections_to(port)]


def test_publish_in_flight_when_the_broker_crashes_fails_and_can_be_sent_again(broker: Mosquitto) -> None:
    """The broker has lost the session: no earlier restart has saved one of this client."""
    with started(broker.settings(THING), client_id=f"{THING}-crash") as link:
        broker.suspend()
        in_flight = [link.publish(FACES, b"%d" % number) for number in range(3)]
        broker.kill()
        assert poll_until(lambda: not link.state.connected, SECONDS)
        broker.start()
        assert [type(lost.exception(SECONDS)) for lost in in_flight] == [Transient] * 3
        assert link.wait_connected(SECONDS)
        for number in range(3):
            link.publish(FACES, b"%d" % number).result(SECONDS)


def test_publish_in_flight_at_a_cut_is_sent_once_more_with_the_session(broker: Mosquitto) -> None:
    """Its future waits for that; nothing has to be sent again."""
    with (
        mqtt_endpoint(broker.authority, forbidden="") as endpoint,
        started(broker.settings(THING, port=endpoint.port)) as link,
    ):
        endpoint.answering = False
        sent = link.publish(FACES, b"a face")
        assert poll_until(lambda: len(endpoint.received) == 1, SECONDS)
        endpoint.answering = True
        endpoint.cut()
        sent.result(SECONDS)
        assert endpoint.received == [(FACES, b"a face", False), (FACES, b"a face", True)]


def test_message_at_which_the_endpoint_disconnects_is_refused_at_last(broker: Mosquitto) -> None:
    """AWS IoT Core may answer a forbidden publish so; messages before and after it are not lost."""
    forbidden = faces_topic("camera-2")
    with (
        mqtt_endpoint(broker.authority, forbidden) as endpoint,
        started(broker.settings(THING, port=endpoint.port)) as link,
    ):
        before, poison = link.publish(FACES, b"before"), link.publish(forbidden, b"poison")
        before.result(SECONDS)
        with pytest.raises(Refused, match="ended the connection each time"):
            poison.result(SECONDS)
        assert link.wait_connected(SECONDS)
        link.publish(FACES, b"after").result(SECONDS)
        assert [payload for _, payload, _ in endpoint.received].count(b"poison") == 3


def test_session_keeps_frames_for_a_device_that_is_away(broker: Mosquitto) -> None:
    """They come to its next process, which has the same client id."""
    topic = frames_topic(THING)
    with started(broker.settings(CLOUD), client_id=f"{CLOUD}-1") as cloud:
        first = MqttLink(broker.settings(THING), THING, f"{THING}-1")
        received(first, topic)
        first.start()
        assert first.wait_connected(SECONDS)
        first.close()
        for payload in (b"1", b"2"):
            cloud.publish(topic, payload).result(SECONDS)
        second = MqttLink(broker.settings(THING), THING, f"{THING}-1")
        messages = received(second, topic)
        second.start()
        try:
            assert [messages.get(timeout=SECONDS).payload for _ in range(2)] == [b"1", b"2"]
        finally:
            second.close()


def test_frames_wait_for_a_device_whose_source_has_changed(broker: Mosquitto) -> None:
    """Those of the session's earlier subscription are not acknowledged; later ones are not taken from their sender."""
    topic, client_id = frames_topic(THING), f"{THING}-changed"
    settings = broker.settings(THING)
    with started(broker.settings(CLOUD), client_id=f"{CLOUD}-1") as cloud:
        first = MqttLink(settings, THING, client_id)
        received(first, topic)
        first.start()
        assert first.wait_connected(SECONDS)
        first.close()
        cloud.publish(topic, b"kept").result(SECONDS)
        with capture_logs() as logs, started(settings, client_id=client_id) as link:
            assert poll_until(lambda: "frames_left_at_broker" in [log["event"] for log in logs], SECONDS)
            link.publish(FACES, b"a face").result(SECONDS)
            cloud.publish(topic, b"not kept").result(SECONDS)
        second = MqttLink(settings, THING, client_id)
        messages = received(second, topic)
        second.start()
        try:
            assert messages.get(timeout=SECONDS).payload == b"kept"
            assert second.wait_connected(SECONDS)
            cloud.publish(topic, b"new").result(SECONDS)
            assert messages.get(timeout=SECONDS).payload == b"new"
        finally:
            second.close()


def test_frames_beyond_the_receive_maximum_wait_for_acknowledgements(broker: Mosquitto) -> None:
    """A device with a short queue gets no more than it holds."""
    topic = frames_topic(THING)
    with started(broker.settings(CLOUD), client_id=f"{CLOUD}-1") as cloud:
        link = MqttLink(broker.settings(THING, queue_frames=2), THING, f"{THING}-short")
        messages = received(link, topic)
        link.start()
        try:
            assert link.wait_connected(SECONDS)
            for number in range(4):
                cloud.publish(topic, b"%d" % number).result(SECONDS)
            first, second = messages.get(timeout=SECONDS), messages.get(timeout=SECONDS)
            link.publish(status_topic(THING), b"{}").result(SECONDS)  # the broker has had time for more
            assert messages.empty()
            for message in (first, second):
                message.acknowledge()
            assert {messages.get(timeout=SECONDS).payload for _ in range(2)} == {b"2", b"3"}
        finally:
            link.close()


def test_killed_device_is_reported_lost(broker: Mosquitto) -> None:
    """The broker publishes its will; an orderly end publishes none."""
    script = (
        "import sys; from tests.integration.test_edge_mqtt import hang; from facerec.settings.edge import EdgeSettings;"
        "hang(EdgeSettings.model_validate_json(sys.argv[1]))"
    )
    statuses: queue.Queue[ReceivedMessage] = queue.Queue()
    cloud = MqttLink(broker.settings(CLOUD), CLOUD, f"{CLOUD}-1")
    cloud.subscribe(status_topic(THING), statuses.put)
    cloud.start()
    assert cloud.wait_connected(SECONDS)
    with started(broker.settings(THING), client_id=f"{THING}-2"):
        pass
    command = [sys.executable, "-c", script, broker.settings(THING).model_dump_json()]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as device:
        assert device.stdout is not None
        while b"connected" not in (line := device.stdout.readline()):
            assert line, "the device has ended"
        assert statuses.empty()
        device.send_signal(signal.SIGKILL)
    try:
        assert statuses.get(timeout=SECONDS).payload == b'{"state": "lost", "thing": "camera-1"}'
    finally:
        cloud.close()


def hang(settings: EdgeSettings) -> None:
    """Be a device that connects and does nothing, in a process of its own."""
    link = MqttLink(settings, THING, f"{THING}-hanging", will_delay_seconds=0)
    link.start()
    assert link.wait_connected(SECONDS)
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    signal.pause()


def test_two_clients_with_one_id_are_said_once(broker: Mosquitto) -> None:
    """They end each other's connections for ever; mosquitto gives no reason."""
    with capture_logs() as logs, ExitStack() as stack:
        first, second = (stack.enter_context(started(broker.settings(THING), connected=False)) for _ in range(2))
        assert has_problem(first, f"another client connects as '{THING}-1'")
        assert has_problem(second, f"another client connects as '{THING}-1'")
        again = first.state.reconnections + 1
        assert poll_until(lambda: first.state.reconnections >= again, SECONDS)
    assert [log["event"] for log in logs].count("iot_core_connection_flapping") == 2
    assert {log["log_level"] for log in logs if log["event"] == "iot_core_connection_flapping"} == {"error"}


def test_reason_of_a_taken_over_session_names_the_client_id(broker: Mosquitto) -> None:
    """AWS IoT Core gives the reason 0x8E; once may be the same device after a bad network."""
    link = MqttLink(broker.settings(THING), THING, f"{THING}-7")
    packet = mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER)
    event = mqtt5.LifecycleDisconnectData(packet, exceptions.AwsCrtError(0, "AWS_ERROR_MQTT5_DISCONNECT_RECEIVED", ""))
    link._on_disconnected(event)
    assert "another client" not in (link.state.problem or "")
    link._on_disconnected(event)
    assert (link.state.problem or "").startswith(f"another client connects as '{THING}-7'; give each process")


def test_revoked_certificate_is_said_once_and_tried_again(broker: Mosquitto) -> None:
    """The device never stops: its operator may activate the certificate again."""
    with capture_logs() as logs, started(broker.settings("camera-9")) as link:
        attempts = broker.log.count("certificate verify failed")
        broker.revoke("camera-9")
        assert has_problem(link, "does not take the certificate")
        assert poll_until(lambda: broker.log.count("certificate verify failed") >= attempts + 2, SECONDS)
        assert not link.state.connected
    assert [log.get("reason", "").count("does not take the certificate") for log in logs].count(1) == 1


def test_unreachable_endpoint_and_unknown_name_are_said(broker: Mosquitto) -> None:
    """Each in its own words."""
    with (
        started(broker.settings(THING, port=1), connected=False) as refused,
        started(broker.settings(THING, endpoint="nowhere.invalid"), connected=False) as unknown,
    ):
        assert has_problem(refused, "localhost:1 cannot be reached")
        assert has_problem(unknown, "'nowhere.invalid' cannot be resolved; check FACEREC_EDGE__ENDPOINT")


def _other_key(folder: Path, other: Certificate) -> dict[str, Any]:
    return {"key_file": other.key_file}


def _no_file(folder: Path, other: Certificate) -> dict[str, Any]:
    return {"certificate_file": folder / "none.pem"}


def _no_certificate(folder: Path, other: Certificate) -> dict[str, Any]:
    (folder / "text.pem").write_text("no certificate")
    return {"certificate_file": folder / "text.pem"}


def _no_authority(folder: Path, other: Certificate) -> dict[str, Any]:
    (folder / "text.pem").write_text("no authority")
    return {"ca_file": folder / "text.pem"}


def _no_endpoint(folder: Path, other: Certificate) -> dict[str, Any]:
    return {"endpoint": None}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (_other_key, "are no certificate with its key"),
        (_no_file, r"none.pem cannot be read \(No such file or directory\)"),
        (_no_certificate, "are no certificate with its key"),
        (_no_authority, "or the certificate authorities cannot be used"),
        (_no_endpoint, "set FACEREC_EDGE__ENDPOINT; `facerec edge provision camera-1`"),
    ],
)
def test_files_that_cannot_be_used_are_a_configuration_error(
    broker: Mosquitto,
    tmp_path: Path,
    wrong: Callable[[Path, Certificate], dict[str, Any]],
    sentence: str,
) -> None:
    """At the start, not in the middle of the night."""
    changes = wrong(tmp_path, broker.certificate("camera-2"))
    link = MqttLink(broker.settings(THING, **changes), THING, f"{THING}-1")
    with pytest.raises(ConfigurationError, match=sentence):
        link.start()
    link.close()


def test_endpoint_with_a_wrong_name_or_authority_is_not_trusted(untrusting: list[MqttLink]) -> None:
    """The last test, because it takes long until the client tells."""
    for link in untrusting:
        assert has_problem(link, "has no certificate for this name from an authority in", TLS_SECONDS)
        assert not link.state.connected
        assert link.state.reconnections == 0
