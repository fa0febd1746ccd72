r"""A small Greengrass nucleus for this machine: runs one component as its recipe says, until SIGTERM.

    python -m facerec.local.edge.nucleus --recipe recipe.json --archive dist/facerec-edge-x86_64.zip --thing gate-1 \
        --root /tmp/greengrass --changes changes.json --device gate-1

It unpacks the archive, runs the Install step, then the Run step, with the variables and the environment of the classic
nucleus, and starts the Run step again when it fails. All that it keeps is below the root: a second start is quick.

Its IPC server has the component's configuration, local messages, and a connection to AWS IoT Core with `--device`, the
folder of `facerec edge provision --greengrass`. `--changes` is a file in JSON that is merged into the configuration, as
`deployed_configuration` of a deployment; SIGHUP has it read again. As in the classic nucleus' default, recipe variables
in the configuration are not replaced, so that the access control of the recipe alone allows nothing.
"""

import json
import os
import platform
import secrets
import shlex
import shutil
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Self

import click
import structlog

from facerec.background import BackgroundThread, on_stop_signals
from facerec.echo import echo_error
from facerec.errors import FacerecError
from facerec.local.edge.iot_core import DeviceIotCore, NoIotCore
from facerec.local.edge.ipc_server import IotCore, IpcComponent, IpcServer
from facerec.local.edge.lifecycle import Lifecycle, Step, interpolated, merged
from facerec.observability.logs import configure_logging
from facerec.processes.children import Command, OrphanReaper, Process, describe_exit
from facerec.settings import Settings
from model.artefact import file_sha256

log = structlog.get_logger(__name__)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_TRIES, _TRIES_SECONDS = 3, 3600.0
"""A component that fails as often in this time is broken, and stays so until the next deployment."""
_GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL, as in the nucleus."""
_LOOK_SECONDS = 0.1
_FROM_THIS_MACHINE = ("PATH", "HOME", "TZ")
"""A component sees no other variable of the process that starts the nucleus."""


class Broken(FacerecError):
    """The component failed too often."""


class LocalNucleus(AbstractContextManager["LocalNucleus"]):
    """One component under a root folder; `changes` is merged into the configuration of its recipe.

    What the component prints goes where this process prints. As a context manager it serves IPC. For one thread.
    """

    def __init__(
        self,
        component: Lifecycle,
        *,
        thing: str,
        root: Path,
        changes: Mapping[str, Any],
        region: str = "us-east-1",
        iot_core: IotCore | None = None,
    ) -> None:
        self._component = component
        self._root = root.resolve()
        self._work = self._root / "work" / component.name
        self._unpacked = self._root / "packages" / "artifacts-unarchived" / component.name / component.version
        self._variables = {
            "artifacts:decompressedPath": str(self._unpacked),
            "iot:thingName": thing,
            "kernel:rootPath": str(self._root),
            "work:path": str(self._work),
        }
        configuration = merged(component.default_configuration, changes)
        access = configuration.get("accessControl", {})
        self._client = IpcComponent(component.name, secrets.token_hex(8), access, configuration)
        socket = self._root / "ipc.socket"
        self._ipc = IpcServer(socket, iot_core or NoIotCore())
        self._ipc.add(self._client)
        self.environ: Mapping[str, str] = {
            "AWS_DEFAULT_REGION": region,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(socket),
            "AWS_IOT_THING_NAME": thing,
            "AWS_REGION": region,
            "GGC_VERSION": "2.0.0",
            "SVCUID": self._client.token,
        }
        """What each step gets beside its own variables."""
        self._work.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        """Serve IPC."""
        self._ipc.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._ipc.stop()

    def reconfigure(self, changes: Mapping[str, Any]) -> None:
        """Take the changes of a later deployment instead of the former ones, and tell the component."""
        self._ipc.configure(self._client, merged(self._component.default_configuration, changes))

    def install(self, archive: Path, stopping: threading.Event) -> None:
        """Unpack the archive unless this was done, and run the Install step; raises `Broken` if that fails."""
        target = self._unpacked / self._component.folder
        mark, digest = target.with_suffix(".sha256"), file_sha256(archive)
        if not mark.exists() or mark.read_text() != digest:
            shutil.rmtree(target, ignore_errors=True)
            with zipfile.ZipFile(archive) as file:
                file.extractall(target)
            mark.write_text(digest)
        began = time.monotonic()
        if "install" in self._component.steps:
            self._until_it_succeeds("install", stopping)
        if not stopping.is_set():
            log.info("component_installed", component=self._component.name, seconds=round(time.monotonic() - began, 1))

    def run(self, stopping: threading.Event) -> None:
        """Run the component until the event is set, or it ends by itself; raises `Broken` if it fails too often."""
        self._until_it_succeeds("run", stopping)

    def _until_it_succeeds(self, name: str, stopping: threading.Event) -> None:
        failures: list[float] = []
        while not stopping.is_set():
            how = self._attempt(name, self._component.steps[name], stopping)
            if how is None:
                return
            now = time.monotonic()
            failures = [*(at for at in failures if now - at < _TRIES_SECONDS), now]
            log.warning("component_errored", component=self._component.name, step=name, how=how, times=len(failures))
            if len(failures) == _TRIES:
                raise Broken(f"{self._component.name} is broken: its step {name} failed {_TRIES} times, last {how}")

    def _attempt(self, name: str, step: Step, stopping: threading.Event) -> str | None:
        """Run a step to its end; returns how it failed, or None if it succeeded or was ended."""
        environ = {one: os.environ[one] for one in _FROM_THIS_MACHINE if one in os.environ} | {**self.environ}
        environ |= {key: self._interpolated(text) for key, text in step.environ.items()}
        script = f"cd {shlex.quote(str(self._work))} || exit\n{self._interpolated(step.script)}"
        reaper = OrphanReaper(_GRACE_SECONDS)
        try:
            process = Process(Command(name, ("/bin/sh", "-c", script), environ), reaper)
            log.info("component_step", component=self._component.name, step=name, pid=process.pid)
            deadline = None if step.timeout_seconds is None else time.monotonic() + step.timeout_seconds
            while process.poll() is None and not stopping.wait(_LOOK_SECONDS):
                if deadline is not None and time.monotonic() >= deadline:
                    process.finish(0)
                    return f"it took longer than {step.timeout_seconds:g} s"
            if process.poll() is None:
                _terminate_all(process.pid)
            status = process.finish(_GRACE_SECONDS)
        finally:
            reaper.close()
        return None if status == 0 or stopping.is_set() else describe_exit(status)

    def _interpolated(self, text: str) -> str:
        return interpolated(text, self._variables, self._client.configuration)


def _terminate_all(group: int) -> None:
    """Send SIGTERM to the step's process and to all that it started, as the nucleus does."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)


