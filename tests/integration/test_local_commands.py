"""The commands about the local system and its resources, as a person runs them."""

import json
from pathlib import Path

from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import run


def test_provision_says_what_it_did(emulator: EmulatedAws) -> None:
    """One line for each resource: created at first, unchanged from then on."""
    environ = emulator.environ | {"FACEREC_PREFIX": "by-command"}
    first, second = run("provision", environ=environ), run("provision", "--json", environ=environ)
    assert (first.returncode, first.stderr) == (0, "")
    assert [line.split()[0] for line in first.stdout.splitlines()] == ["created"] * 11
    assert {json.loads(line)["state"] for line in second.stdout.splitlines()} == {"unchanged"}
    assert json.loads(second.stdout.splitlines()[0]) == {
        "kind": "bucket",
        "name": "by-command-in-bucket",
        "state": "unchanged",
        "notes": [],
    }


def test_provision_without_aws_is_one_line(fresh: Settings, emulator: EmulatedAws) -> None:
    """An endpoint where nobody answers is told in one sentence."""
    environ = environ_of(fresh, emulator.environ) | {"FACEREC_AWS__ENDPOINT_URL": "http://127.0.0.1:9"}
    result = run("provision", environ=environ)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("facerec: could not provision bucket")


def test_env_without_a_running_system_says_how_to_start_one(emulator: EmulatedAws, tmp_path: Path) -> None:
    """There is nothing to point at yet."""
    result = run("local", "env", "--state", str(tmp_path), environ=emulator.environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert "start one with `facerec local up`" in result.stderr


def test_up_without_a_model_says_how_to_get_one(emulator: EmulatedAws, tmp_path: Path) -> None:
    """Nothing is built behind one's back, and nothing is started in vain."""
    environ = emulator.environ | {"FACEREC_MODEL__DIR": str(tmp_path / "none")}
    result = run("local", "up", "--state", str(tmp_path / "state"), environ=environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert "facerec model build" in result.stderr
    assert not (tmp_path / "state").exists()
