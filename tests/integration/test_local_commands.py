"""`facerec provision` and the errors of `facerec local`."""

import json
from pathlib import Path

from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import run


def test_provision_prints_the_state_of_each_resource(emulator: EmulatedAws) -> None:
    """Created by the first run, unchanged by the second."""
    environ = emulator.environ | {"FACEREC_PREFIX": "by-command"}
    first, second = run("provision", environ=environ), run("provision", "--json", environ=environ)
    assert (first.returncode, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    assert [line.split()[0] for line in lines if "note:" not in line] == ["created"] * 15
    assert sum("is left out, because http://127.0.0.1:" in line for line in lines) == 4  # one for each bucket
    assert {json.loads(line)["state"] for line in second.stdout.splitlines()} == {"unchanged"}
    assert json.loads(second.stdout.splitlines()[4]) == {
        "kind": "queue",
        "name": "by-command-req-queue-dlq",
        "state": "unchanged",
        "notes": [],
    }


def test_provision_without_aws_prints_one_line(fresh: Settings, emulator: EmulatedAws) -> None:
    """The endpoint does not answer."""
    environ = environ_of(fresh, emulator.environ) | {"FACEREC_AWS__ENDPOINT_URL": "http://127.0.0.1:9"}
    result = run("provision", environ=environ)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("facerec: could not provision bucket")


def test_env_without_a_system_names_the_command_to_start_one(emulator: EmulatedAws, tmp_path: Path) -> None:
    """On standard error; standard output goes to `eval`."""
    result = run("local", "env", "--state", str(tmp_path), environ=emulator.environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert "start one with `facerec local up`" in result.stderr


def test_up_without_a_model_names_the_command_to_build_one(emulator: EmulatedAws, tmp_path: Path) -> None:
    """It builds and starts nothing."""
    environ = emulator.environ | {"FACEREC_MODEL__DIR": str(tmp_path / "none")}
    result = run("local", "up", "--state", str(tmp_path / "state"), environ=environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert "facerec model build" in result.stderr
    assert not (tmp_path / "state").exists()


def test_functions_alone_have_no_number_of_workers(emulator: EmulatedAws, tmp_path: Path, artefact_dir: Path) -> None:
    """Nothing is started."""
    environ = emulator.environ | {"FACEREC_MODEL__DIR": str(artefact_dir)}
    state = str(tmp_path / "state")
    result = run("local", "up", "--tier", "serverless", "--workers", "1", "--state", state, environ=environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert "leave --workers out" in result.stderr