@click.command()
@click.option("--recipe", type=_FILE, required=True)
@click.option("--archive", type=_FILE, required=True)
@click.option("--thing", required=True)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--changes", type=_FILE, help="What a deployment merges into the configuration.")
@click.option("--device", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Its certificate.")
@click.option("--region", default="us-east-1", show_default=True)
def main(
    recipe: Path, archive: Path, thing: str, root: Path, changes: Path | None, device: Path | None, region: str
) -> None:
    """Run the component of a recipe until SIGTERM; SIGHUP has the changes read again."""
    configure_logging(Settings.load().log, process="nucleus")
    stopping, reconfigured = threading.Event(), threading.Event()
    on_stop_signals(stopping.set)
    signal.signal(signal.SIGHUP, lambda *_: reconfigured.set())
    iot_core = None if device is None else DeviceIotCore(thing, device)
    nucleus = LocalNucleus(
        Lifecycle.read(_read(recipe), platform.machine()),
        thing=thing,
        root=root,
        changes={} if changes is None else _read(changes),
        region=region,
        iot_core=iot_core,
    )

    def reconfigure(ending: threading.Event) -> None:
        while not ending.wait(_LOOK_SECONDS):
            if reconfigured.is_set():
                reconfigured.clear()
                try:
                    nucleus.reconfigure({} if changes is None else _read(changes))
                except FacerecError as exc:
                    log.warning("changes_refused", reason=str(exc))

    watcher = BackgroundThread("changes", reconfigure)
    if iot_core is not None:
        iot_core.start()
    try:
        with nucleus:
            nucleus.install(archive, stopping)
            watcher.start()
            nucleus.run(stopping)
    finally:
        watcher.stop()
        if iot_core is not None:
            iot_core.stop()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as exc:
        raise FacerecError(f"{file} is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise FacerecError(f"{file} has no object in it")
    return found


if __name__ == "__main__":
    try:
        main()
    except FacerecError as exc:
        echo_error(str(exc))
        sys.exit(1)
