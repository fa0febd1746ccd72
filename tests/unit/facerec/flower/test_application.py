"""Flower's options, password, database and workers; Flower itself runs in the e2e tests."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from celery.events.state import State
from pydantic import SecretStr, ValidationError
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from facerec.errors import ConfigurationError
from facerec.flower.application import Inspected, denied
from facerec.flower.command import configure
from facerec.settings.tiers import FlowerSettings


def configured(flower: FlowerSettings) -> tuple[Any, str | None]:
    """Flower's options, and the generated password."""
    options = SimpleNamespace()
    return options, configure(options, flower)


def test_password_is_generated_when_none_is_set() -> None:
    """A new one at each start, long enough."""
    options, made = configured(FlowerSettings())
    _, other = configured(FlowerSettings())
    assert made
    assert len(made) >= 20
    assert made != other
    assert options.basic_auth == [f"facerec:{made}"]
    assert options.address == "127.0.0.1"
    assert options.read_only is True


def test_set_password_is_used() -> None:
    """And not printed."""
    options, made = configured(FlowerSettings(user="ops", password=SecretStr("correct horse")))
    assert options.basic_auth == ["ops:correct horse"]
    assert made is None


def test_no_password_needs_loopback() -> None:
    """`auth="none"` on another address is rejected."""
    for host in ("::1", "127.0.0.2", "localhost", "LOCALHOST"):
        options, made = configured(FlowerSettings(auth="none", host=host))
        assert (options.basic_auth, made) == ([], None)
    for host in ("0.0.0.0", "flower.example"):  # noqa: S104 - refused
        with pytest.raises(ValidationError, match="loopback"):
            FlowerSettings(auth="none", host=host)


def asked(method: str = "GET", own_host: str = "127.0.0.1", **headers: str) -> int | None:
    """The status of a denied request to a Flower without a password, or None."""
    sent = HTTPHeaders({"Host": "127.0.0.1:5555"} | {name.replace("_", "-"): value for name, value in headers.items()})
    line = RequestStartLine(method, "/tasks", "HTTP/1.1")
    return denied(HTTPServerRequest(headers=sent, connection=MagicMock(), start_line=line), own_host)


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST.:5555", "[::1]:5555", "127.0.0.2:5555"])
def test_flower_without_password_answers_to_this_machines_names(host: str) -> None:
    """And to the address that it listens on."""
    assert asked(Host=host, own_host="127.0.0.2") is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:5555", "127.0.0.2", "0.0.0.0"])  # noqa: S104 - nothing is bound
def test_flower_without_password_refuses_other_names(host: str) -> None:
    """A foreign page may make its own name point here (DNS rebinding)."""
    assert asked(Host=host) == 421


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_flower_without_password_refuses_pages_of_other_sites(method: str, headers: dict[str, str]) -> None:
    """Whatever they ask for."""
    assert asked(method, **headers) == 403


def test_flower_without_password_may_be_linked_from_other_sites() -> None:
    """A browser then opens it; a posted form opens nothing."""
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert asked(**link) is None
    assert asked("POST", **link) == 403
    assert asked(Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors") is None


def test_short_password_is_rejected() -> None:
    """The error does not show it."""
    with pytest.raises(ValidationError) as info:
        FlowerSettings(password=SecretStr("hunter2"))
    assert "hunter2" not in str(info.value)


def test_database_that_others_may_write_is_rejected(tmp_path: Path) -> None:
    """It is a pickle."""
    folder = tmp_path / "flower"
    options, _ = configured(FlowerSettings(database=folder / "tasks"))
    assert (options.persistent, options.db) == (True, str(folder / "tasks"))
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "tasks.db").touch()
    (folder / "tasks.db").chmod(0o662)
    with pytest.raises(ConfigurationError, match="chmod"):
        configured(FlowerSettings(database=folder / "tasks"))
    (folder / "tasks.db").chmod(0o600)
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="FACEREC_FLOWER__DATABASE"):
        configured(FlowerSettings(database=folder / "tasks"))


def test_workers_are_built_from_events() -> None:
    """With the tasks that it received and started, and whether it is online."""
    state = State()
    common = {"hostname": "w@h", "timestamp": 1000.0, "local_received": 1000.0, "clock": 1, "pid": 7}
    state.event(common | {"type": "worker-online", "freq": 1e9, "processed": 5, "sw_ident": "py", "sw_ver": "1"})
    for uuid, kinds in {"a": ["received"], "b": ["received", "started"], "c": ["received", "succeeded"]}.items():
        for kind in kinds:
            state.event(common | {"type": f"task-{kind}", "uuid": uuid, "name": "n", "args": f"{uuid}.jpg"})
    workers = Inspected(lambda: state, ["requests", "faces"], "here").workers
    worker = workers["w@h"]
    assert [task["args"] for task in worker["reserved"]] == ["a.jpg"]
    assert [task["args"] for task in worker["active"]] == ["b.jpg"]
    assert [queue["name"] for queue in worker["active_queues"]] == ["requests", "faces"]
    assert worker["stats"]["pid"] == 7
    assert worker["stats"]["pool"]["online"] is True
