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


def test_only_one_system_runs_on_a_directory(tmp_path: Path) -> None:
    """The second is refused with the first one's process id."""
    with (
        StateDirectory(tmp_path).held(),
        pytest.raises(ConfigurationError, match=f"already runs on .* \\(process {os.getpid()}\\)"),
        StateDirectory(tmp_path).held(),
    ):
        pytest.fail("the directory was held twice")


def test_the_lock_of_a_killed_system_is_void(tmp_path: Path) -> None:
    """A crash leaves files behind, but neither the lock nor the claim that something runs."""
    script = (
        "import os, signal, sys; from pathlib import Path; from facerec.local.state import *\n"
        "state = StateDirectory(Path(sys.argv[1]))\n"
        "with state.held():\n"
        "    state.announce(Running(os.getpid(), '', '', {}))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    state = StateDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match="no local system runs"):
        state.running()
    with state.held(), pytest.raises(ConfigurationError, match="not ready yet"):
        state.running()


def test_what_runs_is_found_while_it_runs(tmp_path: Path) -> None:
    """The description is there from the announcement to the end."""
    state = StateDirectory(tmp_path)
    with state.held():
        state.announce(RUNNING)
        assert StateDirectory(tmp_path).running() == RUNNING
    with pytest.raises(ConfigurationError, match="facerec local up"):
        state.running()


def test_logs_of_the_last_run_stay(tmp_path: Path) -> None:
    """A new run begins with new logs and keeps the ones before."""
    state = StateDirectory(tmp_path)
    with state.held():
        (state.logs / "web.log").write_text("first")
    with state.held():
        assert [(log.name, log.read_text()) for log in state.logs.iterdir()] == [("web.log.1", "first")]


def test_exports_survive_a_shell(tmp_path: Path) -> None:
    """The printed lines set exactly the variables, whatever is in them, and forget the user's profile."""
    variables = {"FACEREC_MODEL__DIR": "/a b/'c' $HOME\n`d`", "AWS_DEFAULT_REGION": "eu-central-1"}
    script = f'{export_lines(variables)}\nprintf "%s|%s|%s" "$FACEREC_MODEL__DIR" "$AWS_DEFAULT_REGION" "$AWS_PROFILE"'
    shell = subprocess.run(
        ["/bin/sh", "-c", script], env={"AWS_PROFILE": "work"}, capture_output=True, text=True, check=True
    )
    assert shell.stdout == "/a b/'c' $HOME\n`d`|eu-central-1|"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost", "Localhost"])
def test_the_local_web_tier_is_open_on_loopback(host: str) -> None:
    """Unless the environment says otherwise."""
    assert web_variables(host, {})["FACEREC_WEB__AUTH"] == "open"
    assert web_variables(host, {"FACEREC_WEB__AUTH": "keys", "PATH": "/bin"})["FACEREC_WEB__AUTH"] == "keys"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "faces.example"])  # noqa: S104 - nothing is bound
def test_where_others_reach_it_the_local_web_tier_asks_for_keys(host: str) -> None:
    """It has to be said that everyone is served."""
    assert not {"FACEREC_WEB__AUTH", "FACEREC_WEB__RATE_LIMIT"} & web_variables(host, {}).keys()
    assert web_variables(host, {"FACEREC_WEB__AUTH": "open"})["FACEREC_WEB__AUTH"] == "open"


def variables_of(environ: dict[str, str], *, workers: int | None, settings: Settings | None = None) -> dict[str, str]:
    """What the parts of a system are told."""
    return system_variables(
        settings or Settings(),
        environ,
        emulator_url="http://127.0.0.1:4566",
        image_id="ami-1",
        web_port=8001,
        workers=workers,
    )


def test_what_opens_the_local_web_tier_and_passwords_stay_out_of_the_file() -> None:
    """`facerec local env` gives it to other commands; what else the environment says of ours is passed on."""
    secret = {"FACEREC_WEB__AUTH": "open", "FACEREC_WEB__RATE_LIMIT": "", "FACEREC_FLOWER__PASSWORD": "correct horse"}
    variables = variables_of(secret | {"FACEREC_REPLY_STYLE": "name", "PATH": "/bin"}, workers=1)
    assert not {*secret, "PATH"} & variables.keys()
    assert variables["FACEREC_REPLY_STYLE"] == "name"
    assert variables["FACEREC_WEB__PORT"] == "8001"


@pytest.mark.parametrize(("workers", "engines"), [(1, None), (2, "1"), (None, "1")])
def test_only_a_worker_alone_has_an_engine_for_each_core(workers: int | None, engines: str | None) -> None:
    """Unless the environment says otherwise."""
    assert variables_of({}, workers=workers).get("FACEREC_WORKER__ENGINES") == engines
    assert variables_of({"FACEREC_WORKER__ENGINES": "3"}, workers=workers)["FACEREC_WORKER__ENGINES"] == "3"


def test_the_local_system_always_logs_that_a_worker_is_ready() -> None:
    """It waits for the record."""
    quiet = Settings(log=LogSettings(level="error"))
    environ = {"FACEREC_LOG__LEVEL": "error"}
    assert variables_of(environ, workers=1, settings=quiet)["FACEREC_LOG__LEVEL"] == "info"


def test_nothing_of_a_real_account_reaches_the_emulated_one() -> None:
    """Credentials, profile and proxies of the user do not pass; the rest of the environment does."""
    user = {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "t", "NO_PROXY": "intranet", "PATH": "/bin"}
    environ = without_aws(user) | emulated_variables("http://127.0.0.1:4566", user)
    assert environ["PATH"] == "/bin"
    assert "AWS_PROFILE" not in environ
    assert "AWS_SESSION_TOKEN" not in environ
    assert environ["FACEREC_AWS__ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert environ["NO_PROXY"] == "intranet,127.0.0.1,localhost"
    assert environ["AWS_CONFIG_FILE"] == os.devnull
