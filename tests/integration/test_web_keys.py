"""`facerec web` with API keys, as an operator and a client use it: real commands, against the emulator."""

import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from facerec import bootstrap
from facerec.api_keys import Scope, issue, revoked
from facerec.messages import NO_FACE, Outcome, RecognitionResult
from facerec.settings import Settings
from facerec.stored_results import store_result
from facerec.web.auth.request_ids import new_request_id
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import CHECKOUT, descendants, facerec, run

NOBODYS = f"frk_{'0' * 12}_{'A' * 43}"
TLS = ssl.create_default_context()
"""Shared, because making one takes long; it is not used, since the tests speak plain HTTP."""


def client(url: str) -> httpx.Client:
    """A client that keeps its connection."""
    return httpx.Client(base_url=url, timeout=60, trust_env=False, verify=TLS)


class Web:
    """A running `facerec web` and its log."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                facerec("web"), cwd=CHECKOUT, env=dict(environ), stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._log = log
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.client = client(self.url)

    def status(self, key: str | None = None, path: str = "/api/v1/results/00000000-0000-0000-0000-000000000000") -> int:
        """Ask for a result, with a key or without; again while the keys, on a busy machine, cannot be read in time."""
        deadline = time.monotonic() + 60
        while True:
            status = self.client.get(path, headers={} if key is None else {"x-api-key": key}).status_code
            if status != 503 or time.monotonic() > deadline:
                return status

    def logged(self) -> str:
        """The whole log so far."""
        return self._log.read_text()


@contextmanager
def web(environ: Mapping[str, str], log: Path) -> Iterator[Web]:
    """A ready `facerec web`, ended afterwards."""
    command = Web(environ, log)
    try:
        assert command.status(path="/readyz") == 200, command.logged()
        yield command
    finally:
        command.client.close()
        command.process.terminate()
        try:
            command.process.wait(30)
        finally:
            command.process.kill()


@pytest.fixture
def environ(emulator: EmulatedAws, fresh: Settings) -> dict[str, str]:
    """The environment of a `facerec web` with default access, and of `facerec keys`."""
    variables = {"FACEREC_WEB__PORT": "0", "FACEREC_QUEUE__WAIT_TIME_SECONDS": "1", "FACEREC_LOG__FORMAT": "json"}
    inherited = {name: value for name, value in emulator.environ.items() if name != "FACEREC_WEB__AUTH"}
    return environ_of(fresh, inherited) | variables


def run_keys(environ: Mapping[str, str], *arguments: str) -> str:
    """A key as `facerec keys` prints it."""
    ended = run("keys", *arguments, environ=environ)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_keys_work_in_every_process_until_they_are_revoked(
    environ: dict[str, str], fresh: Settings, tmp_path: Path
) -> None:
    """Keys are the default; after a rotation both secrets work, and read the key's earlier results."""
    key = run_keys(environ, "create", "kiosk", "--scope", "recognise")
    new = run_keys(environ, "rotate", key.split("_")[1])
    record, token = issue("gone", [Scope.ADMIN], now=datetime.now(UTC))
    store, gone = bootstrap.api_keys(fresh), token.reveal()
    asker, (other, reader), (boss, admin) = (
        store.get(key.split("_")[1]),
        *(issue(scope, [scope], now=datetime.now(UTC)) for scope in (Scope.RECOGNISE, Scope.ADMIN)),
    )
    store.put(other)
    store.put(boss)
    request_id = new_request_id(asker)
    result = RecognitionResult(
        request_id=request_id, result=NO_FACE, filename="a.jpg", outcome=Outcome.NO_FACE, completed_at=datetime.now(UTC)
    )
    store_result(bootstrap.object_store(fresh), fresh.output_bucket, result)
    store.put(record)
    store.put(revoked(record, datetime.now(UTC)))
    with web(environ | {"FACEREC_WEB__PROCESSES": "2"}, tmp_path / "log") as command:
        assert len(descendants(command.process.pid, "--response-queue")) == 2
        for _ in range(4):
            command.client.close()  # the next connection may be another process's
            command.client = client(command.url)
            assert [command.status(text) for text in (None, NOBODYS, gone, key, new)] == [401, 401, 401, 404, 404]
            readers = (key, new, reader.reveal(), admin.reveal())
            assert [command.status(text, f"/api/v1/results/{request_id}") for text in readers] == [200, 200, 404, 200]
        assert '"auth": "keys"' in command.logged()
        assert not [text for text in (key, gone, new, NOBODYS) if text.split("_", 2)[2] in command.logged()]


def test_log_and_reply_never_quote_a_key(environ: dict[str, str], fresh: Settings, tmp_path: Path) -> None:
    """Denied requests are logged with their reason."""
    record, token = issue("kiosk", [Scope.RECOGNISE], now=datetime.now(UTC))
    bootstrap.api_keys(fresh).put(record)
    wrong = f"frk_{token.key_id}_{'A' * 43}"
    with web(environ, tmp_path / "log") as command:
        assert [command.status(text) for text in (None, wrong, NOBODYS, token.reveal())] == [401, 401, 401, 404]
        denied = [json.loads(line) for line in command.logged().splitlines() if '"request_denied"' in line]
        assert [line["reason"] for line in denied] == ["no_key", "wrong_key", "wrong_key"]
        assert token.secret not in command.logged()


def test_open_server_on_every_address_logs_a_warning(environ: dict[str, str], tmp_path: Path) -> None:
    """And serves every client."""
    opened = {"FACEREC_WEB__AUTH": "open", "FACEREC_WEB__HOST": "0.0.0.0"}  # noqa: S104 - that is the point
    with web(environ | opened, tmp_path / "log") as command:
        assert command.status() == 404
        assert '"open_to_everyone"' in command.logged()
        assert '"proxy_expected"' in command.logged()


def test_start_without_the_key_table_says_what_to_do(environ: dict[str, str]) -> None:
    """In one line."""
    ended = run("web", environ=environ | {"FACEREC_NAMES__KEYS_TABLE": "no-such-table"})
    assert ended.returncode == 1
    assert ended.stderr.startswith("facerec: ")
    assert "facerec provision" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
