"""Runs the services of docker/compose.yaml with runc, as confined as Docker would run them, and without Docker.

All containers share one network, which has loopback only; each service's name stands for it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import yaml

from facerec.processes.addresses import poll_until
from tests.support.images import configuration, mounted
from tests.support.processes import CHECKOUT, Command

COMPOSE_FILE = CHECKOUT / "docker" / "compose.yaml"
FLOWER_PASSWORD = "flower-of-these-tests"
_ENVIRON = {"FACEREC_FLOWER__PASSWORD": FLOWER_PASSWORD}
_START_SECONDS = 90
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def compose_services() -> dict[str, Any]:
    """The services of the file, as with the only variable that it requires."""

    def replaced(found: re.Match[str]) -> str:
        return found[3] if found[2] == "-" else _ENVIRON[found[1]]

    services: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(replaced, COMPOSE_FILE.read_text()))["services"]
    return services


class Container:
    """A running container; its output can be awaited, and SIGTERM ends it."""

    def __init__(self, name: str, folder: Path, health: Sequence[str], command: Command) -> None:
        self.name = name
        self.command = command
        self._runc = ("runc", "--root", str(folder / "runc"))
        self._health = health

    def healthy(self) -> bool:
        """Whether the image's own health check succeeds inside the container."""
        assert self.command.process.poll() is None, self.command.output
        return self.run(*self._health).returncode == 0

    def await_health(self) -> Self:
        """Wait until the health check succeeds."""
        assert poll_until(self.healthy, _START_SECONDS), f"{self.name} is not healthy:\n{self.command.output}"
        return self

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the container to its end."""
        return subprocess.run(
            [*self._runc, "exec", self.name, *arguments], capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def pid(self) -> int:
        """The process id of its first process on this machine."""
        state = json.loads(subprocess.check_output([*self._runc, "state", self.name]))
        return int(state["pid"])


class Pod:
    """Containers with one network. As a context manager it ends all of them, the last first, and removes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services = compose_services()
        self._network: str | None = None
        self._ending = ExitStack()
        self._hosts = folder / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(self._services)}\n")

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self._ending.close()

    def start(self, service: str, *, name: str | None = None) -> Container:
        """Start a service of the file in a container, which may have a name of its own."""
        described = self._services[service]
        volumes = [volume.split(":") for volume in described.get("volumes", ())]
        binds = {place: self._source(source) for source, place, *_ in volumes}
        return self.run(
            described["image"],
            described.get("command"),
            name=name or service,
            environ=described.get("environment", {}),
            tmpfs=described["tmpfs"],
            binds=binds,
        )

    def run(
        self,
        image: str,
        arguments: Sequence[str] | None = None,
        *,
        name: str,
        environ: Mapping[str, str],
        tmpfs: Sequence[str] = ("/tmp",),  # noqa: S108 - inside the container
        binds: Mapping[str, Path] | None = None,
        entrypoint: Sequence[str] | None = None,
    ) -> Container:
        """Start an image of docker/ with these arguments in place of its own, or another entry point."""
        config = configuration(f"localhost/{image}")
        before = config["Entrypoint"] if entrypoint is None else list(entrypoint)
        process: dict[str, Any] = {
            "args": [*before, *(config["Cmd"] if arguments is None else arguments)],
            "env": [f"PATH={_DEFAULT_PATH}", *config["Env"], *(f"{key}={value}" for key, value in environ.items())],
            "cwd": config["WorkingDir"] or "/",
            "user": dict(zip(("uid", "gid"), map(int, config["User"].split(":")), strict=True)),
            "capabilities": {kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        }
        root = self._ending.enter_context(mounted(f"localhost/{image}"))
        bundle = self._folder / name
        bundle.mkdir()
        mounts = [
            _mount("proc", "/proc"),
            _mount("sysfs", "/sys", "ro"),
            _mount("tmpfs", "/dev", "mode=755", "nosuid"),
            *(_mount("tmpfs", place, "mode=1777", "nosuid", "nodev") for place in ("/dev/shm", *tmpfs)),  # noqa: S108 - inside the container
        ]
        for place, source in {"/etc/hosts": self._hosts, **(binds or {})}.items():
            mode = "rw" if source.parent == self._folder and source.is_dir() else "ro"
            mounts.append({"type": "bind", "source": str(source), "destination": place, "options": ["bind", mode]})
        network = {"type": "network"} | ({"path": self._network} if self._network else {})
        (bundle / "config.json").write_text(
            json.dumps(
                {
                    "ociVersion": "1.0.2",
                    "process": process,
                    "root": {"path": str(root), "readonly": True},
                    "mounts": mounts,
                    "linux": {"namespaces": [*({"type": kind} for kind in ("pid", "ipc", "uts", "mount")), network]},
                }
            )
        )
        runc = ["runc", "--root", str(self._folder / "runc")]
        command = Command([*runc, "run", "--bundle", str(bundle), name], os.environ, merged=True)
        self._ending.callback(subprocess.run, [*runc, "delete", "--force", name], capture_output=True, check=False)
        self._ending.enter_context(command)
        health = config.get("Healthcheck", {}).get("Test", ["NONE"])[1:]
        container = Container(name, self._folder, health, command)
        if self._network is None:
            assert poll_until(lambda: self._running(runc, name), _START_SECONDS), command.output
            self._network = f"/proc/{container.pid}/ns/net"
        return container

    def inside(self, *argv: str) -> list[str]:
        """The command that runs `argv` of this machine on the containers' network."""
        return ["nsenter", f"--net={self._network}", *argv]

    def python(self, script: str, *arguments: str) -> str:
        """Run a script with this interpreter on the containers' network, and return what it prints."""
        argv = self.inside(sys.executable, "-c", script, *arguments)
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @staticmethod
    def _running(runc: Sequence[str], name: str) -> bool:
        state = subprocess.run([*runc, "state", name], capture_output=True, text=True, check=False)
        return state.returncode == 0 and json.loads(state.stdout)["status"] == "running"

    def _source(self, source: str) -> Path:
        """A folder of the checkout, or a new one for a named volume, which belongs to the images' user."""
        if source.startswith("."):
            return (COMPOSE_FILE.parent / source).resolve()
        volume = self._folder / f"volume-{source}"
        volume.mkdir(exist_ok=True)
        os.chown(volume, 10001, 10001)
        return volume


def _mount(kind: str, place: str, *options: str) -> dict[str, Any]:
    return {"type": kind, "source": kind, "destination": place, "options": list(options)}
