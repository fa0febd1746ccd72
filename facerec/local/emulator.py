"""The emulated AWS: the command that runs it, and whether it is ready. In a local system it listens on loopback."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from facerec.errors import ConfigurationError
from facerec.local.environment import without_aws
from facerec.processes.addresses import LOOPBACK, answers_ok
from facerec.processes.children import Command

DEFAULT_PORT = 4566
START_SECONDS = 30.0
"""Longest wait for readiness; usually it takes half a second (moto: two seconds)."""


class EmulatorKind(StrEnum):
    """The supported emulators."""

    MINISTACK = "ministack"
    MOTO = "moto"


_READY = {EmulatorKind.MINISTACK: "/_ministack/ready", EmulatorKind.MOTO: "/moto-api/"}
_IMAGES = {EmulatorKind.MINISTACK: "ami-0c2023a1b2c3d4e5f", EmulatorKind.MOTO: "ami-04681a1dbd79675a5"}


@dataclass(frozen=True, slots=True)
class Emulator:
    """An emulator that `command` runs at `url`."""

    kind: EmulatorKind
    url: str
    command: Command

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
        return answers_ok(self.url + _READY[self.kind])


def emulator(kind: EmulatorKind, *, port: int, state: Path, environ: Mapping[str, str]) -> Emulator:
    """Describe an emulator that keeps its state under `state`; raises `ConfigurationError` if it is not installed."""
    if kind is EmulatorKind.MINISTACK:
        command = ministack_command(port=port, state=state, environ=environ)
    else:
        _check_installed(kind)
        argv = (sys.executable, "-m", "facerec.local.moto_server", str(port))
        command = Command("emulator", argv, without_aws(environ))
    return Emulator(kind, f"http://{LOOPBACK}:{port}", command)


def ministack_command(
    *, port: int, state: Path, environ: Mapping[str, str], host: str = LOOPBACK, names: Sequence[str] = ()
) -> Command:
    """The command of the default emulator, which listens on `host` and is addressed by loopback's names and `names`.

    Raises `ConfigurationError` if it is not installed.
    """
    _check_installed(EmulatorKind.MINISTACK)
    argv = (sys.executable, "-m", "facerec.local.ministack_server", *names)
    return Command("emulator", argv, without_aws(environ) | _ministack_environ(host, port, state.resolve()))


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
        "SERVICES": "s3,sqs,dynamodb,ec2,monitoring,sts",
        # Its MQTT and SFTP listeners have ports and interfaces of their own.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # It writes a file with its process id there.
        "TMPDIR": str(scratch),
        "LOG_LEVEL": "WARNING",
    }
