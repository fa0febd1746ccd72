"""An emulated AWS for the tests, started as `facerec local` starts it."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest
from pydantic import AnyHttpUrl

from facerec.aws.clients import Clients
from facerec.local.emulator import START_SECONDS, Emulator, EmulatorKind, emulator
from facerec.local.environment import edge_variables, emulated_variables
from facerec.processes.addresses import free_port
from facerec.processes.supervisor import Child, Restarts, Supervisor
from facerec.provision.provisioning import provision
from facerec.settings import Settings


@dataclass(frozen=True)
class EmulatedAws:
    """A running emulator: its address, the settings in force, and the whole environment for a command that uses it."""

    kind: EmulatorKind
    url: str
    settings: Settings
    environ: dict[str, str]
    mqtt_port: int | None = None
    """Where devices connect, if that was asked for; `settings.edge` has it, too."""

    def fresh(self) -> Settings:
        """Settings with names of their own, provisioned."""
        settings = self.settings.changed(prefix=f"test-{uuid.uuid4().hex[:12]}")
        provision(self._clients, settings)
        return settings

    @cached_property
    def _clients(self) -> Clients:
        """For all that is provisioned: to make them takes twice as long as to use them."""
        return Clients(self.settings)


def environ_of(settings: Settings, base: dict[str, str]) -> dict[str, str]:
    """The environment that makes a command use the resources of `settings`."""
    return base | {"FACEREC_PREFIX": settings.prefix}


def clients_over_tls(settings: Settings) -> Clients:
    """Clients whose endpoint is https; a hook takes TLS off each request, since the emulator has none."""

    def take_off(request: AWSPreparedRequest, **_: object) -> None:
        request.url = request.url.replace("https://", "http://")

    endpoint = AnyHttpUrl(str(settings.endpoint_url).replace("http://", "https://"))
    clients = Clients(settings.changed(aws=settings.aws.model_copy(update={"endpoint_url": endpoint})))
    for client in (clients.s3, clients.sqs, clients.dynamodb, clients.ec2):
        client.meta.events.register("before-send", take_off)
    return clients


@contextmanager
def emulated_aws(kind: EmulatorKind, state: Path, *, services: str = "", mqtt: bool = False) -> Iterator[EmulatedAws]:
    """Start an emulator on a free loopback port, point the environment at it, provision, and stop it at the end.

    `services` are further ones, by ministack's names; `mqtt` adds those of the edge, and a port for devices.
    """
    mqtt_port = free_port() if mqtt else None
    found = emulator(kind, port=free_port(), state=state, environ=os.environ, mqtt_port=mqtt_port)
    if services:
        environ = dict(found.command.environ)
        environ["SERVICES"] += f",{services}"
        environ["LAMBDA_ACCOUNT_CONCURRENCY"] = "1000"  # as on AWS, whatever memory this machine has
        found = replace(found, command=replace(found.command, environ=environ))
    with running_emulator(found, state), pytest.MonkeyPatch.context() as patch:
        for name, value in emulated_variables(found.url, os.environ).items():
            patch.setenv(name, value)
        patch.setenv("FACEREC_WEB__AUTH", "open")
        if mqtt_port is not None:
            authorities = state / "mqtt-ca.pem"
            authorities.write_text(found.mqtt_authority())
            for name, value in edge_variables(mqtt_port, authorities).items():
                patch.setenv(name, value)
        settings = Settings.load()
        provision(Clients(settings), settings)
        yield EmulatedAws(kind, found.url, settings, dict(os.environ), mqtt_port)


@contextmanager
def running_emulator(found: Emulator, log_dir: Path) -> Iterator[Child]:
    """Run an emulator within the block; it is not started again."""
    with Supervisor(lambda _child, _how, _seconds: None, log_dir=log_dir) as supervisor:
        [child] = supervisor.start(found.command, restarts=Restarts(times=0))
        supervisor.wait_until_ready(child, found.ready, START_SECONDS)
        yield child
