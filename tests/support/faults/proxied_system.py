"""The real system with a proxy before the emulated AWS, whose processes can be killed and frozen."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
import httpx
from botocore.config import Config

from facerec.local.emulator import EmulatorKind, emulator
from facerec.local.environment import edge_variables, emulated_variables, without_aws
from facerec.processes.addresses import LOOPBACK, answers_ok, free_port
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Restarts, Supervisor
from tests.support.faults.faulty_aws import FaultyAws, faulty_aws
from tests.support.processes import facerec

START_SECONDS = 120.0
_RESTARTS = Restarts(first_seconds=0.5, times=20, stable_seconds=2)
"""The harness kills more often than a service manager expects."""


@dataclass(frozen=True, slots=True)
class Processes:
    """How the tiers are started: `worker` is the worker's command, `within` a prefix of both tiers' commands."""

    workers: int = 2
    worker: tuple[str, ...] = facerec("worker")
    within: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


class ProxiedSystem:
    """Emulator, proxy, web tier and workers, each started again when it ends; a context manager.

    `aws(service)` is a client without the proxy. Of the inherited settings only FACEREC_MODEL__* are used. With `mqtt`
    devices can connect to the emulator itself, at `mqtt_port`.
    """

    def __init__(
        self,
        state: Path,
        processes: Processes,
        report: Callable[[str], None] = lambda _: None,
        *,
        mqtt: bool = False,
    ) -> None:
        self.state = state
        self._processes = processes
        self._report = report
        self._resources = ExitStack()
        self.mqtt_port = free_port() if mqtt else None
        self._emulator = emulator(
            EmulatorKind.MINISTACK,
            port=free_port(),
            state=state / "aws",
            environ=os.environ,
            mqtt_port=self.mqtt_port,
        )
        self.url = f"http://{LOOPBACK}:{free_port()}/"
        self.prefix = processes.environ.get("FACEREC_PREFIX", "facerec")
        self.environ: dict[str, str] = {}
        self.workers: list[Child] = []

    def __enter__(self) -> Self:
        """Start everything except the tiers, and provision."""
        with ExitStack() as started:
            # First in, last out: the processes end while they still reach AWS.
            self.proxy: FaultyAws = started.enter_context(faulty_aws(self._emulator.url))
            self._supervisor = Supervisor(self._ended, log_dir=self.state / "logs")
            started.callback(self._supervisor.stop)
            [self.emulator] = self._supervisor.start(self._emulator.command, restarts=_RESTARTS)
            self._supervisor.wait_until_ready(self.emulator, self._emulator.ready, START_SECONDS)
            self.environ = self._environ() | self._mqtt_environ()
            self.run("provision")
            self._resources = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        self.proxy.rules = ()
        self._resources.close()

    def start_tiers(self) -> None:
        """Start the web tier and the workers."""
        [self.web] = self._supervisor.start(self._command("web", facerec("web")), restarts=_RESTARTS)
        self.start_workers()
        self._supervisor.wait_until_ready(self.web, self.serves, START_SECONDS)

    def start_workers(self) -> None:
        """Start the workers alone."""
        self.workers = self._supervisor.start(
            *(self._command(f"worker{n + 1}", self._processes.worker) for n in range(self._processes.workers)),
            grace_seconds=10,
            restarts=_RESTARTS,
        )
        for worker in self.workers:
            self._supervisor.wait_until_ready(worker, partial(self._consumes, worker), START_SECONDS)

    def serves(self) -> bool:
        """Whether the web tier takes uploads."""
        return answers_ok(f"{self.url}readyz")

    def works(self, worker: Child) -> bool:
        """Whether a worker holds a task by its metrics; a worker that has ended or still starts holds none."""
        written = self.log(worker).rpartition("\n")[0].splitlines()  # the last line may still be written
        served = [json.loads(line)["address"] for line in written if '"metrics_served"' in line]
        try:
            shown = httpx.get(served[-1], trust_env=False).text if served else ""
        except httpx.HTTPError:
            return False
        return re.search(r"^facerec_worker_tasks_held [1-9]", shown, re.MULTILINE) is not None

    def kill(self, child: Child) -> None:
        """SIGKILL a process; the supervisor starts it again."""
        os.kill(child.pid, signal.SIGKILL)

    def send(self, number: signal.Signals, *children: Child) -> None:
        """Send a signal to whole process groups."""
        for child in children:
            os.killpg(child.pid, number)

    def run(self, *arguments: str) -> None:
        """Run a `facerec` command; raises `RuntimeError` with its output."""
        done = subprocess.run(facerec(*arguments), env=self.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(
                f"facerec {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )

    def aws(self, service: Any) -> Any:
        """A boto3 client of the emulator itself."""
        session = boto3.Session(
            aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environ["AWS_DEFAULT_REGION"],
        )
        return session.client(
            service, endpoint_url=self._emulator.url, config=Config(s3={"addressing_style": "path"}, read_timeout=60)
        )

    def log(self, child: Child) -> str:
        """The log of a process, over all its restarts."""
        return (self.state / "logs" / f"{child.name}.log").read_text(errors="replace")

    def _environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in without_aws(os.environ).items()
            if not name.startswith("FACEREC_") or name.startswith("FACEREC_MODEL__")
        }
        return (
            inherited
            | emulated_variables(self.proxy.url, os.environ)
            | {
                "FACEREC_WEB__PORT": self.url.rpartition(":")[2].strip("/"),
                "FACEREC_WEB__AUTH": "open",
                "FACEREC_WEB__RATE_LIMIT": "",
                "FACEREC_WORKER__ENGINES": "1",
                "FACEREC_LOG__FORMAT": "json",
                "FACEREC_REPLY_STYLE": "name",
            }
            | dict(self._processes.environ)
        )

    def _mqtt_environ(self) -> dict[str, str]:
        if self.mqtt_port is None:
            return {}
        authorities = self.state / "mqtt-ca.pem"
        authorities.write_text(self._emulator.mqtt_authority())
        return edge_variables(self.mqtt_port, authorities)

    def _command(self, name: str, argv: tuple[str, ...]) -> Command:
        return Command(name, (*self._processes.within, *argv), self.environ)

    def _ended(self, child: Child, how: str, restart_seconds: float) -> None:
        self._report(f"{child.name} ended ({how}); starting it again in {restart_seconds:g} s")

    def _consumes(self, worker: Child) -> bool:
        return "worker_ready" in self.log(worker)
