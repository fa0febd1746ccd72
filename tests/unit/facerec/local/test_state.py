"""The state directory of a local system, and its variables."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from facerec.errors import ConfigurationError
from facerec.local.environment import emulated_variables, export_lines, system_variables, web_variables, without_aws
from facerec.local.state import Running, StateDirectory
from facerec.settings import Settings
from facerec.settings.tiers import LogSettings

RUNNING = Running("http://127.0.0.1:8000", "http://127.0.0.1:4566", {"FACEREC_WEB__PORT": "8000"})


def bind(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


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
        "    state.announce(Running('', '', {}))\n"
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


def test_logs_before_the_last_run_are_removed(tmp_path: Path) -> None:
    """Names of instances do not come back, so their logs would pile up."""
    state = StateDirectory(tmp_path)
    for name in ("i-1", "i-2", "i-3"):
        with state.locked():
            (state.logs / f"{name}.log").write_text(name)
    assert {log.name for log in state.logs.iterdir()} == {"i-3.log", "i-2.log.1"}


def mode(path: Path) -> int:
    """The permissions."""
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("former", [None, 0o755])
def test_directory_is_for_its_user_alone(tmp_path: Path, former: int | None) -> None:
    """Also one that an earlier version has made."""
    path = tmp_path / "deep" / "state"
    if former is not None:
        path.mkdir(former, parents=True)
    state = StateDirectory(path)
    with state.locked():
        state.announce(RUNNING)
        assert [mode(folder) for folder in (path, state.logs, state.emulator)] == [0o700] * 3
        assert [mode(path / name) for name in ("lock", "running.json")] == [0o600] * 2


@contextmanager
def running_system(path: Path) -> Iterator[None]:
    """A system that runs on the directory."""
    with StateDirectory(path).locked():
        StateDirectory(path).announce(RUNNING)
        yield


def refuse(path: Path, reason: str) -> None:
    """Check that the directory is neither read nor used."""
    for use in (StateDirectory(path).running, StateDirectory(path).locked().__enter__):
        with pytest.raises(ConfigurationError, match=f"{reason}.*--state"):
            use()


@pytest.mark.parametrize("writable", [0o770, 0o720, 0o702, 0o1777])
def test_directory_that_others_may_write_is_refused(tmp_path: Path, writable: int) -> None:
    """They could choose what `eval "$(facerec local env)"` runs."""
    with running_system(tmp_path):
        tmp_path.chmod(writable)
        refuse(tmp_path, "others may write .*chmod -R go-w")
        tmp_path.chmod(0o700)
        assert StateDirectory(tmp_path).running() == RUNNING


def test_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its permissions are."""
    with running_system(tmp_path):
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        refuse(tmp_path, "another user")


def test_symbolic_link_is_refused_as_a_directory(tmp_path: Path) -> None:
    """It may lead anywhere, and be changed at any time."""
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with running_system(tmp_path / "state"):
        refuse(tmp_path / "link", "symbolic link")
    for part in ("logs", "emulator"):
        other = tmp_path / f"without-{part}"
        other.mkdir()
        (other / part).symlink_to(tmp_path)
        with pytest.raises(ConfigurationError, match="symbolic link"), StateDirectory(other).locked():
            pytest.fail("it was used")


@pytest.mark.parametrize("name", ["lock", "running.json"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null"), bind])
def test_file_that_is_no_file_is_refused(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    """A pipe would be waited for, a link would be followed."""
    with running_system(tmp_path):
        (tmp_path / name).unlink()
        make(tmp_path / name)
        with pytest.raises(ConfigurationError, match="--state"):
            StateDirectory(tmp_path).running()
        (tmp_path / name).rename(tmp_path / "moved")


@pytest.mark.parametrize("name", ["lock", "running.json", "running.tmp", "emulator", "logs/web.log.1"])
def test_start_says_what_is_in_the_way(tmp_path: Path, name: str) -> None:
    """A folder where a file belongs, or the reverse."""
    way = tmp_path / name
    way.parent.mkdir(exist_ok=True)
    way.touch() if name == "emulator" else way.mkdir()
    state = StateDirectory(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{name}.*--state"), state.locked():
        state.announce(RUNNING)


def test_description_does_not_follow_a_link(tmp_path: Path) -> None:
    """Neither to its name nor to the one that it is written under."""
    (tmp_path / "precious").write_text("precious")
    state = StateDirectory(tmp_path / "state")
    with state.locked():
        for name in ("running.tmp", "running.json"):
            (state.path / name).symlink_to(tmp_path / "precious")
        state.announce(RUNNING)
        assert state.running() == RUNNING
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"\xff", b'{"web_url": ""}', b'{"web_url": "", "emulator_url": "", "variables": {"A": 1}}'],
)
def test_unreadable_description_is_one_sentence(tmp_path: Path, text: bytes) -> None:
    """Another version may have written it."""
    state = StateDirectory(tmp_path)
    with state.locked():
        (tmp_path / "running.json").write_bytes(text)
        with pytest.raises(ConfigurationError, match=r"running\.json cannot be read"):
            state.running()


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "LD_PRELOAD",
        "BASH_ENV",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "FACEREC_NO_SETTING",
        "FACEREC_WEB__PORT;touch /tmp/x;A",
        "FACEREC_WEB__PORT\n",
        "$(touch /tmp/x)",
        "",
    ],
)
def test_export_lines_set_no_other_variables(name: str) -> None:
    """A shell runs the lines."""
    with pytest.raises(ConfigurationError, match="does not set"):
        export_lines({"FACEREC_WEB__PORT": "8000", name: "x"})


def test_export_lines_name_no_aws_configuration_of_others() -> None:
    """It could name a command to run (`credential_process`)."""
    lines = export_lines({"AWS_CONFIG_FILE": "/home/evil"}).splitlines()
    assert "export AWS_CONFIG_FILE=/dev/null" in lines
    assert not [line for line in lines if "evil" in line]


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
        app_tier="both",
    )


def test_system_variables_hold_no_password_and_do_not_open_the_web_tier() -> None:
    """`facerec local env` gives them to other commands; our other variables are passed on."""
    opening = {"FACEREC_WEB__AUTH": "open", "FACEREC_WEB__RATE_LIMIT": ""}
    secret = opening | {"FACEREC_FLOWER__PASSWORD": "correct horse", "FACEREC_CLIENT__KEY": "key"}
    secret["FACEREC_CALLBACKS__SECRET"] = "a secret of thirty-two characters"
    variables = variables_of(secret | {"FACEREC_REPLY_STYLE": "name", "PATH": "/bin"}, workers=1)
    assert not {*secret, "PATH"} & variables.keys()
    assert variables["FACEREC_REPLY_STYLE"] == "name"
    assert variables["FACEREC_WEB__PORT"] == "8001"
    assert variables["FACEREC_APP_TIER"] == "both"


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
