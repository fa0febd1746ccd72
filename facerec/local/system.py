"""A whole system on this machine: the emulated AWS and the ordinary commands, with the ordinary environment."""

import importlib.util
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from facerec.background import on_stop_signals
from facerec.engine.loading import load_artefact
from facerec.local.ec2_host import emulated_ec2, running_instances
from facerec.local.emulator import DEFAULT_PORT, START_SECONDS, Emulator, EmulatorKind, emulator
from facerec.local.environment import system_variables, web_variables, without_aws
from facerec.local.progress import Progress
from facerec.local.state import Running, StateDirectory
from facerec.processes.addresses import LOOPBACK, answers_ok, free_port, poll_until
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Supervisor
from facerec.settings import Settings

_WEB_START_SECONDS = 60.0
_WORKER_START_EXTRA_SECONDS = 30.0
_FLEET_START_SECONDS = 30.0
# Together below the supervisor's limit; the emulator's is for writing its state.
_WEB_GRACE_SECONDS, _WORKER_GRACE_SECONDS, _EMULATOR_GRACE_SECONDS = 7.0, 4.0, 2.0
_AUTOSCALER_GRACE_SECONDS = 2.0
_FLOWER_START_SECONDS, _FLOWER_GRACE_SECONDS = 30.0, 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to start.

    A number of `workers` is fixed; without one the autoscaler runs as many instances as the backlog needs, each of
    which boots for `boot_seconds` before its worker starts; with `autoscaler` False somebody else runs that. The web
    tier's `port` 0 means any free one. With `flower` Flower runs, too, where it is installed.
    """

    workers: int | None
    emulator: EmulatorKind
    port: int | None = None
    boot_seconds: float = 0.0
    autoscaler: bool = True
    flower: bool = False


class LocalSystem:
    """The parts of a system as they are started; `local_system` makes one and ends it."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        state: StateDirectory,
        supervisor: Supervisor,
        progress: Progress,
    ) -> None:
        self._options = options
        self._settings = settings
        self._state = state
        self._supervisor = supervisor
        self._progress = progress
        self._emulator = self._find_emulator(environ)
        web_port = self._free_port("the web tier", settings.web.port if options.port is None else options.port)
        wildcard = settings.web.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        host = LOOPBACK if wildcard else settings.web.host
        self.web_url = f"http://[{host}]:{web_port}" if ":" in host else f"http://{host}:{web_port}"
        self.variables = system_variables(
            settings,
            environ,
            emulator_url=self._emulator.url,
            image_id=self._emulator.image_id,
            web_port=web_port,
            workers=options.workers,
        )
        self._environ = without_aws(environ) | self.variables
        self._web = web_variables(settings.web.host, environ)
        self.flower: str | None = None
        """Flower's address, user and password for people, once it runs."""

    @property
    def emulator_url(self) -> str:
        """Where the emulated AWS is."""
        return self._emulator.url

    @property
    def asks_for_keys(self) -> bool:
        """Whether the web tier serves only holders of a key."""
        return self._web.get("FACEREC_WEB__AUTH", "keys") != "open"

    def start_cloud(self) -> None:
        """Start the emulator and create the resources; returns when both are done."""
        with self._progress.step(f"emulated AWS ({self._emulator.kind}) on {self._emulator.url}"):
            [child] = self._supervisor.start(
                self._emulator.command, grace_seconds=_EMULATOR_GRACE_SECONDS, on_restart=self._emulator_restarted
            )
            self._supervisor.wait_until_ready(child, self._emulator.ready, START_SECONDS)
        with self._progress.step("buckets, queues and tables"):
            self.run("provision")
        if self._emulator.forgets:
            self._progress.line(f"  {self._emulator.kind} forgets everything when it stops; ministack keeps it")

    def start_tiers(self) -> None:
        """Start the workers, or what starts them, and the web tier, and wait until they take requests."""
        workers = [self._worker(number) for number in range(1, (self._options.workers or 0) + 1)]
        started = self._supervisor.start(*workers, grace_seconds=_WORKER_GRACE_SECONDS)
        if self._options.workers is None:
            self._start_fleet()
        command = Command("web", self._argv("web"), self._environ | self._web)
        [web] = self._supervisor.start(command, grace_seconds=_WEB_GRACE_SECONDS)
        with self._progress.step(f"web tier on {self.web_url}"):
            self._supervisor.wait_until_ready(web, lambda: answers_ok(f"{self.web_url}/readyz"), _WEB_START_SECONDS)
        if self._options.flower:
            self._start_flower()
        limit = self._settings.worker.startup_seconds + _WORKER_START_EXTRA_SECONDS
        for child in started:
            with self._progress.step(child.name):
                self._supervisor.wait_until_ready(child, partial(self._consumes, child.name), limit)

    def _start_fleet(self) -> None:
        """Start the machine behind the emulated EC2, and the autoscaler."""
        logs, boot = str(self._state.logs), str(self._options.boot_seconds)
        host = Command(
            "ec2-host", self._argv("local", "ec2-host", "--logs", logs, "--boot-seconds", boot), self._environ
        )
        [machine] = self._supervisor.start(host, grace_seconds=_WORKER_GRACE_SECONDS)
        with self._progress.step("machine behind the emulated EC2"):
            self._supervisor.wait_until_ready(
                machine, lambda: self._logged("ec2-host", "ec2_host_ready"), _FLEET_START_SECONDS
            )
        if not self._options.autoscaler:
            return
        [autoscaler] = self._supervisor.start(self._facerec("autoscale"), grace_seconds=_AUTOSCALER_GRACE_SECONDS)
        with self._progress.step(f"autoscaler (0 to {self._environ['FACEREC_AUTOSCALE__MAX_INSTANCES']} instances)"):
            self._supervisor.wait_until_ready(
                autoscaler, lambda: self._logged("autoscale", "autoscaler_ready"), _FLEET_START_SECONDS
            )

    def _start_flower(self) -> None:
        """Start Flower with a password of this run, unless the environment has one."""
        if importlib.util.find_spec("flower") is None:
            self._progress.line("  Flower is not installed: pip install '.[flower]'")
            return
        wanted = self._settings.flower
        port = self._free_port("Flower", wanted.port)
        url = f"http://{LOOPBACK}:{port}"
        own = {"FACEREC_FLOWER__PORT": str(port)}
        self.flower = url
        if wanted.auth == "basic" and wanted.password is None:
            # Not among the variables of the system, which are kept in a file.
            own["FACEREC_FLOWER__PASSWORD"] = password = secrets.token_urlsafe(12)
            self.flower = f"{url}  user {wanted.user}, password {password}"
        command = Command("flower", self._argv("flower"), {**self._environ, **own})
        [child] = self._supervisor.start(command, grace_seconds=_FLOWER_GRACE_SECONDS)
        with self._progress.step(f"Flower on {url}"):
            self._supervisor.wait_until_ready(child, lambda: answers_ok(f"{url}/healthcheck"), _FLOWER_START_SECONDS)

    def run(self, name: str, *arguments: str) -> None:
        """Run `facerec <name> …` to its end; raises `ChildFailed` with the end of its log unless it succeeds."""
        self._supervisor.run(self._facerec(name, *arguments))

    def running_instances(self) -> list[str]:
        """The names of the fleet's pending and running instances."""
        ec2 = emulated_ec2(self.variables)
        return sorted(running_instances(ec2, self._settings.prefix, pending=True).values())

    def announce(self) -> None:
        """Let `facerec local env` find the system."""
        self._state.announce(Running(os.getpid(), self.web_url, self.emulator_url, self.variables))

    def wait(self) -> None:
        """Wait for ever; raises `FacerecError` when a process cannot be kept up."""
        self._supervisor.wait()

    def _find_emulator(self, environ: Mapping[str, str]) -> Emulator:
        port = self._free_port("the emulator", DEFAULT_PORT)
        return emulator(self._options.emulator, port=port, state=self._state.emulator, environ=environ)

    def _free_port(self, whose: str, preferred: int) -> int:
        port = free_port(0 if self._options.port == 0 else preferred)
        if self._options.port != 0 and preferred not in {0, port}:
            self._progress.line(f"  port {preferred} is taken; {whose} gets {port}")
        return port

    def _argv(self, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "facerec.cli", *arguments)

    def _facerec(self, name: str, *arguments: str) -> Command:
        return Command(name, self._argv(name, *arguments), self._environ)

    def _worker(self, number: int) -> Command:
        name = f"worker{number}"
        return Command(
            name, (sys.executable, "-m", "celery", "-A", "facerec", "worker", "-n", f"{name}@%h"), self._environ
        )

    def _consumes(self, worker: str) -> bool:
        """Whether the worker has logged Celery's `worker1@host ready.`."""
        return self._logged(worker, rf"{worker}@\S+ ready\.")

    def _logged(self, process: str, pattern: str) -> bool:
        log = self._state.logs / f"{process}.log"
        return re.search(pattern, log.read_text(errors="replace")) is not None

    def _emulator_restarted(self, _: Child) -> None:
        poll_until(lambda: self._supervisor.stopping or self._emulator.ready(), START_SECONDS)
        if not self._supervisor.stopping:
            self.run("provision")  # it may forget everything, or have lost its last moment


@contextmanager
def local_system(
    options: Options, environ: Mapping[str, str], *, state: StateDirectory, progress: Progress
) -> Iterator[LocalSystem]:
    """A system to be started within the block, at whose end every process ends, within 15 s.

    The settings come from the environment. Within the block the first SIGINT, SIGTERM or SIGHUP is a
    `KeyboardInterrupt`. Raises `ConfigurationError` without a model or when a system already runs on this state.
    """
    settings = Settings.load()
    load_artefact(settings)
    with state.held() as lock:
        on_stop_signals(_interrupt, second=_ignore)
        supervisor = Supervisor(
            lambda child, how, seconds: progress.line(
                f"{child.name} ended ({how}); starting it again in {seconds:g} s"
            ),
            log_dir=state.logs,
            hold=(lock,),
        )
        try:
            yield LocalSystem(options, settings, environ, state=state, supervisor=supervisor, progress=progress)
        finally:
            on_stop_signals(_ignore, second=_ignore)
            with progress.step("all processes ended"):
                supervisor.stop()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """The orderly end goes on."""
