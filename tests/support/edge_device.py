"""A device of a test or measurement: the real component in a process that can be killed and started again."""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from facerec.edge_messages import faces_topic, status_topic
from facerec.local.environment import without_aws
from facerec.processes.addresses import poll_until
from facerec.settings.edge import EdgeSettings
from tests.support.processes import Command, cpu_seconds, descendants, facerec

_STOP_SECONDS = 20.0
_SENT = re.compile(r"\bbytes_acked:(\d+)")


def edge_environ(edge: EdgeSettings) -> dict[str, str]:
    """The environment of a component with these settings: of the inherited one, only FACEREC_MODEL__* are used."""
    inherited = {
        name: value
        for name, value in without_aws(os.environ).items()
        if not name.startswith("FACEREC_") or name.startswith("FACEREC_MODEL__")
    }
    fields = edge.model_dump(mode="json", exclude_unset=True)
    own = {f"FACEREC_EDGE__{name.upper()}": str(value) for name, value in fields.items() if value is not None}
    return inherited | {"FACEREC_LOG__FORMAT": "json"} | own


def provisioned_settings(folder: Path, **others: Any) -> EdgeSettings:
    """The settings in the folder that `facerec edge provision` has written."""
    lines = (line.split("=", 1) for line in (folder / "edge.env").read_text().splitlines())
    values = {name.removeprefix("FACEREC_EDGE__").lower(): "".join(shlex.split(value)) for name, value in lines}
    return EdgeSettings(**values | others)


class EdgeDevice:
    """The component of one thing, on one state folder; a context manager that ends its process.

    `frames` is the folder of its frames, if that is its source.
    """

    def __init__(self, thing: str, folder: Path, edge: EdgeSettings) -> None:
        self.thing = thing
        self.faces, self.status = faces_topic(thing), status_topic(thing)
        self.state, self.frames, self._log = folder / "state", folder / "frames", folder / "device.log"
        self.frames.mkdir(parents=True)
        self.edge = edge.model_copy(update={"state_dir": self.state, "folder": self.frames})
        self._commands: list[Command] = []
        self.ended_by_itself = 0
        """How often the process has ended without a signal of this class."""

    def __enter__(self) -> Self:
        """It is started by `start`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process if it runs."""
        if self.runs():
            self.kill()
        if self._commands:
            self._log.write_text("".join(command.output for command in self._commands))

    @property
    def pid(self) -> int:
        """The process, whose child is the engine."""
        return self._commands[-1].process.pid

    def start(self, *within: str) -> None:
        """Start the process, and wait until it takes frames; `within` is a prefix of its command."""
        command = Command((*within, *facerec("edge", "run")), edge_environ(self.edge))
        self._commands.append(command)
        command.wait_for("edge_ready")

    def kill(self) -> None:
        """SIGKILL the process; its engine child ends with it."""
        self._note_end()
        command = self._commands[-1]
        command.process.kill()
        command.wait()
        poll_until(lambda: not descendants(command.process.pid), _STOP_SECONDS)

    def stop(self) -> int:
        """End it by SIGTERM; returns its exit status."""
        self._note_end()
        return self._commands[-1].stop()

    def runs(self) -> bool:
        """Whether the process runs."""
        return bool(self._commands) and self._commands[-1].process.poll() is None

    def put(self, name: str, content: bytes, *, modified_at: float | None = None) -> None:
        """Put a picture into the folder of frames, as a whole."""
        hidden = self.frames / f".{name}"
        hidden.write_bytes(content)
        if modified_at is not None:
            os.utime(hidden, (modified_at, modified_at))
        hidden.rename(self.frames / name)

    def waiting(self) -> int:
        """How many pictures are in the folder of frames."""
        return sum(1 for path in self.frames.iterdir() if path.is_file())

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of this event in the log, over all restarts."""
        found = []
        for command in self._commands:
            for line in command.output.splitlines():
                if f'"{event}"' in line:
                    fields = json.loads(line)
                    if fields["event"] == event:
                        found.append(fields)
        return found

    def wait_for(self, words: str) -> None:
        """Wait until the process that runs has logged a line with these words."""
        self._commands[-1].wait_for(words)

    def last_status(self) -> Mapping[str, Any]:
        """The last status of the process that runs."""
        return self.lines("edge_status")[-1]

    def cpu_seconds(self) -> float:
        """The CPU time so far of the process and of its engine child."""
        return cpu_seconds(self.pid)

    def bytes_sent(self, port: int) -> int:
        """What its connections to this port have sent until now, with TLS and MQTT, without the headers of TCP and IP.

        The source is the kernel's `bytes_acked` (tcp(7), TCP_INFO), which `ss` prints.
        """
        shown = subprocess.run(
            ["ss", "-tinpH", "dport", "=", f":{port}"], capture_output=True, text=True, check=True
        ).stdout
        connections = re.split(r"^(?=\S)", shown, flags=re.MULTILINE)
        own = [one for one in connections if f"pid={self.pid}," in one]
        return sum(int(sent) for one in own for sent in _SENT.findall(one))

    def _note_end(self) -> None:
        if not self.runs():
            self.ended_by_itself += 1


def in_turn(device: EdgeDevice, frames: Mapping[str, bytes], every_seconds: float) -> None:
    """Put frames into the device's folder, one at a time."""
    began = time.monotonic()
    for number, (name, content) in enumerate(frames.items()):
        time.sleep(max(0.0, began + number * every_seconds - time.monotonic()))
        device.put(name, content)
