"""The emulated AWS: the command that runs it, and whether it is ready. In a local system it listens on loopback."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from facerec.errors import ConfigurationError
from facerec.local.edge.mqtt_listener import ENABLED, PORT
from facerec.local.environment import without_aws
from facerec.processes.addresses import LOOPBACK, accepts, answers_ok
from facerec.processes.children import Command

DEFAULT_PORT, MQTT_PORT = 4566, 8883
START_SECONDS = 30.0
"""Longest wait for readiness; usually it takes half a second (moto: two seconds)."""


class EmulatorKind(StrEnum):
    """The supported emulators."""

    MINISTACK = "ministack"
    MOTO = "moto"


_READY = {EmulatorKind.MINISTACK: "/_ministack/ready", EmulatorKind.MOTO: "/moto-api/"}
_CA_PATH, _CA_SECONDS = "/_ministack/iot/ca.pem", 10.0
_SERVICES = "s3,sqs,dynamodb,ec2,monitoring,sts"
_EDGE_SERVICES = "iot,iot-data,iam,cloudformation"
_IMAGES = {EmulatorKind.MINISTACK: "ami-0c2023a1b2c3d4e5f", EmulatorKind.MOTO: "ami-04681a1dbd79675a5"}


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator that `command` runs at `url`."""

    kind: EmulatorKind
    url: str
    command: Command
    mqtt_port: int | None = None
    """Where devices connect with a certificate, if that was asked for."""

    @property
    def image_id(self) -> str:
        """An AMI that the emulator knows; `Ec2Host` runs the instances."""
        return _IMAGES[self.kind]

    @property
    def forgets(self) -> bool:
        """Whether its state is gone when it stops."""
        return self.kind is EmulatorKind.MOTO

    def ready(self) -> bool:
        """Whether it answers."""
        listening = self.mqtt_port is None or accepts(self.mqtt_port)
        return listening and answers_ok(self.url + _READY[self.kind])

    def mqtt_authority(self) -> str:
        """The certificate of the authority that signs the MQTT listener's, PEM."""
        with build_opener(ProxyHandler({})).open(self.url + _CA_PATH, timeout=_CA_SECONDS) as answer:
            return str(answer.read(), "ascii")


def emulator(
    kind: EmulatorKind, *, port: int, state: Path, environ: Mapping[str, str], mqtt_port: int | None = None
) -> Emulator:
    """Describe an emulator that keeps its state under `state`; with a `mqtt_port` it is an AWS IoT Core, too.

    Raises `ConfigurationError` if it is not installed, or has no MQTT.
    """
    if kind is EmulatorKind.MINISTACK:
        command = ministack_command(port=port, state=state, environ=environ, mqtt_port=mqtt_port)
    elif mqtt_port is not None:
        raise ConfigurationError(f"the emulator {kind} has no MQTT for devices: take {EmulatorKind.MINISTACK}")
    else:
        _check_installed(kind)
        argv = (sys.executable, "-m", "facerec.local.moto_server", str(port))
        command = Command("emulator", argv, without_aws(environ))
    return Emulator(kind, f"http://{LOOPBACK}:{port}", command, mqtt_port)


def ministack_command(
    *,
    port: int,
    state: Path,
    environ: Mapping[str, str],
    host: str = LOOPBACK,
    names: Sequence[str] = (),
    mqtt_port: int | None = None,
) -> Command:
    """The command of the default emulator, which listens on `host` and is addressed by loopback's names and `names`.

    Devices reach it on a `mqtt_port` of that host, if there is one.

    Raises `ConfigurationError` if it is not installed.
    """
    _check_installed(EmulatorKind.MINISTACK)
    argv = (sys.executable, "-m", "facerec.local.ministack_server", *names)
    own = _ministack_environ(host, port, state.resolve())
    if mqtt_port is not None:
        own |= {ENABLED: "1", PORT: str(mqtt_port), "SERVICES": f"{_SERVICES},{_EDGE_SERVICES}"}
    return Command("emulator", argv, without_aws(environ) | own)


def _check_installed(kind: EmulatorKind) -> None:
    if importlib.util.find_spec(kind) is None:
        raise ConfigurationError(f"the emulator {kind} is not installed; install facerec with its extra `local`")


def _ministack_environ(host: str, port: int, state: Path) -> dict[str, str]:
    scratch = state / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    return {
        "BIND_HOST": host,  # its default is every interface
        "GATEWAY_PORT": str(port),
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "SERVICES": _SERVICES,
        # Its MQTT and SFTP listeners have ports and interfaces of their own.
        ENABLED: "0",
        "SFTP_ENABLED": "0",
        # It writes a file with its process id there.
        "TMPDIR": str(scratch),
        "LOG_LEVEL": "WARNING",
    }
