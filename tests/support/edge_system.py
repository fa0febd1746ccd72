"""The edge as a whole: devices, the broker that they see, the rules, and the cloud that answers them.

The emulated AWS is IoT Core, too. Devices see mosquitto in front of it, which can be killed on its own; its bridge is
an ordinary client of the emulator's listener. Without mosquitto, devices connect to the emulator itself.
"""

import base64
import io
import itertools
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import uuid4

from PIL import Image, ImageOps

from facerec.edge.link import ReceivedMessage
from facerec.edge.mqtt_link import MqttLink
from facerec.edge_messages import FrameMessage, frames_topic
from facerec.processes.addresses import LOOPBACK
from facerec.settings.edge import EdgeSettings
from tests.support.certificates import Certificate
from tests.support.edge_device import EdgeDevice, provisioned_settings
from tests.support.faceless import faceless
from tests.support.faults.functions_system import Answer, FunctionsSystem
from tests.support.faults.outcomes import held
from tests.support.mosquitto import CLOUD, Bridge, Mosquitto
from tests.support.pictures import encoded

SIDE = 512
_QUALITY = 85
_FRAME_BYTES = 95_000
"""In base64 less than IoT Core's 128 KB."""
_SECONDS = 60.0
_BROKER = "broker"
_ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}

Tier = Literal["ec2", "serverless"]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a frame shows, and the answer that is right for it."""

    content: bytes
    answer: str


def scaled(photo: bytes | Path, side: int = SIDE) -> bytes:
    """The photo as a frame: a square JPEG with grey borders, of the best quality with which it fits a message."""
    with Image.open(photo if isinstance(photo, Path) else io.BytesIO(photo)) as picture:
        square = ImageOps.pad(ImageOps.exif_transpose(picture).convert("RGB"), (side, side), color=(128, 128, 128))
    frames = (encoded(square, "JPEG", quality=quality) for quality in range(_QUALITY, 0, -5))
    return next(frame for frame in frames if len(frame) <= _FRAME_BYTES)


def empty_scenes(count: int) -> list[Scene]:
    """Frames without a face."""
    pictures = (scaled(content) for content in itertools.cycle(faceless(sizes=[(640, 480)]).values()))
    return [Scene(content, "No-Face") for content in itertools.islice(pictures, count)]


def named(scenes: Sequence[Scene], count: int, prefix: str = "frame") -> dict[str, Scene]:
    """So many frames, each with a name of its own, of these scenes in turn."""
    return {
        f"{prefix}-{number:04}.jpg": scene
        for number, scene in enumerate(itertools.islice(itertools.cycle(scenes), count))
    }


class EdgeSystem(FunctionsSystem):
    """Emulated AWS, rules, broker and devices; a context manager. `start_cloud` lets the tier answer.

    `device` makes one of the `things` a device: mosquitto has issued its certificate, or without mosquitto
    `facerec edge provision`. `environ` is of the cloud.
    """

    def __init__(
        self,
        state: Path,
        *,
        tier: Tier = "ec2",
        things: Sequence[str] = ("gate",),
        mosquitto: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        edge = {"FACEREC_APP_TIER": tier, "FACEREC_EDGE__ENABLED": "true"}
        super().__init__(state, environ=edge | dict(environ or {}), mqtt=True)
        self._tier = tier
        self._things = things
        self._with_mosquitto = mosquitto
        self._connected = ExitStack()
        self._mosquitto: Mosquitto | None = None
        self._cloud: EdgeSettings
        self.devices: list[EdgeDevice] = []

    def __enter__(self) -> Self:
        """Start and provision all but the devices and the tier."""
        super().__enter__()
        try:
            self.run("edge", "rules", "deploy")
            self._cloud = self._identity(_BROKER)
            if self._with_mosquitto:
                self._mosquitto = self._connected.enter_context(self._front())
                self._cloud = self._mosquitto.settings(CLOUD)
            else:
                for thing in self._things:
                    self.run("edge", "provision", thing, "--to", str(self._folder(thing)))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        try:
            self._connected.close()
        finally:
            super().__exit__(kind, error, trace)

    @property
    def broker(self) -> Mosquitto:
        """The broker that the devices see."""
        if self._mosquitto is None:
            raise RuntimeError("devices connect to the emulator itself")
        return self._mosquitto

    @property
    def port(self) -> int:
        """The port to which devices connect."""
        return self._cloud.port

    def start_cloud(self) -> None:
        """Start the tier that recognises."""
        if self._tier == "ec2":
            self.start_workers()
        else:
            self.start_functions()

    def device(self, thing: str, **edge: Any) -> EdgeDevice:
        """The device of a thing, which is not started; `edge` are settings of its component."""
        if self._mosquitto is None:
            settings = provisioned_settings(self._folder(thing), **edge)
        else:
            settings = self.broker.settings(thing, **edge)
        device = self._connected.enter_context(EdgeDevice(thing, self.state / "devices" / thing, settings))
        self.devices.append(device)
        return device

    def cloud_client(self, name: str = CLOUD) -> "CloudClient":
        """A client of the broker that may use every topic; it ends with the system."""
        client = CloudClient(self._cloud, name)
        self._connected.callback(client.close)
        return client

    def scenes(self, photos: Iterable[bytes]) -> list[Scene]:
        """The photos as frames, with the answers that this system gives to the same frames on the ordinary path."""
        sent = [self.request(f"photo-{number}.jpg", photo, "") for number, photo in enumerate(photos)]
        self.enqueue(sent)
        answers = self.answers([one.id for one in sent], _SECONDS)
        if missing := [one.request.filename for one in sent if one.id not in answers]:
            raise RuntimeError(f"no answer to {missing} on the ordinary path")
        return [Scene(one.content, answers[one.id][0].result["result"]) for one in sent]

    def answers_by_name(self, names: Iterable[str], seconds: float) -> dict[str, list[Answer]]:
        """Take results off the response queue as `answers` does, by file name."""
        return self.answers(names, seconds, key="filename")

    def counts(self) -> dict[str, int]:
        """How many messages the request queue and the faces queue have: waiting, in flight, delayed."""
        sqs = self.aws("sqs")
        queues = (self.settings.request_queue, self.settings.faces_queue)
        return {queue: held(sqs, sqs.get_queue_url(QueueName=queue)["QueueUrl"]) for queue in queues}

    def _folder(self, thing: str) -> Path:
        return self.state / "things" / thing

    def _front(self) -> Mosquitto:
        identity = self._cloud
        if identity.ca_file is None or identity.certificate_file is None or identity.key_file is None:
            raise RuntimeError("the identity has no files")
        folder = self.state / _BROKER
        folder.mkdir(parents=True)
        certificate = Certificate(identity.certificate_file, identity.key_file)
        bridge = Bridge(identity.port, identity.ca_file, certificate, client_id=_BROKER)
        return Mosquitto(folder, bridge=bridge, durable=True)

    def _identity(self, name: str) -> EdgeSettings:
        """The settings of a client of the emulator that may do everything."""
        iot = self.aws("iot")
        made = iot.create_keys_and_certificate(setAsActive=True)
        iot.create_policy(policyName=name, policyDocument=json.dumps(_ALL))
        iot.attach_policy(policyName=name, target=made["certificateArn"])
        certificate, key = self.state / f"{name}.pem", self.state / f"{name}.key"
        certificate.write_text(made["certificatePem"])
        key.touch(mode=0o600)
        key.write_text(made["keyPair"]["PrivateKey"])
        return EdgeSettings(
            endpoint=LOOPBACK,
            port=self.mqtt_port or 0,
            ca_file=self.state / "mqtt-ca.pem",
            certificate_file=certificate,
            key_file=key,
        )


class CloudClient:
    """Sends frames to devices, and notes what devices publish as it reaches the broker."""

    def __init__(self, identity: EdgeSettings, name: str) -> None:
        self._link = MqttLink(identity, name, f"{name}-{uuid4().hex[:8]}")
        self._changed = threading.Condition()
        self._messages: dict[str, list[tuple[float, bytes]]] = {}
        self._started = False

    def watch(self, *topics: str) -> None:
        """Note the messages of these topics; before the first is sent."""
        for topic in topics:
            self._messages[topic] = []
            self._link.subscribe(topic, self._keep)
        self.connect()

    def connect(self) -> None:
        """Connect, and wait until it is done."""
        if not self._started:
            self._started = True
            self._link.start()
        if not self._link.wait_connected(_SECONDS):
            raise RuntimeError(f"the client of the cloud cannot connect: {self._link.state.problem}")

    def send(self, thing: str, payload: bytes) -> None:
        """Publish to a device with QoS 1, and wait until the broker has it."""
        self.connect()
        self._link.publish(frames_topic(thing), payload).result(_SECONDS)

    def messages(self, topic: str) -> list[dict[str, Any]]:
        """What was published on a watched topic, in order."""
        with self._changed:
            return [json.loads(payload) for _, payload in self._messages[topic]]

    def times(self, topic: str) -> list[float]:
        """When they came, by `time.monotonic`."""
        with self._changed:
            return [at for at, _ in self._messages[topic]]

    def names(self, topic: str) -> list[str]:
        """The file names in these messages, each once, in the order of their first message."""
        return list(dict.fromkeys(message["filename"] for message in self.messages(topic)))

    def wait_for(self, topic: str, count: int, seconds: float = _SECONDS) -> None:
        """Wait until so many messages came; raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages[topic]) >= count, seconds):
                raise TimeoutError(f"{len(self._messages[topic])} of {count} messages came on {topic}")

    def close(self) -> None:
        """Disconnect."""
        if self._started:
            self._link.close()

    def _keep(self, message: ReceivedMessage) -> None:
        with self._changed:
            self._messages[message.topic].append((time.monotonic(), message.payload))
            self._changed.notify_all()
        message.acknowledge()


def frame_message(name: str, content: bytes) -> bytes:
    """A frame as another program sends it."""
    message = FrameMessage(request_id=uuid4(), filename=name, encoded=base64.b64encode(content).decode())
    return message.to_json().encode()
