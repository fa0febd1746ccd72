"""The state directory of a local system, and its variables."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from facerec.errors import ConfigurationError
from facerec.local.environment import emulated_variables, export_lines, system_variables, web_variables, without_aws
from facerec.local.state import Running, StateDirectory
from facerec.settings import Settings
from facerec.settings.tiers import LogSettings

RUNNING = Running(4711, "http://127.0.0.1:8000", "http://127.0.0.1:4566", {"FACEREC_WEB__PORT": "8000"})


def test_directory_is_held_by_one_system(tmp_path: Path) -> None:
    """The error for the second names the first one's process id."""
    with (
        StateDirectory(tmp_path).locked(),
        pytest.raises(ConfigurationError, match=f"already runs on .* \\(process {os.getpid()}\\)"),
        StateDirectory(tmp_path).locked(),
    ):
        pytest.fail("the directory was held twice")


def test_lock_of_a_killed_system_is_released(tmp_path: Path) -> None:
    """Its files remain, but they do not say that it runs."""
    script = (
        "import os, signal, sys; from pathlib import Path; from facerec.local.state import *\n"
        "state = StateDirectory(Path(sys.argv[1]))\n"
        "with state.locked():\n"
        "    state.announce(Running(os.getpid(), '', '', {}))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    state = StateDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match="no local system runs"):
        state.running()
    with state.locked(), pytest.raises(ConfigurationError, match="not ready yet"):
        state.running()


def test_description_is_found_while_the_system_runs(tmp_path: Path) -> None:
    """From the announcement to the end."""
    state = StateDirectory(tmp_path)
    with state.locked():
        state.announce(RUNNING)
        assert StateDirectory(tmp_path).running() == RUNNING
    with pytest.raises(ConfigurationError, match="facerec local up"):
        state.running()


def test_logs_of_the_last_run_are_kept(tmp_path: Path) -> None:
    """Under another name."""
    state = StateDirectory(tmp_path)
    with state.locked():
        (state.logs / "web.log").write_text("first")
    with state.locked():
        assert [(log.name, log.read_text()) for log in state.logs.iterdir()] == [("web.log.1", "first")]


def test_export_lines_set_the_variables_in_a_shell(tmp_path: Path) -> None:
    """With any characters in their values; the user's AWS profile is unset."""
    variables = {"FACEREC_MODEL__DIR": "/a b/'c' $HOME\n`d`", "AWS_DEFAULT_REGION": "eu-central-1"}
    script = f'{export_lines(variables)}\nprintf "%s|%s|%s" "$FACEREC_MODEL__DIR" "$AWS_DEFAULT_REGION" "$AWS_PROFILE"'
    shell = subprocess.run(
        ["/bin/sh", "-c", script], env={"AWS_PROFILE": "work"}, capture_output=True, text=True, check=True
    )
    assert shell.stdout == "/a b/'c' $HOME\n`d`|eu-central-1|"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "Localhost"])
def test_web_tier_is_open_on_loopback(host: str) -> None:
    """Unless the environment sets another way."""
    assert web_variables(host, {})["FACEREC_WEB__AUTH"] == "open"
    assert web_variables(host, {"FACEREC_WEB__AUTH": "keys", "PATH": "/bin"})["FACEREC_WEB__AUTH"] == "keys"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "faces.example"])  # noqa: S104 - nothing is bound
def test_web_tier_that_others_reach_asks_for_keys(host: str) -> None:
    """Unless the environment opens it."""
    assert not {"FACEREC_WEB__AUTH", "FACEREC_WEB__RATE_LIMIT"} & web_variables(host, {}).keys()
    assert web_variables(host, {"FACEREC_WEB__AUTH": "open"})["FACEREC_WEB__AUTH"] == "open"


def variables_of(environ: dict[str, str], *, workers: int | None, settings: Settings | None = None) -> dict[str, str]:
    """The variables of a system's parts."""
    return system_variables(
        settings or Settings(),
        environ,
        emulator_url="http://127.0.0.1:4566",
        image_id="ami-1",
        web_port=8001,
        workers=workers,
    )


def test_system_variables_hold_no_password_and_do_not_open_the_web_tier() -> None:
    """`facerec local env` gives them to other commands; our other variables are passed on."""
    secret = {"FACEREC_WEB__AUTH": "open", "FACEREC_WEB__RATE_LIMIT": "", "FACEREC_FLOWER__PASSWORD": "correct horse"}
    variables = variables_of(secret | {"FACEREC_REPLY_STYLE": "name", "PATH": "/bin"}, workers=1)
    assert not {*secret, "PATH"} & variables.keys()
    assert variables["FACEREC_REPLY_STYLE"] == "name"
    assert variables["FACEREC_WEB__PORT"] == "8001"


@pytest.mark.parametrize(("workers", "engines"), [(1, None), (2, "1"), (None, "1")])
def test_only_a_single_worker_has_an_engine_for_each_core(workers: int | None, engines: str | None) -> None:
    """Unless the environment sets a number."""
    assert variables_of({}, workers=workers).get("FACEREC_WORKER__ENGINES") == engines
    assert variables_of({"FACEREC_WORKER__ENGINES": "3"}, workers=workers)["FACEREC_WORKER__ENGINES"] == "3"


def test_log_level_is_at_most_info() -> None:
    """The system waits for the record that a worker is ready."""
    quiet = Settings(log=LogSettings(level="error"))
    environ = {"FACEREC_LOG__LEVEL": "error"}
    assert variables_of(environ, workers=1, settings=quiet)["FACEREC_LOG__LEVEL"] == "info"


def test_commands_for_the_emulator_do_not_use_the_real_account() -> None:
    """The user's credentials, profile and proxies are removed; the rest of the environment stays."""
    user = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "t", "NO_PROXY": "intranet", "PATH": "/bin"}
    environ = without_aws(user) | emulated_variables("http://127.0.0.1:4566", user)
    assert environ["PATH"] == "/bin"
    assert "AWS_PROFILE" not in environ
    assert "AWS_SESSION_TOKEN" not in environ
    assert environ["FACEREC_AWS__ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environ["AWS_CONFIG_FILE"] == os.devnull
