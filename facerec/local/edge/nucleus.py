r"""A small Greengrass nucleus for this machine: runs one component as its recipe says, until SIGTERM.

    python -m facerec.local.edge.nucleus --recipe recipe.json --archive dist/facerec-edge-x86_64.zip --thing gate-1 \
        --root /tmp/greengrass --changes changes.json

It unpacks the archive, runs the Install step, then the Run step, with the variables and the environment of the classic
nucleus, and starts the Run step again when it fails. `--changes` is what a deployment merges into the configuration,
a file in JSON; SIGHUP has it read again. All that the nucleus keeps is below the root, so a second start is quick.
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
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import structlog

from facerec.background import on_stop_signals
from facerec.echo import echo_error
from facerec.errors import FacerecError
from facerec.local.edge.component import Component, Step, interpolated, merged
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


class LocalNucleus:
    """One component under a root folder; `changes` is merged into the configuration of its recipe.

    What the component prints goes where this process prints. For one thread.
    """

    def __init__(
        self, component: Component, *, thing: str, root: Path, region: str = "us-east-1", changes: Mapping[str, Any]
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
        self.socket = self._root / "ipc.socket"
        self.token = secrets.token_hex(8)
        """By which the IPC server knows the component."""
        self.configuration = merged(component.default_configuration, changes)
        self._environ = {
            "AWS_DEFAULT_REGION": region,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.socket),
            "AWS_IOT_THING_NAME": thing,
            "AWS_REGION": region,
            "GGC_VERSION": "2.0.0",
            "SVCUID": self.token,
        }
        self._work.mkdir(parents=True, exist_ok=True)

    def reconfigure(self, changes: Mapping[str, Any]) -> None:
        """Take the changes of a later deployment instead of the former ones."""
        self.configuration = merged(self._component.default_configuration, changes)

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
        environ = {one: os.environ[one] for one in _FROM_THIS_MACHINE if one in os.environ} | self._environ
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
        return interpolated(text, self._variables, self.configuration)


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
@click.option("--region", default="us-east-1", show_default=True)
def main(recipe: Path, archive: Path, thing: str, root: Path, changes: Path | None, region: str) -> None:
    """Run the component of a recipe until SIGTERM; SIGHUP has the changes read again."""
    configure_logging(Settings.load().log, process="nucleus")
    stopping = threading.Event()
    on_stop_signals(stopping.set)
    nucleus = LocalNucleus(
        Component.read(_read(recipe), platform.machine()),
        thing=thing,
        root=root,
        region=region,
        changes={} if changes is None else _read(changes),
    )

    def read_again(*_: object) -> None:
        try:
            nucleus.reconfigure({} if changes is None else _read(changes))
        except FacerecError as exc:
            log.warning("changes_refused", reason=str(exc))

    signal.signal(signal.SIGHUP, read_again)
    nucleus.install(archive, stopping)
    nucleus.run(stopping)


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
