"""`facerec recognise` as a child process, against a web tier on a port."""

import csv
import io
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from facerec.api_keys import Scope, issue
from facerec.client import Client
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import answers, picture, result_for
from tests.support.processes import CHECKOUT, facerec, run
from tests.support.served_web_tier import ServedWebTier, serve_web_tier


@pytest.fixture(scope="module")
def web() -> Iterator[ServedWebTier]:
    """A server whose worker knows Ada."""
    with serve_web_tier(working=True) as served:
        with Client(served.url) as client:
            client.photos.add("Ada Lovelace", photo("Ada"))
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos, one of them in a folder within, a file that is none, and a hidden one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "ada.jpg").write_bytes(photo("Ada"))
    (tmp_path / "in" / "grace.jpg").write_bytes(photo("Grace"))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.jpg").write_bytes(photo("Ada"))
    return tmp_path


def own_environ(**variables: str) -> dict[str, str]:
    """The environment without settings of the user, and with these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FACEREC_")} | variables


def recognise(*arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return run("recognise", *map(str, arguments), environ=own_environ(**variables))


def test_recognise_prints_a_line_for_each_photo_and_a_summary(web: ServedWebTier, folder: Path) -> None:
    """The lines are those of the upload; what failed is on standard error."""
    done = recognise("--folder", folder, FACEREC_CLIENT__URL=web.url)
    assert sorted(done.stdout.splitlines()) == [
        "ada.jpg: face detected - Ada Lovelace",
        "grace.jpg: face not recognized",
    ]
    assert f"{folder}/notes.txt: " in done.stderr
    assert "3 photos: 1 match, 1 unknown, 1 failed" in done.stderr
    assert done.returncode == 1


def test_recognise_of_good_photos_has_exit_status_zero(web: ServedWebTier, folder: Path) -> None:
    """In the other style of lines, too, and in a collection where nobody is enrolled."""
    photos = folder / "ada.jpg", folder / "in" / "grace.jpg"
    done = recognise(*photos, "--url", web.url, FACEREC_REPLY_STYLE="name")
    assert (sorted(done.stdout.splitlines()), done.returncode) == (["ada:Ada Lovelace", "grace:Unknown"], 0)
    empty = recognise(folder / "ada.jpg", "--url", web.url, "--collection", "empty")
    assert empty.stdout == "ada.jpg: face not recognized\n"


def test_recognise_writes_rows_as_json_lines_and_csv(web: ServedWebTier, folder: Path) -> None:
    """With the columns of a job's report."""
    rows = [json.loads(line) for line in recognise("--folder", folder, "--url", web.url, "--json").stdout.splitlines()]
    by_name = {Path(row["file"]).name: row for row in rows}
    assert by_name["ada.jpg"]["result"] == "Ada Lovelace"
    assert by_name["notes.txt"]["outcome"] == "invalid_image"
    text = recognise("--folder", folder, "--url", web.url, "--csv").stdout
    table = {Path(row["file"]).name: row for row in csv.DictReader(io.StringIO(text))}
    assert {name: row["status"] for name, row in table.items()} == {
        "ada.jpg": "done",
        "grace.jpg": "done",
        "notes.txt": "failed",
    }
    assert float(table["ada.jpg"]["similarity"]) == pytest.approx(1, abs=0.001)


def test_wrong_use_is_refused(web: ServedWebTier, tmp_path: Path) -> None:
    """Before anything is sent."""
    assert recognise("--url", web.url).returncode == 2
    assert recognise("--url", web.url, "--folder", tmp_path).returncode == 2
    assert recognise("--url", web.url, tmp_path / "missing.jpg").returncode == 2


def test_refused_key_ends_the_command_at_once(folder: Path) -> None:
    """Every other photo would be refused, too; the right key is read from its setting."""
    key, token = issue("holiday", [Scope.RECOGNISE], now=datetime.now(UTC))
    with serve_web_tier(answers("Jane"), InMemoryApiKeys(key)) as web:
        refused = recognise("--folder", folder, "--url", web.url, "--concurrency", "1")
        assert refused.returncode == 1
        assert "API key" in refused.stderr
        assert "3 not done" in refused.stderr
        done = recognise(folder / "ada.jpg", FACEREC_CLIENT__KEY=token.reveal(), FACEREC_CLIENT__URL=web.url)
        assert done.stdout == "ada.jpg: face detected - Jane\n"


def test_interrupt_prints_what_is_done(tmp_path: Path) -> None:
    """The photos in work are not waited for."""
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").write_bytes(picture())
    with serve_web_tier(shutdown_seconds=1) as web:
        process = subprocess.Popen(
            facerec("recognise", "--folder", str(tmp_path), "--url", web.url, "--concurrency", "2"),
            cwd=CHECKOUT,
            env=own_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            [first, _] = web.tier.tasks.await_count(2, 30)
            web.tier.work(first, result_for(first, "Jane"))
            assert process.stdout is not None
            assert process.stdout.readline() == f"{first.filename}: face detected - Jane\n"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "1 photo: 1 match; 19 not done" in errors
    assert "Traceback" not in errors
