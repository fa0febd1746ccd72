"""A whole system on this machine: the emulated AWS and the ordinary commands, with the ordinary environment."""

import importlib.util
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from facerec.background import BackgroundThread, on_stop_signals
from facerec.engine.loading import load_artefact
from facerec.errors import ConfigurationError
from facerec.local.ec2_host import Ec2Host, emulated_ec2, running_instances
from facerec.local.edge.device import DeviceOptions, LocalDevice
from facerec.local.emulator import DEFAULT_PORT, MQTT_PORT, START_SECONDS, EmulatorKind, emulator
from facerec.local.environment import system_variables, web_variables, without_aws
from facerec.local.functions.runtime_emulator import fetch_runtime_emulator
from facerec.local.progress import Progress
from facerec.local.state import Running, StateDirectory
from facerec.processes.addresses import LOOPBACK, answers_ok, free_port, poll_until
from facerec.processes.children import Command
from facerec.processes.supervisor import Child, Supervisor
from facerec.provision.iam_statements import HALVES
from facerec.settings import AppTier, Settings

_WEB_START_SECONDS, _DEVICE_START_SECONDS = 60.0, 300.0
_PART_START_SECONDS = 30.0
"""For the autoscaler and Flower; for a worker or a function in addition to the limit of its engine."""
# Together below the supervisor's limit; the emulator writes its state.
_WEB_GRACE_SECONDS, _APP_TIER_GRACE_SECONDS, _EMULATOR_GRACE_SECONDS = 7.0, 4.0, 2.0
_AUTOSCALER_GRACE_SECONDS, _FLOWER_GRACE_SECONDS, _DEVICE_GRACE_SECONDS, _HOST_STOP_SECONDS = 2.0, 2.0, 5.0, 1.0
_FUNCTION_PORT = 9000
_FACEREC = (sys.executable, "-m", "facerec.cli")


