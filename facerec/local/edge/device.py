"""The device of a local system: the ordinary component in a process that knows nothing of AWS but its certificate.

A local Greengrass nucleus installs and runs the packaged component, as its recipe says. Or the device is `facerec edge
run` of this installation, which starts at once.
"""

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facerec.errors import ConfigurationError
from facerec.local.environment import edge_variables, without_aws
from facerec.private_files import make_private_folder
from facerec.processes.children import Command
from facerec.provision.edge.artefact import archive_name
from facerec.provision.edge.recipe import CONFIGURATION_KEY, Architecture, access_control
from facerec.provision.edge.thing_folder import ThingFolder
from facerec.settings import ENV_PREFIX

_ARCHITECTURE: Architecture = "arm64" if platform.machine() == "aarch64" else "x86_64"
_LONGEST_ROOT_BYTES = 90
"""A socket's path has 107 bytes at most; the nucleus' is in its root folder."""
_EDGE = f"{ENV_PREFIX}EDGE__"


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """What runs the device."""

    nucleus: bool = True
    """Whether a nucleus does, or the component starts by itself."""
    archive: Path | None = None
    """The component for the nucleus; without it, this checkout is packaged."""


class LocalDevice:
    """One device that takes frames from a folder, and connects to `mqtt_port`; `folder` keeps what it needs.

    Raises `ConfigurationError` if the folder's path is too long for a nucleus.
    """

    thing = "local-device"

    def __init__(self, folder: Path, mqtt_port: int, options: DeviceOptions) -> None:
        self.files = folder / "device"
        """Its certificate, its key and its settings."""
        self.frames = folder / "frames"
        """A picture that is moved here is a frame."""
        self._state = folder / "state"
        self._packaged = folder / "dist" if options.nucleus and options.archive is None else None
        self._archive = self._packaged / archive_name(_ARCHITECTURE) if self._packaged else options.archive
        self._nucleus = folder / "nucleus"
        self._recipe = folder / "recipe.json"
        if options.nucleus and len(os.fsencode(self._nucleus.absolute())) > _LONGEST_ROOT_BYTES:
            raise ConfigurationError(
                f"{self._nucleus} is too long a path for the nucleus' socket; use a shorter --state, or --no-nucleus"
            )
        self._authorities = folder / "ca.pem"
        self.cloud_variables = {
            **edge_variables(mqtt_port, self._authorities),
            f"{_EDGE}ENABLED": "true",
        }
        """What makes the system take the faces of devices, and commands provision devices for it."""

    def preparations(
        self, authorities: Callable[[], str], run: Callable[..., None]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """What to do before its first start: each step with its title. `run` runs a command of `facerec` to its end."""
        if self._packaged is not None:
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            made = ("--architecture", _ARCHITECTURE, "--python", python, "--output", str(self._packaged))
            yield "component packaged", partial(run, "edge", "package", *made)
        yield f"device {self.thing}, and IoT's rules for it", partial(self._provision, authorities, run)

    def _provision(self, authorities: Callable[[], str], run: Callable[..., None]) -> None:
        for folder in (self.files.parent, self.frames):
            make_private_folder(folder)
        self._authorities.write_text(authorities())
        run("edge", "rules", "deploy")
        if self._archive is None:
            run("edge", "provision", self.thing, "--to", str(self.files))
        else:
            run("edge", "provision", self.thing, "--to", str(self.files), "--greengrass")
            run("edge", "recipe", "--write", str(self._recipe))

    def command(self, environ: Mapping[str, str]) -> Command:
        """The command of its component; the environment's own FACEREC_EDGE__* variables override the defaults here."""
        own = {
            name: value
            for name, value in without_aws(environ).items()
            if not name.startswith(f"{ENV_PREFIX}AWS__") and name not in self.cloud_variables
        }
        settings = {
            "SOURCE": "folder",
            "FOLDER": str(self.frames),
            "STATUS_SECONDS": "2",
            "RESULTS": "true",
            **{name.removeprefix(_EDGE): value for name, value in own.items() if name.startswith(_EDGE)},
        }
        if self._archive is not None:
            return self._of_nucleus(self._archive, settings, own)
        identity = ThingFolder(self.files).settings()
        set_here = {f"{_EDGE}{name}": value for name, value in {"STATE_DIR": str(self._state), **settings}.items()}
        return Command("device", (sys.executable, "-m", "facerec.cli", "edge", "run"), own | set_here | identity)

    def _of_nucleus(self, archive: Path, settings: Mapping[str, str], environ: Mapping[str, str]) -> Command:
        """The command of the nucleus; the component has its settings from a deployment, and none from here."""
        changes = self._recipe.with_name("changes.json")
        edge = {name.lower(): value for name, value in settings.items()}
        changes.write_text(json.dumps({CONFIGURATION_KEY: edge, "accessControl": access_control(self.thing)}))
        options = {
            "--recipe": self._recipe,
            "--archive": archive.resolve(),
            "--thing": self.thing,
            "--root": self._nucleus,
            "--changes": changes,
            "--device": self.files,
        }
        argv = [str(part) for option in options.items() for part in option]
        return Command("device", (sys.executable, "-m", "facerec.local.edge.nucleus", *argv), environ)
