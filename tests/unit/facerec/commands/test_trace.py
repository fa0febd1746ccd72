"""`facerec trace` on logs of a test."""

import json
from pathlib import Path

from click.testing import CliRunner

from facerec.cli import cli
from facerec.errors import FacerecError

ID = "00000000-0000-4000-8000-000000000001"


def line(event: str, at: str, **fields: object) -> str:
    """A log record as a worker writes it."""
    record = {"event": event, "timestamp": f"2026-11-01T12:00:{at}+00:00", "process": "worker", "request_id": ID}
    return json.dumps(record | fields)


UPLOAD = line("upload", "01", filename="jane.jpg", status=200, took_in_ms=80, waited_ms=400, total_ms=500)
DELIVERY = line("recognised", "00.950", outcome="match", total_ms=250.0, queued_ms=90.0, timings_ms={"fetch": 20.0})


def test_trace_prints_a_timeline(tmp_path: Path) -> None:
    """From files and standard input, with a note on other lines, and without control characters."""
    (tmp_path / "web.log").write_text(UPLOAD.replace("jane.jpg", r"\u001b[2Jjane.jpg") + "\n")
    printed = CliRunner().invoke(
        cli,
        ["trace", ID, "--no-s3", "--logs", str(tmp_path), "--logs", "-"],
        input=DELIVERY.encode() + f"\n{ID} ".encode() + b"\xff\n",
    )
    assert printed.exit_code == 0
    assert (
        printed.output.index("upload received")
        < printed.output.index("photo fetched")
        < printed.output.index("answered with 200")
    )
    assert "are not JSON records of facerec: 1" in printed.output
    assert "\x1b" not in printed.output
    assert all(line == line.rstrip() for line in printed.output.splitlines())


def test_trace_prints_json() -> None:
    """For programs."""
    printed = CliRunner().invoke(cli, ["trace", ID, "--no-s3", "--json", "--logs", "-"], input=DELIVERY)
    story = json.loads(printed.output)
    assert story["request_id"] == ID
    assert story["steps"][0] == {
        "at": "2026-11-01T12:00:00.700000+00:00",
        "where": "worker",
        "what": "task received, delivery 1",
        "facts": {"queued_ms": 90.0},
    }


def test_trace_of_an_unknown_request_fails_with_one_sentence() -> None:
    """The exit status is 1."""
    printed = CliRunner().invoke(cli, ["trace", ID, "--no-s3", "--logs", "-"], input="{}\n")
    assert isinstance(printed.exception, FacerecError)
    assert f"nothing is known of request {ID} in the logs" in str(printed.exception)
