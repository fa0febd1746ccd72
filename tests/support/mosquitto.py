"""A real MQTT broker, mosquitto, with the limits of AWS IoT Core, on loopback, for tests and benchmarks."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from facerec.processes.addresses import LOOPBACK, free_port, poll_until
from facerec.settings.edge import IOT_MESSAGE_BYTES, EdgeSettings
from tests.support.certificates import Certificate, CertificateAuthority
from tests.support.nginx import listens

CLOUD = "cloud"
"""The one client that may use every topic: what stands for the cloud in a test."""
_START_SECONDS = 10
_STOP_SECONDS = 10
_RELOADED = "Reloading config."
_PACKET_OVERHEAD_BYTES = 1024
"""IoT Core's limit is of the payload, mosquitto's of the packet with its topic."""

_ACCESS = f"""\
# The patterns are mosquitto's: %u is the common name of the client's certificate, which is the thing.
# An AWS IoT policy has no such rule for all things; there each thing has its own.
pattern read clients/%u
pattern write facerec/%u/faces
pattern write facerec/%u/status
pattern read facerec/%u/results

user {CLOUD}
topic readwrite #
"""

_DURABLE = "autosave_on_changes true\nautosave_interval 1\n"


def find_mosquitto() -> str | None:
    """Return the path of the installed mosquitto, also of one that only root has on its PATH."""
    return shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@dataclass(frozen=True, slots=True)
class Bridge:
    """Another broker, such as the emulator's, to which faces and status go on, and from which results come."""

    port: int
    ca_file: Path
    certificate: Certificate
    client_id: str


class Mosquitto:
    """A broker with TLS, client certificates and a policy for each thing; a context manager that starts and stops it.

    `folder` keeps its files. `hosts` are the names in its certificate. Its sessions survive a `restart`; a `kill` only
    if it is `durable`, as IoT Core is: it then writes each change to disk, which costs time. Raises `FileNotFoundError`
    if mosquitto is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hosts: tuple[str, ...] = ("localhost", LOOPBACK),
        bridge: Bridge | None = None,
        durable: bool = False,
    ) -> None:
        program = find_mosquitto()
        if program is None:
            raise FileNotFoundError("mosquitto is not installed; on Debian: apt-get install mosquitto")
        self._program = program
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._certificates: dict[str, Certificate] = {}
        self.port = free_port()
        self.authority = CertificateAuthority(folder / "certificates")
        server = self.authority.issue("server", hosts=hosts)
        (folder / "access.txt").write_text(_ACCESS)
        (folder / "mosquitto.conf").write_text(
            self._configuration(server)
            + (_DURABLE if durable else "")
            + (_bridge_configuration(bridge) if bridge else "")
        )

    def __enter__(self) -> Self:
        """Start the broker."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the broker."""
        self.stop()

    @property
    def log(self) -> str:
        """What the broker has logged."""
        return (self._folder / "output.log").read_text()

    def certificate(self, thing: str) -> Certificate:
        """Return the thing's certificate, issued when it is first asked for."""
        if thing not in self._certificates:
            self._certificates[thing] = self.authority.issue(thing)
        return self._certificates[thing]

    def settings(self, thing: str, **others: Any) -> EdgeSettings:
        """Return the settings with which this thing connects."""
        certificate = self.certificate(thing)
        values: dict[str, Any] = {
            "thing": thing,
            "endpoint": "localhost",
            "port": self.port,
            "ca_file": self.authority.ca_file,
            "certificate_file": certificate.certificate_file,
            "key_file": certificate.key_file,
        }
        return EdgeSettings(**values | others)

    def start(self) -> None:
        """Start the broker, always on the same port, and wait until it listens."""
        with (self._folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._folder / "mosquitto.conf")], stdout=output, stderr=subprocess.STDOUT
            )
        if not poll_until(lambda: listens(self.port), _START_SECONDS):
            raise RuntimeError(f"mosquitto did not start:\n{self.log}")

    def stop(self) -> None:
        """End the broker, which saves its sessions."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once, as a crash does; its sessions are lost."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """Stop the broker's process without an end: it answers nothing more until it is killed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def restart(self) -> None:
        """Stop the broker and start it again."""
        self.stop()
        self.start()

    def revoke(self, thing: str) -> None:
        """Revoke the thing's certificate, and end its connections: the broker restarts."""
        self.authority.revoke(thing)
        self.restart()

    def set_faces_allowed(self, *, allowed: bool) -> None:
        """Change the policy of all things while the broker runs: whether they may publish on their faces topic."""
        faces = "pattern write facerec/%u/faces\n"
        (self._folder / "access.txt").write_text(_ACCESS if allowed else _ACCESS.replace(faces, ""))
        reloads = self.log.count(_RELOADED)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            if not poll_until(lambda: self.log.count(_RELOADED) > reloads, _START_SECONDS):
                raise RuntimeError(f"mosquitto has not read its policy again:\n{self.log}")

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def _configuration(self, server: Certificate) -> str:
        # As root, mosquitto would change to a user that cannot read the folder.
        user = "user root" if os.geteuid() == 0 else ""
        return f"""\
{user}
per_listener_settings false
listener {self.port} {LOOPBACK}
cafile {self.authority.ca_file}
certfile {server.certificate_file}
keyfile {server.key_file}
crlfile {self.authority.revoked_file}
require_certificate true
use_identity_as_username true
acl_file {self._folder / "access.txt"}
set_tcp_nodelay true
max_packet_size {IOT_MESSAGE_BYTES + _PACKET_OVERHEAD_BYTES}
max_qos 1
max_queued_messages 100000
persistence true
persistence_location {self._folder}/
log_dest stderr
"""


def _bridge_configuration(bridge: Bridge) -> str:
    return f"""
connection {bridge.client_id}
address {LOOPBACK}:{bridge.port}
remote_clientid {bridge.client_id}
bridge_cafile {bridge.ca_file}
bridge_certfile {bridge.certificate.certificate_file}
bridge_keyfile {bridge.certificate.key_file}
cleansession false
notifications false
try_private false
restart_timeout 1
topic facerec/+/faces out 1
topic facerec/+/status out 1
topic facerec/+/results in 1
"""