@dataclass(frozen=True, slots=True)
class Options:
    """What to start.

    `app_tier` is as FACEREC_APP_TIER, which None leaves as it is. The rest is of workers on EC2: a number of `workers`
    is fixed; without one a fleet of emulated instances works, each of which boots for `boot_seconds`. `autoscaler`
    starts the fleet's autoscaler, too. `port` is the web tier's; 0 gives all free ports. The app tier takes the faces
    of a `device`, if there is one. Without `web`, nothing in the system reads the response queue.
    """

    workers: int | None
    emulator: EmulatorKind
    port: int | None = None
    boot_seconds: float = 0.0
    autoscaler: bool = True
    flower: bool = False
    app_tier: AppTier | None = None
    device: DeviceOptions | None = None
    web: bool = True


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
        self._app_tier = options.app_tier or settings.app_tier
        if self._app_tier == "serverless" and options.workers is not None:
            raise ConfigurationError("the app tier `serverless` has no workers: leave --workers out, or take `both`")
        self._settings = settings
        self._state = state
        self._supervisor = supervisor
        self._progress = progress
        port = self._free_port("the emulator", DEFAULT_PORT)
        mqtt_port = self._free_port("the MQTT listener", MQTT_PORT) if options.device else None
        self._emulator = emulator(
            options.emulator, port=port, state=state.emulator, environ=environ, mqtt_port=mqtt_port
        )
        web_port = self._free_port("the web tier", settings.web.port if options.port is None else options.port)
        wildcard = settings.web.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        host = LOOPBACK if wildcard else settings.web.host
        self.web_url = f"http://[{host}]:{web_port}" if ":" in host else f"http://{host}:{web_port}"
        self.emulator_url = self._emulator.url
        self.variables = system_variables(
            settings,
            environ,
            emulator_url=self._emulator.url,
            image_id=self._emulator.image_id,
            web_port=web_port,
            workers=options.workers,
            app_tier=self._app_tier,
        )
        self.variables["FACEREC_CLIENT__URL"] = self.web_url
        self.device: LocalDevice | None = None
        """The device at the edge, if there is one."""
        if options.device is not None and mqtt_port is not None:
            self.device = LocalDevice(state.path / "edge", mqtt_port, options.device)
            self.variables |= self.device.cloud_variables
        self._environ = without_aws(environ) | self.variables
        self._web = web_variables(settings.web.host, environ)
        self._ec2 = emulated_ec2(self.variables)
        self._ec2_host: BackgroundThread | None = None
        self.response_queue = settings.response_queue
        self.flower: str | None = None
        """Flower's address, user and password for people, once it runs."""
        self.function_url: str | None = None
        """The URL of the detection function, once it runs."""

    @property
    def elastic(self) -> bool:
        """Whether a fleet follows the backlog, instead of a fixed number of workers or functions alone."""
        return self._app_tier != "serverless" and self._options.workers is None

    @property
    def signs_function_calls(self) -> bool:
        """Whether the detection function's URL takes signed requests alone."""
        return self._settings.serverless.url_auth == "iam"

    @property
    def asks_for_keys(self) -> bool:
        """Whether the web tier serves only clients with a key."""
        return self._web.get("FACEREC_WEB__AUTH", "keys") != "open"

    def start_cloud(self) -> None:
        """Start the emulator and create the resources; returns when both are done."""
        kind = self._emulator.kind
        with self._progress.step(f"emulated AWS ({kind}) on {self.emulator_url}"):
            [child] = self._supervisor.start(
                self._emulator.command, grace_seconds=_EMULATOR_GRACE_SECONDS, on_restart=self._provision_again
            )
            self._supervisor.wait_until_ready(child, self._emulator.ready, START_SECONDS)
        with self._progress.step("buckets, queues and tables"):
            self.run("provision")
        if self.device is not None:
            for title, prepare in self.device.preparations(self._emulator.mqtt_authority, self.run):
                with self._progress.step(title):
                    prepare()
        if self._emulator.forgets:
            self._progress.line(f"  {kind} forgets everything when it stops; ministack keeps it")

    def start_tiers(self) -> None:
        """Start functions, workers or the fleet that starts them, web tier and device; returns when they are ready."""
        functions = [] if self._app_tier == "ec2" else self._functions()
        celery = (sys.executable, "-m", "celery", "-A", "facerec", "worker", "-n")
        names = [f"worker{number}" for number in range(1, (self._options.workers or 0) + 1)]
        workers = [Command(name, (*celery, f"{name}@%h"), self._environ) for name in names]
        app_tier = self._supervisor.start(*functions, *workers, grace_seconds=_APP_TIER_GRACE_SECONDS)
        if self.elastic:
            self._start_fleet()
        if self._options.flower:
            self._start_flower()
        if self._options.web:
            web = Command("web", (*_FACEREC, "web"), self._environ | self._web)
            ready = partial(answers_ok, f"{self.web_url}/readyz")
            self._start(f"web tier on {self.web_url}", web, ready, _WEB_GRACE_SECONDS, _WEB_START_SECONDS)
        if self.device is not None:
            device, ready = self.device.command(self._environ), partial(self._logged, "device", "edge_ready")
            self._start(f"device {self.device.thing}", device, ready, _DEVICE_GRACE_SECONDS, _DEVICE_START_SECONDS)
        limit = self._settings.worker.startup_seconds + _PART_START_SECONDS
        for child in app_tier:
            with self._progress.step(child.name):
                # Lines of the function's log, and of Celery's own.
                ready = partial(self._logged, child.name, rf"function_ready|{child.name}@\S+ ready\.")
                self._supervisor.wait_until_ready(child, ready, limit)

    def run(self, *arguments: str) -> None:
        """Run `facerec <arguments>` to its end; raises `ChildFailed` with the end of its log unless it succeeds."""
        self._supervisor.run(self._facerec(*arguments))

    def running_instances(self) -> list[str]:
        """The names of the fleet's pending and running instances."""
        return sorted(running_instances(self._ec2, self._settings.prefix, pending=True).values())

    def log(self, process: str) -> str:
        """What a process has logged."""
        return (self._state.logs / f"{process}.log").read_text(errors="replace")

    def announce(self) -> None:
        """Let `facerec local env` find the system."""
        self._state.announce(Running(self.web_url, self.emulator_url, self.variables, self.function_url))

    def wait(self) -> None:
        """Wait for ever; raises `FacerecError` when a process ends too often."""
        self._supervisor.wait()

    def stop(self) -> None:
        """End every process."""
        if self._ec2_host is not None:
            self._ec2_host.stop(_HOST_STOP_SECONDS)
        self._supervisor.stop()

    def _functions(self) -> list[Command]:
        """The commands of Lambda's service for both functions."""
        with self._progress.step("Lambda's Runtime Interface Emulator"):
            rie = fetch_runtime_emulator(self._settings.model.cache_dir)
        logs = self._state.logs / "functions"
        service = (sys.executable, "-m", "facerec.local.functions.service", "--emulator", str(rie), "--logs", str(logs))
        port = self._free_port("the detection function", _FUNCTION_PORT)
        self.function_url = f"http://{LOOPBACK}:{port}/"
        urls = {"detection": ("--url-port", str(port))}
        return [Command(f"face-{half}", (*service, half, *urls.get(half, ())), self._environ) for half in HALVES]

    def _start_fleet(self) -> None:
        """Start the machine behind the emulated EC2, and the autoscaler."""
        worker = Command("worker", (*_FACEREC, "worker"), self._environ)
        boot = self._options.boot_seconds
        host = Ec2Host(self._ec2, self._settings.prefix, self._supervisor, worker, boot_seconds=boot)
        self._ec2_host = BackgroundThread("ec2-host", host.run)
        self._ec2_host.start()
        if self._options.autoscaler:
            title = f"autoscaler (0 to {self._environ['FACEREC_AUTOSCALE__MAX_INSTANCES']} instances)"
            ready = partial(self._logged, "autoscale", "autoscaler_ready")
            self._start(title, self._facerec("autoscale"), ready, _AUTOSCALER_GRACE_SECONDS)

    def _start_flower(self) -> None:
        """Start Flower, with a password of this run unless the environment has one."""
        if importlib.util.find_spec("flower") is None:
            self._progress.line("  Flower is not installed: pip install '.[flower]'")
            return
        wanted = self._settings.flower
        port = self._free_port("Flower", wanted.port)
        self.flower = url = f"http://{LOOPBACK}:{port}"
        self._environ.setdefault("FACEREC_WEB__FLOWER_URL", url)  # so that the page links to it
        own = {"FACEREC_FLOWER__PORT": str(port)}
        if wanted.auth == "basic" and wanted.password is None:
            # Not among the variables of the system, which are kept in a file.
            own["FACEREC_FLOWER__PASSWORD"] = password = secrets.token_urlsafe(12)
            self.flower = f"{url}  user {wanted.user}, password {password}"
        command = Command("flower", (*_FACEREC, "flower"), {**self._environ, **own})
        self._start(f"Flower on {url}", command, partial(answers_ok, f"{url}/healthcheck"), _FLOWER_GRACE_SECONDS)

    def _start(
        self,
        title: str,
        command: Command,
        ready: Callable[[], bool],
        grace_seconds: float,
        start_seconds: float = _PART_START_SECONDS,
    ) -> None:
        with self._progress.step(title):
            [child] = self._supervisor.start(command, grace_seconds=grace_seconds)
            self._supervisor.wait_until_ready(child, ready, start_seconds)

    def _free_port(self, user: str, preferred: int) -> int:
        port = free_port(0 if self._options.port == 0 else preferred)
        if self._options.port != 0 and preferred not in {0, port}:
            self._progress.line(f"  port {preferred} is taken; {user} gets {port}")
        return port

    def _facerec(self, *arguments: str) -> Command:
        return Command(arguments[0], (*_FACEREC, *arguments), self._environ)

    def _logged(self, process: str, pattern: str) -> bool:
        return re.search(pattern, self.log(process)) is not None

    def _provision_again(self, _: Child) -> None:
        poll_until(lambda: self._supervisor.stopping or self._emulator.ready(), START_SECONDS)
        if not self._supervisor.stopping:
            self.run("provision")  # the emulator may have lost some or all resources


@contextmanager
def local_system(
    options: Options, environ: Mapping[str, str], *, state: StateDirectory, progress: Progress
) -> Iterator[LocalSystem]:
    """A system that the block starts. When the block is left, every process ends, within 15 s.

    The settings come from the environment. Within the block the first SIGINT, SIGTERM or SIGHUP raises
    `KeyboardInterrupt`. Raises `ConfigurationError` without a model or when a system already runs on this state.
    """
    settings = Settings.load()
    load_artefact(settings)

    def show_restart(child: Child, how: str, restart_seconds: float) -> None:
        progress.line(f"{child.name} ended ({how}); starting it again in {restart_seconds:g} s")

    with state.locked() as lock:
        on_stop_signals(_interrupt, second=_ignore)
        supervisor = Supervisor(show_restart, log_dir=state.logs, hold=(lock,))
        system = LocalSystem(options, settings, environ, state=state, supervisor=supervisor, progress=progress)
        try:
            yield system
        finally:
            on_stop_signals(_ignore, second=_ignore)
            with progress.step("all processes ended"):
                system.stop()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _ignore() -> None:
    """Ignore the signal: the end must not be interrupted."""
