"""The story of one request, from its records and its objects."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from click.testing import CliRunner

from facerec.cli import cli
from facerec.errors import FacerecError
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import input_key, output_key
from facerec.observability.log_records import LogRecord
from facerec.observability.request_trace import Objects, find, story
from facerec.ports import StoredObject
from facerec.settings import Settings
from tests.fakes.object_store import InMemoryObjectStore

ID = UUID("00000000-0000-4000-8000-000000000001")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def after(milliseconds: float) -> datetime:
    """So long after noon."""
    return NOON + timedelta(milliseconds=milliseconds)


UPLOAD = LogRecord(
    after(1000),
    "upload",
    "web",
    {
        "request_id": str(ID),
        "outcome": "match",
        "status": 200,
        "filename": "jane.jpg",
        "bytes": 3,
        "took_in_ms": 80,
        "waited_ms": 400,
        "answered": True,
        "total_ms": 500,
        "level": "info",
    },
)
DELIVERY = LogRecord(
    after(950),
    "recognised",
    "worker i-1",
    {
        "request_id": str(ID),
        "outcome": "match",
        "attempt": 1,
        "total_ms": 250.0,
        "queued_ms": 90.0,
        "timings_ms": {"fetch": 20.0, "engine": 180.0, "wait": 5.0, "match": 1.0, "store": 30.0, "publish": 9.0},
        "faces": 1,
    },
)
RESULT = RecognitionResult(
    request_id=ID, result="Jane", filename="jane.jpg", outcome=Outcome.MATCH, completed_at=after(905)
)
PHOTO = StoredObject("in", input_key(ID, "jane.jpg"), 3, "image/jpeg", NOON)
STORED = StoredObject("out", output_key(ID, "jane.jpg"), 99, "application/json", NOON)


def test_records_become_steps_in_the_order_of_time() -> None:
    """The line at the end of an upload, and that of a delivery, tell of everything before them."""
    steps = story(ID, [UPLOAD, DELIVERY], None).steps
    assert [(step.at, step.what) for step in steps] == [
        (after(500), "upload received"),
        (after(600), "photo stored, task submitted"),
        (after(700), "task received, delivery 1"),
        (after(720), "photo fetched"),
        (after(900), "faces looked for"),
        (after(901), "faces compared with the gallery"),
        (after(931), "result stored"),
        (after(940), "result published"),
        (after(950), "delivery over: match"),
        (after(1000), "answered with 200"),
    ]
    assert steps[0].facts == {"filename": "jane.jpg", "bytes": 3}
    assert steps[4].facts == {"wait_ms": 5.0}
    assert steps[2].where == "worker i-1"


def test_objects_tell_what_they_are() -> None:
    """The photo not before its upload, though the store cuts the second off; the result with what it says."""
    steps = story(ID, [UPLOAD], Objects(PHOTO, STORED, RESULT)).steps
    assert [step.what for step in steps[:2]] == ["upload received", "photo lies there"]
    (result,) = [step for step in steps if step.what == "result lies there"]
    assert result.at == after(905)
    assert result.facts["outcome"] == "match"
    assert (result.facts["result"], result.facts["bytes"]) == ("Jane", 99)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"threshold_source": "model", "false_names": 0.01}, "0.6350, the model's for 332 people at 1 %"),
        (
            {"threshold_source": "model", "false_names": 0.01, "threshold_extrapolated": True},
            "0.6350, the model's for 332 people at 1 %, extrapolated",
        ),
        ({"threshold_source": "collection"}, "0.6350, the collection's, among 332 people"),
        ({"threshold_source": "request"}, "0.6350, the request's, among 332 people"),
    ],
)
def test_a_result_says_what_its_threshold_was_for(changes: dict[str, object], told: str) -> None:
    """Whose it was, for how many people, and at which share of strangers; earlier results say nothing."""
    known = RESULT.model_copy(update={"threshold": 0.635, "identities": 332, "more_faces": 2, **changes})
    result, earlier = (
        next(step for step in story(ID, [], Objects(PHOTO, STORED, one)).steps if step.what == "result lies there")
        for one in (known, RESULT)
    )
    assert (result.facts["threshold"], result.facts["more_faces"]) == (told, 2)
    assert "threshold" not in earlier.facts


def test_a_refused_upload_was_never_submitted() -> None:
    """It has a beginning and an end."""
    facts = {"outcome": "full", "status": 503, "filename": None, "bytes": None, "took_in_ms": None, "waited_ms": 0}
    refused = LogRecord(NOON, "upload", "web", facts | {"total_ms": 0})
    assert [step.what for step in story(ID, [refused], None).steps] == ["upload received", "answered with 503"]


def test_an_unknown_event_is_a_step_as_it_is() -> None:
    """Whatever a later version logs."""
    (step,) = story(
        ID, [LogRecord(NOON, "response_queue_missing", "worker", {"queue": "q", "level": "warning"})], None
    ).steps
    assert (step.what, step.facts) == ("response_queue_missing", {"queue": "q"})


def test_records_of_an_earlier_version_have_fewer_steps() -> None:
    """Without their lengths only the ends are known."""
    old = LogRecord(NOON, "upload", "web", {"status": 200, "outcome": "match", "waited_ms": 3})
    assert [step.what for step in story(ID, [old], None).steps] == ["answered with 200"]


def test_the_stage_that_failed_is_told_as_such() -> None:
    """It was timed like those that went well."""
    gone = {"outcome": "failed", "timings_ms": {"fetch": 3.0}, "reason": "no object"}
    told = [step.what for step in story(ID, [replace(DELIVERY, facts=DELIVERY.facts | gone)], None).steps]
    assert told == ["task received, delivery 1", "photo not fetched", "delivery over: failed"]
    waiting = {"outcome": "redelivered", "timings_ms": {"fetch": 3.0, "engine": 5.0, "match": 1.0, "store": 40.0}}
    told = [step.what for step in story(ID, [replace(DELIVERY, facts=DELIVERY.facts | waiting)], None).steps]
    assert told[-3:] == ["faces compared with the gallery", "result not stored", "delivery over: redelivered"]
    # A failure that was stored is answered with: that delivery went well.
    again = {"outcome": "failed", "timings_ms": {"publish": 3.0}, "computed_in_attempt": 1}
    told = [step.what for step in story(ID, [replace(DELIVERY, facts=DELIVERY.facts | again)], None).steps]
    assert told[-2:] == ["result published", "delivery over: failed"]


def test_it_says_where_to_look_further() -> None:
    """In the dead-letter queue, which must not be received from just to look; once, with what can be typed."""
    failed = LogRecord(NOON, "recognised", "worker", {"outcome": "failed", "reason": "it crashed"})
    gone_wrong = RESULT.model_copy(update={"outcome": Outcome.FAILED})
    for records, objects in (
        ([failed], None),
        ([failed], Objects(PHOTO, STORED, gone_wrong)),
        ([], Objects(PHOTO, STORED, gone_wrong)),
    ):
        (note,) = story(ID, records, objects).notes
        assert f"put aside: `facerec dlq show {ID}`" in note
    assert story(ID, [], Objects(PHOTO, STORED, RESULT)).notes == ()
    assert "a photo and no result" in story(ID, [], Objects(PHOTO)).notes[0]
    assert "cannot be read" in story(ID, [], Objects(PHOTO, STORED)).notes[0]


def test_after_a_redrive_it_is_no_dead_letter_any_more() -> None:
    """What came last counts, whether a log or the store tells it."""
    failed = LogRecord(NOON, "recognised", "worker", {"outcome": "failed", "reason": "it crashed"})
    assert story(ID, [DELIVERY, failed], None).notes == ()
    assert story(ID, [failed], Objects(PHOTO, STORED, RESULT)).notes == ()
    assert len(story(ID, [replace(failed, at=after(5000)), DELIVERY], Objects(PHOTO, STORED, RESULT)).notes) == 1


def test_objects_are_found_by_the_request_id() -> None:
    """And copies under the file's own name, where the settings make them; they may be another's."""
    settings = Settings(key_style="filename")
    store = InMemoryObjectStore(now=lambda: after(250))
    assert find(store, settings, ID).nothing
    store.put(settings.input_bucket, input_key(ID, "jane.jpg"), b"jpg", "image/jpeg")
    store.put(settings.output_bucket, output_key(ID, "jane.jpg"), RESULT.to_json().encode(), "application/json")
    store.put(settings.output_bucket, "jane", b"Jane", "text/plain")
    found = find(store, settings, ID)
    assert found.photo == StoredObject(settings.input_bucket, PHOTO.key, 3, "image/jpeg", NOON)
    assert found.result == RESULT
    assert [copy.key for copy in found.copies] == ["jane"]
    store.put(settings.output_bucket, output_key(ID, "jane.jpg"), b"{", "application/json")
    assert find(store, Settings(), ID).result is None
    assert find(store, Settings(), ID).copies == ()


def log_line(record: LogRecord) -> str:
    """As our processes write it."""
    return json.dumps(record.facts | {"timestamp": record.at.isoformat(), "event": record.event, "process": "worker"})


def test_the_command_prints_a_timeline(tmp_path: Path) -> None:
    """From files and from standard input, with what could not be read, and nothing that moves a terminal's cursor."""
    (tmp_path / "web.log").write_text(log_line(UPLOAD).replace("jane.jpg", r"\u001b[2Jjane.jpg") + "\n")
    told = CliRunner().invoke(
        cli,
        ["trace", str(ID), "--no-s3", "--logs", str(tmp_path), "--logs", "-"],
        input=log_line(DELIVERY).encode() + f"\n{ID} ".encode() + b"\xff\n",
    )
    assert told.exit_code == 0
    assert (
        told.output.index("upload received")
        < told.output.index("photo fetched")
        < told.output.index("answered with 200")
    )
    assert "no JSON records of ours: 1" in told.output
    assert "\x1b" not in told.output
    assert all(line == line.rstrip() for line in told.output.splitlines())


def test_the_command_prints_json() -> None:
    """For programs."""
    told = CliRunner().invoke(cli, ["trace", str(ID), "--no-s3", "--json", "--logs", "-"], input=log_line(DELIVERY))
    story = json.loads(told.output)
    assert story["request_id"] == str(ID)
    assert story["steps"][0] == {
        "at": after(700).isoformat(),
        "where": "worker",
        "what": "task received, delivery 1",
        "facts": {"queued_ms": 90.0},
    }


def test_an_unknown_request_ends_with_a_sentence() -> None:
    """And exit status 1."""
    told = CliRunner().invoke(cli, ["trace", str(ID), "--no-s3", "--logs", "-"], input="{}\n")
    assert isinstance(told.exception, FacerecError)
    assert f"nothing is known of request {ID} in the logs" in str(told.exception)
