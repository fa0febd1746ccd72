"""`facerec local up` with real workers and the real model."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from facerec.local.state import Running, StateDirectory
from facerec.processes.addresses import poll_until
from tests.support.processes import CHECKOUT, alive, descendants, facerec, run

READY_SECONDS = 90
STOP_SECONDS = 15


@dataclass
class Up:
    """A running `facerec local up`."""

    process: "subprocess.Popen[str]"
    running: Running
    state: Path

    def stop(self, number: signal.Signals) -> float:
        """Signal its whole process group, as a terminal does with Ctrl-C; returns the seconds to its end."""
        began = time.monotonic()
        os.killpg(self.process.pid, number)
        self.process.wait(STOP_SECONDS)
        return time.monotonic() - began

    def descendants(self) -> set[int]:
        """Every process of the system."""
        return descendants(self.process.pid)


@contextmanager
def up(state: Path, artefact_dir: Path, *options: str) -> Iterator[Up]:
    """Start a system on any free port and wait until it announces itself."""
    environ = os.environ | {
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_MODEL__CACHE_DIR": str(artefact_dir.parent / "downloads"),
        "FACEREC_WORKER__ENGINES": "1",
        "FACEREC_REPLY_STYLE": "name",
    }
    with (state.with_suffix(".out")).open("w+") as output:
        process = subprocess.Popen(
            facerec("local", "up", "--state", str(state), "--port", "0", *options),
            cwd=CHECKOUT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            description = state / "running.json"
            assert poll_until(lambda: description.exists() or process.poll() is not None, READY_SECONDS)
            assert process.poll() is None, (state.with_suffix(".out")).read_text()
            yield Up(process, StateDirectory(state).running(), state)
        finally:
            process.terminate()
            process.wait(STOP_SECONDS + 5)


def upload(running: Running, photo: Path) -> httpx.Response:
    """Upload a photo."""
    with photo.open("rb") as file:
        return httpx.post(running.web_url, files={"inputFile": file}, timeout=60, trust_env=False)


def ask(running: Running, photo: Path) -> str:
    """Upload a photo and return the reply."""
    return upload(running, photo).text.strip()


def enrol(running: Running, name: str, photo: Path) -> None:
    """Enrol a person with the ordinary command."""
    environ = os.environ | running.variables
    result = run("enrol", name, str(photo), environ=environ)
    assert result.returncode == 0, result.stderr


def test_gallery_and_results_survive_a_restart(tmp_path: Path, artefact_dir: Path) -> None:
    """Ctrl-C and SIGKILL leave no process."""
    portrait = next((CHECKOUT / "examples" / "gallery" / "Barack Obama").glob("*.jpg"))
    probe = CHECKOUT / "examples" / "probes" / "image_01.jpg"
    state = tmp_path / "state"
    with up(state, artefact_dir) as first:
        unknown = upload(first.running, probe)
        assert unknown.text.strip() == "image_01:Unknown"
        enrol(first.running, "Barack Obama", portrait)
        exports = run("local", "env", "--state", str(state), environ=os.environ)
        assert f"export FACEREC_AWS__ENDPOINT_URL={first.running.emulator_url}" in exports.stdout.splitlines()
        assert "FACEREC_WEB__AUTH" not in exports.stdout  # another web tier would be open by it
        processes = first.descendants()
        assert len(processes) >= 4  # emulator, web, worker, engine
        assert first.stop(signal.SIGINT) < STOP_SECONDS
        assert first.process.returncode == 0
        assert not any(map(alive, processes))
    with up(state, artefact_dir) as second:
        stored = f"{second.running.web_url}/api/v1/results/{unknown.headers['x-request-id']}"
        assert httpx.get(stored, trust_env=False).json()["outcome"] == "unknown"
        assert ask(second.running, probe) == "image_01:Barack Obama"
        processes = second.descendants()
        os.kill(second.process.pid, signal.SIGKILL)
        assert poll_until(lambda: not any(map(alive, processes)), STOP_SECONDS)


def test_killed_emulator_is_started_again_with_its_state(tmp_path: Path, artefact_dir: Path) -> None:
    """So is every process that ended because of it."""
    portrait = next((CHECKOUT / "examples" / "gallery" / "Barack Obama").glob("*.jpg"))
    probe = CHECKOUT / "examples" / "probes" / "image_01.jpg"
    state = tmp_path / "state"
    with up(state, artefact_dir) as system:
        enrol(system.running, "Barack Obama", portrait)
        saved = state / "emulator" / "dynamodb.json"
        assert poll_until(lambda: saved.exists() and "Barack Obama" in saved.read_text(), 10)
        [emulator] = [pid for pid in system.descendants() if "ministack" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(emulator, signal.SIGKILL)
        assert poll_until(lambda: httpx.get(f"{system.running.web_url}/readyz", trust_env=False).is_success, 30)
        assert poll_until(lambda: ask(system.running, probe) == "image_01:Barack Obama", 60)
