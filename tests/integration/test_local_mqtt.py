"""The MQTT listener of the emulated AWS holds devices to their certificates and policies, and runs IoT's rules."""

import json
import os
import queue
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped] # it ships no types

from facerec import errors
from facerec.aws.clients import Clients
from facerec.edge.link import ReceivedMessage
from facerec.edge.mqtt_link import MqttLink
from facerec.errors import ConfigurationError
from facerec.local.emulator import Emulator, EmulatorKind, emulator
from facerec.local.environment import emulated_variables
from facerec.processes.addresses import free_port, poll_until
from facerec.processes.supervisor import Child
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.support.devices import Refused, connected
from tests.support.emulated import running_emulator
from tests.support.processes import listening_addresses

QUEUE = "faces"
SQL = "SELECT *, topic(2) AS thing FROM 'facerec/+/faces' WHERE isUndefined(result)"
ARN = "arn:aws:iot:us-east-1:000000000000"


@dataclass
class Cloud:
    """A running emulator, and what devices need for it."""

    found: Emulator
    child: Child
    clients: Clients
    state: Path
    folder: Path

    def add_thing(self, name: str) -> str:
        """A certificate with a policy for one thing's topic; returns its id."""
        iot = self.clients.iot
        made = iot.create_keys_and_certificate(setAsActive=True)
        (self.folder / f"{name}.pem").write_text(made["certificatePem"])
        (self.folder / f"{name}.key").write_text(made["keyPair"]["PrivateKey"])
        statements = [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{ARN}:client/{name}-*"},
            {"Effect": "Allow", "Action": "iot:Publish", "Resource": f"{ARN}:topic/facerec/{name}/faces"},
            {"Effect": "Allow", "Action": "iot:Publish", "Resource": f"{ARN}:topic/facerec/{name}/status"},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{ARN}:topicfilter/clients/{name}"},
            {"Effect": "Allow", "Action": "iot:Receive", "Resource": f"{ARN}:topic/clients/{name}"},
        ]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        iot.create_policy(policyName=name, policyDocument=document)
        iot.attach_policy(policyName=name, target=made["certificateArn"])
        return made["certificateId"]

    def add_rule(self) -> None:
        """The rule that puts faces onto a queue."""
        url = self.clients.sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
        action: Any = {"sqs": {"queueUrl": url, "roleArn": "arn:aws:iam::000000000000:role/rules", "useBase64": False}}
        payload: Any = {"sql": SQL, "awsIotSqlVersion": "2016-03-23", "actions": [action]}
        self.clients.iot.create_topic_rule(ruleName="faces", topicRulePayload=payload)

    def messages(self) -> list[Any]:
        """What the queue holds."""
        url = self.clients.sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        found = self.clients.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        return [json.loads(one["Body"]) for one in found.get("Messages", [])]

    @contextmanager
    def link(
        self, name: str, client_id: str, *topics: str
    ) -> Iterator[tuple[MqttLink, "queue.Queue[ReceivedMessage]"]]:
        """The link of the component on this thing, which has started, and what it receives of the topics."""
        assert self.found.mqtt_port is not None
        settings = EdgeSettings(
            endpoint="localhost",
            port=self.found.mqtt_port,
            ca_file=self.folder / "ca.pem",
            certificate_file=self.folder / f"{name}.pem",
            key_file=self.folder / f"{name}.key",
        )
        link, messages = MqttLink(settings, name, client_id), queue.Queue[ReceivedMessage]()
        for topic in topics:
            link.subscribe(topic, messages.put)
        link.start()
        try:
            yield link, messages
        finally:
            link.close()

    def device(self, name: str, *, client_id: str = "", certificate: bool = True) -> Any:
        """A device with the thing's certificate, or with none."""
        assert self.found.mqtt_port is not None
        return connected(
            self.found.mqtt_port,
            ca=self.folder / "ca.pem",
            client_id=client_id or f"{name}-1",
            certificate=self.folder / f"{name}.pem" if certificate else None,
            key=self.folder / f"{name}.key" if certificate else None,
        )


@contextmanager
def running(state: Path) -> Iterator[Cloud]:
    """An emulator with MQTT on the state directory."""
    found = emulator(
        EmulatorKind.MINISTACK, port=free_port(), state=state / "emulator", environ=os.environ, mqtt_port=free_port()
    )
    with ExitStack() as stack:
        child = stack.enter_context(running_emulator(found, state))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in emulated_variables(found.url, os.environ).items():
            patch.setenv(name, value)
        (state / "ca.pem").write_text(found.mqtt_authority())
        yield Cloud(found, child, Clients(Settings.load()), state / "emulator", state)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One emulator with two things and a rule."""
    with running(tmp_path_factory.mktemp("mqtt")) as cloud:
        cloud.add_thing("gate")
        cloud.add_thing("yard")
        cloud.add_rule()
        yield cloud


def test_listener_is_on_loopback_alone(cloud: Cloud) -> None:
    """And only where it was asked for: `test_local_emulator` has the emulator without it."""
    assert ("127.0.0.1", cloud.found.mqtt_port) in listening_addresses(cloud.child.pid)
    assert {address for address, _ in listening_addresses(cloud.child.pid)} == {"127.0.0.1"}


def test_rule_puts_a_message_onto_a_queue_with_the_thing_of_its_topic(cloud: Cloud) -> None:
    """A device cannot name another one; a result is not for this rule."""
    with cloud.device("gate") as device:
        assert device.publish("facerec/gate/faces", json.dumps({"filename": "a", "thing": "yard"})) == "SUCCESS"
        assert device.publish("facerec/gate/faces", json.dumps({"filename": "b", "result": "No-Face"})) == "SUCCESS"
    assert cloud.messages() == [{"filename": "a", "thing": "gate"}]


def test_device_without_a_certificate_is_refused(cloud: Cloud) -> None:
    """Its handshake fails."""
    with pytest.raises(Refused), cloud.device("gate", certificate=False):
        pass


def test_certificate_allows_its_own_client_ids_and_topics_alone(cloud: Cloud) -> None:
    """The policy of one thing says nothing about another's topic."""
    with pytest.raises(Refused), cloud.device("gate", client_id="yard-1"):
        pass
    with cloud.device("gate") as device:
        assert device.publish("facerec/yard/faces", "{}") == "NOT_AUTHORIZED"
        assert device.subscribe("facerec/#") == "NOT_AUTHORIZED"
    assert cloud.messages() == []


