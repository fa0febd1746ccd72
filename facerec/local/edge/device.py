"""The device of a local system: the ordinary component in a process that knows nothing of AWS but its certificate."""

import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from facerec.local.environment import edge_variables, without_aws
from facerec.private_files import make_private_folder
from facerec.processes.children import Command
from facerec.settings import ENV_PREFIX

_EDGE = f"{ENV_PREFIX}EDGE__"


class LocalDevice:
    """One device that takes frames from a folder, and connects to `mqtt_port`; `folder` keeps what it needs."""

    thing = "local-device"

    def __init__(self, folder: Path, mqtt_port: int) -> None:
        self.files = folder / "device"
        """Its certificate, its key and its settings."""
        self.frames = folder / "frames"
        """A picture that is moved here is a frame."""
        self._state = folder / "state"
        self._authorities = folder / "ca.pem"
        self.cloud_variables = {
            **edge_variables(mqtt_port, self._authorities),
            f"{_EDGE}ENABLED": "true",
        }
        """What makes the system take the faces of devices, and commands provision devices for it."""

    def provision(self, authorities: str, run: Callable[..., None]) -> None:
        """Make it a device of the emulated AWS; `run` runs a command of `facerec` to its end."""
        for folder in (self.files.parent, self.frames):
            make_private_folder(folder)
        self._authorities.write_text(authorities)
        run("edge", "rules", "deploy")
        run("edge", "provision", self.thing, "--to", str(self.files))

    def command(self, environ: Mapping[str, str]) -> Command:
        """The command of its component; the environment's own FACEREC_EDGE__* variables override the defaults here."""
        defaults = {
            f"{_EDGE}SOURCE": "folder",
            f"{_EDGE}FOLDER": str(self.frames),
            f"{_EDGE}STATE_DIR": str(self._state),
            f"{_EDGE}STATUS_SECONDS": "2",
        }
        own = {
            name: value
            for name, value in without_aws(environ).items()
            if not name.startswith(f"{ENV_PREFIX}AWS__") and name not in self.cloud_variables
        }
        lines = (line.split("=", 1) for line in (self.files / "edge.env").read_text().splitlines())
        identity = {name: "".join(shlex.split(value)) for name, value in lines}
        return Command("device", (sys.executable, "-m", "facerec.cli", "edge", "run"), defaults | own | identity)
