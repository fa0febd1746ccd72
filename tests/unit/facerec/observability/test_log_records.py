"""Reading back what our processes logged."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from facerec.errors import ConfigurationError
from facerec.observability.log_records import lines_of, log_files, mentions

ID = UUID("00000000-0000-4000-8000-000000000001")
OTHER = UUID("00000000-0000-4000-8000-000000000002")


def line(**facts: object) -> str:
    """A record as a worker writes it."""
    record = {"event": "recognised", "timestamp": "2026-11-01T12:00:00.5Z", "process": "worker", "level": "info"}
    return json.dumps(record | facts)


def test_a_record_of_the_request_is_found() -> None:
    """With its time, its event, where it comes from, and its facts."""
    (record,) = mentions([line(request_id=str(OTHER)), line(request_id=str(ID), attempt=2, instance_id="i-1")], ID)
    assert record is not None
    assert record.at == datetime(2026, 11, 1, 12, 0, 0, 500_000, UTC)
    assert (record.event, record.process) == ("recognised", "worker i-1")
    assert record.facts == {"request_id": str(ID), "attempt": 2, "level": "info"}


def test_a_batch_belongs_to_each_of_its_requests() -> None:
    """The engines' supervisor names them all."""
    (record,) = mentions([line(event="batch_failed", request_ids=[str(OTHER), str(ID)])], ID)
    assert record is not None
    assert record.event == "batch_failed"


@pytest.mark.parametrize(
    "before", ["Nov 22 05:00:00 host facerec-worker[12]: ", "worker-1  | ", "2026-11-22T05:00:00.000Z "]
)
def test_what_stands_before_a_record_is_skipped(before: str) -> None:
    """As journalctl, Docker and CloudWatch write it."""
    (record,) = mentions([before + line(request_id=str(ID))], ID)
    assert record is not None


@pytest.mark.parametrize(
    "foreign",
    [
        f"12:00:00 [info] recognised request_id={ID}",
        f'"PUT /facerec-in-bucket/{ID}/a.jpg HTTP/1.1" 200',
        f'{{"message": "{ID}"}}',
        line(request_id=str(ID))[:-1],
        f'["{ID}", {{}}]',
        line(request_id=str(ID), timestamp="yesterday"),
        line(request_id=str(ID), timestamp="2026-11-01T12:00:00"),
        line(request_id=str(ID), timestamp=12),
    ],
    ids=["console", "another program's", "another's JSON", "cut off", "a list", "no time", "no zone", "a number"],
)
def test_other_lines_that_mention_it_are_told_apart(foreign: str) -> None:
    """They are counted, and end nothing."""
    assert list(mentions([foreign], ID)) == [None]


def test_of_a_traceback_the_error_is_kept() -> None:
    """Its frames are for the log."""
    frames = [{"exc_type": "RuntimeError", "exc_value": "a bug", "frames": [{"filename": "x"}]}]
    (record,) = mentions([line(request_id=str(ID), exception=frames)], ID)
    assert record is not None
    assert record.facts["error"] == "RuntimeError: a bug"
    assert "frames" not in str(record.facts)


def test_logs_of_a_folder(tmp_path: Path) -> None:
    """Also rotated and compressed ones, and those in folders below; nothing else."""
    (tmp_path / "below").mkdir()
    (tmp_path / "web.log").write_text("a\n")
    (tmp_path / "web.log.1").write_text("b\n")
    with gzip.open(tmp_path / "below" / "worker.log.2.gz", "wt") as file:
        file.write("c\n")
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8")
    files = log_files(tmp_path)
    assert [file.name for file in files] == ["worker.log.2.gz", "web.log", "web.log.1"]
    assert [text for file in files for text in lines_of(file)] == ["c\n", "a\n", "b\n"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        log_files(tmp_path / "nowhere")
    broken = tmp_path / "broken.log.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(ConfigurationError, match=r"broken\.log\.gz"):
        list(lines_of(broken))