def test_inactive_certificate_is_refused(cloud: Cloud) -> None:
    """It was fine before."""
    certificate = cloud.add_thing("gone")
    with cloud.device("gone"):
        pass
    cloud.clients.iot.update_certificate(certificateId=certificate, newStatus="INACTIVE")
    with pytest.raises(Refused), cloud.device("gone"):
        pass


def test_message_of_more_than_128_kb_is_refused(cloud: Cloud) -> None:
    """As AWS IoT Core does; one that just fits arrives whole."""
    with cloud.device("gate") as device:
        whole = json.dumps({"encoded": "x" * (128 * 1024 - 100)})
        assert device.publish("facerec/gate/faces", whole) == "SUCCESS"
        with pytest.raises(AwsCrtError, match=r"PACKET_SIZE|VALIDATION"):
            device.publish("facerec/gate/faces", "x" * (128 * 1024 + 1))
    [message] = cloud.messages()
    assert len(message["encoded"]) == 128 * 1024 - 100


def test_link_of_a_device_is_answered_as_by_iot_core(cloud: Cloud) -> None:
    """A message is taken, one on another thing's topic is refused, and messages for the device wait in its session."""
    with cloud.link("gate", "gate-9", "clients/gate", "clients/yard") as (link, messages):
        assert link.wait_connected(20)
        assert link.state.problem == "no messages of clients/yard come: the thing's policy does not allow it"
        link.publish("facerec/gate/faces", b'{"filename": "linked"}').result(20)
        with pytest.raises(errors.Refused, match="policy"):
            link.publish("facerec/yard/faces", b"{}").result(20)
        cloud.clients.iot_data.publish(topic="clients/gate", qos=1, payload=b"a frame")
        message = messages.get(timeout=20)
        assert message.payload == b"a frame"
        message.acknowledge()
        link.publish("facerec/gate/status", b"{}").result(20)  # so the acknowledgement has arrived
    cloud.clients.iot_data.publish(topic="clients/gate", qos=1, payload=b"another frame")
    with cloud.link("gate", "gate-9", "clients/gate") as (link, messages):
        assert messages.get(timeout=20).payload == b"another frame"
    assert cloud.messages() == [{"filename": "linked", "thing": "gate"}]


def test_link_says_why_iot_core_does_not_keep_it_connected(cloud: Cloud) -> None:
    """The reasons are those of MQTT 5: the policy allows no such client id, or two clients have one."""
    with (
        cloud.link("gate", "yard-1") as (refused, _),
        cloud.link("yard", "yard-2") as (first, _),
        cloud.link("yard", "yard-2") as (second, _),
    ):
        for link, problem in (
            (refused, "refuses the connection (NOT_AUTHORIZED); the thing's policy must allow to connect as 'yard-1'"),
            (first, "another client connects as 'yard-2'; give each process a state folder of its own"),
            (second, "another client connects as 'yard-2'; give each process a state folder of its own"),
        ):
            assert poll_until(lambda link=link, text=problem: text in (link.state.problem or ""), 20)  # type: ignore[misc]


def test_things_rules_and_messages_survive_a_crash(tmp_path: Path) -> None:
    """A device still has its certificate after the emulator was killed, and the queue has what the device sent."""
    with running(tmp_path) as cloud:
        cloud.add_thing("gate")
        cloud.add_rule()
        with cloud.device("gate") as device:
            device.publish("facerec/gate/faces", json.dumps({"filename": "first"}))
        saved = cloud.state / "sqs.json"
        assert poll_until(lambda: saved.exists() and "first" in saved.read_text(), 10)
        os.kill(cloud.child.pid, signal.SIGKILL)
        assert poll_until(lambda: not cloud.child.running, 5)
    with running(tmp_path) as cloud:
        assert cloud.messages() == [{"filename": "first", "thing": "gate"}]
        with cloud.device("gate") as device:
            assert device.publish("facerec/gate/faces", json.dumps({"filename": "second"})) == "SUCCESS"
        assert cloud.messages() == [{"filename": "second", "thing": "gate"}]


def test_emulator_without_mqtt_says_so(tmp_path: Path) -> None:
    """The emulator moto answers calls alone."""
    with pytest.raises(ConfigurationError, match="moto has no MQTT"):
        emulator(EmulatorKind.MOTO, port=1, state=tmp_path, environ={}, mqtt_port=2)
