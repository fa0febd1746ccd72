"""One request, from its log records and its stored objects."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from facerec.errors import ConfigurationError
from facerec.messages import Face, LeftOut, Outcome, RecognitionResult, ResultBox
from facerec.object_keys import input_key, output_key
from facerec.observability.request_trace import (
    LogRecord,
    Objects,
    advice,
    find_objects,
    lines_of,
    log_files,
    records_of,
    timeline,
)
from facerec.ports import StoredObject
from facerec.settings import Settings
from tests.fakes.object_store import InMemoryObjectStore

ID = UUID("00000000-0000-4000-8000-000000000001")
OTHER = UUID("00000000-0000-4000-8000-000000000002")
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def after(milliseconds: float) -> datetime:
    """The time so many milliseconds after noon."""
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


def test_timeline_has_the_steps_of_each_record_in_order() -> None:
    """One record at the end of an upload or delivery holds the times of all its steps."""
    steps = timeline([UPLOAD, DELIVERY], None)
    assert [(step.at, step.what) for step in steps] == [
        (after(500), "upload received"),
        (after(580), "photo stored, task submitted"),
        (after(700), "task received, delivery 1"),
        (after(720), "photo fetched"),
        (after(900), "faces detected and embedded"),
        (after(901), "faces compared with the gallery"),
        (after(931), "result stored"),
        (after(940), "result published"),
        (after(950), "delivery ended: match"),
        (after(1000), "answered with 200"),
    ]
    assert steps[0].facts == {"filename": "jane.jpg", "bytes": 3}
    assert steps[8].facts["timings_ms"] == DELIVERY.fields["timings_ms"]
    assert steps[2].where == "worker i-1"


def test_timeline_has_the_photo_after_the_upload_and_the_result_with_its_content() -> None:
    """The store cuts the second off, so the photo would come before its upload."""
    steps = timeline([UPLOAD], Objects(PHOTO, STORED, RESULT))
    assert [step.what for step in steps[:2]] == ["upload received", "photo in the store"]
    (result,) = [step for step in steps if step.what == "result in the store"]
    assert result.at == after(905)
    assert result.facts["outcome"] == "match"
    assert (result.facts["result"], result.facts["bytes"]) == ("Jane", 99)


def test_timeline_of_a_frame_of_a_device_names_the_device() -> None:
    """No photo of it is in the store; what is known is the result."""
    result = RESULT.model_copy(update={"thing": "camera-1", "captured_at": NOON})
    (step,) = timeline([], Objects(None, STORED, result))
    assert step.what == "result in the store"
    assert step.facts["thing"] == "camera-1"
    assert datetime.fromisoformat(step.facts["captured_at"]) == NOON
    assert list(advice(ID, [], Objects(None, STORED, result))) == []


@pytest.mark.parametrize(
    ("changes", "steps"),
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
def test_result_step_says_what_its_threshold_was_for(changes: dict[str, object], steps: str) -> None:
    """Its source, for how many people, and at which share of strangers; earlier results have none."""
    known = RESULT.model_copy(update={"threshold": 0.635, "identities": 332, "more_faces": 2, **changes})
    result, earlier = (
        next(step for step in timeline([], Objects(PHOTO, STORED, one)) if step.what == "result in the store")
        for one in (known, RESULT)
    )
    assert (result.facts["threshold"], result.facts["more_faces"]) == (steps, 2)
    assert "threshold" not in earlier.facts


def test_result_step_says_which_people_a_rule_excluded() -> None:
    """Of the primary face, in words."""
    left_out = (
        LeftOut(identity="Jane", similarity=0.72, reason="other_face"),
        LeftOut(identity="June", similarity=0.7, reason="rejected"),
    )
    face = Face(box=ResultBox(x_min=0, y_min=0, x_max=9, y_max=9), probability=0.9, landmarks=(), left_out=left_out)
    known = RESULT.model_copy(update={"faces": (face,)})
    (step,) = [s for s in timeline([], Objects(PHOTO, STORED, known)) if s.what == "result in the store"]
    assert step.facts["left_out"] == (
        "Jane 0.7200 is another face of the picture; June 0.7000 was said to be somebody else"
    )


def test_refused_upload_has_no_submission() -> None:
    """It has two steps."""
    facts = {"outcome": "full", "status": 503, "filename": None, "bytes": None, "took_in_ms": None, "waited_ms": 0}
    refused = LogRecord(NOON, "upload", "web", facts | {"total_ms": 0})
    assert [step.what for step in timeline([refused], None)] == ["upload received", "answered with 503"]


def test_unknown_event_is_one_step() -> None:
    """Later versions may log other events."""
    record = LogRecord(NOON, "response_queue_missing", "worker", {"queue": "q", "level": "warning"})
    (step,) = timeline([record], None)
    assert (step.what, step.facts, step.failed) == ("response_queue_missing", {"queue": "q"}, True)


def test_upload_record_without_durations_is_one_step() -> None:
    """Only its end is known."""
    old = LogRecord(NOON, "upload", "web", {"status": 200, "outcome": "match", "waited_ms": 3})
    assert [step.what for step in timeline([old], None)] == ["answered with 200"]


def test_last_stage_of_a_failed_delivery_is_marked() -> None:
    """It is timed like the completed ones."""
    gone = {"outcome": "failed", "timings_ms": {"fetch": 3.0}, "reason": "no object"}
    steps = [step.what for step in timeline([replace(DELIVERY, fields=DELIVERY.fields | gone)], None)]
    assert steps == ["task received, delivery 1", "fetch failed", "delivery ended: failed"]
    waiting = {"outcome": "redelivered", "timings_ms": {"fetch": 3.0, "engine": 5.0, "match": 1.0, "store": 40.0}}
    steps = [step.what for step in timeline([replace(DELIVERY, fields=DELIVERY.fields | waiting)], None)]
    assert steps[-3:] == ["faces compared with the gallery", "store failed", "delivery ended: redelivered"]
    # A failure that was stored is answered with: that delivery went well.
    again = {"outcome": "failed", "timings_ms": {"publish": 3.0}, "computed_in_attempt": 1}
    steps = [step.what for step in timeline([replace(DELIVERY, fields=DELIVERY.fields | again)], None)]
    assert steps[-2:] == ["result published", "delivery ended: failed"]


def test_advice_says_where_to_look_further() -> None:
    """With the command to type; the dead-letter queue is not read, for a look counts as a receive."""
    failed = LogRecord(NOON, "recognised", "worker", {"outcome": "failed", "reason": "it crashed"})
    gone_wrong = RESULT.model_copy(update={"outcome": Outcome.FAILED})
    for records, objects in (
        ([failed], None),
        ([failed], Objects(PHOTO, STORED, gone_wrong)),
        ([], Objects(PHOTO, STORED, gone_wrong)),
    ):
        (note,) = advice(ID, records, objects)
        assert f"a dead letter: `facerec dlq show {ID}`" in note
    assert [*advice(ID, [], Objects(PHOTO, STORED, RESULT))] == []
    assert "a photo and no result" in next(advice(ID, [], Objects(PHOTO)))
    assert "cannot read" in next(advice(ID, [], Objects(PHOTO, STORED)))


def test_advice_after_a_redrive_follows_the_last_delivery() -> None:
    """The last one counts, whether a log or the store has it."""
    failed = LogRecord(NOON, "recognised", "worker", {"outcome": "failed", "reason": "it crashed"})
    assert [*advice(ID, [DELIVERY, failed], None)] == []
    assert [*advice(ID, [failed], Objects(PHOTO, STORED, RESULT))] == []
    assert len([*advice(ID, [replace(failed, at=after(5000)), DELIVERY], Objects(PHOTO, STORED, RESULT))]) == 1


def test_objects_are_found_by_the_request_id() -> None:
    """Without a result that this version cannot read."""
    settings, store = Settings(), InMemoryObjectStore(now=lambda: after(250))
    assert find_objects(store, settings, ID) == Objects()
    store.put(settings.input_bucket, input_key(ID, "jane.jpg"), b"jpg", "image/jpeg")
    store.put(settings.output_bucket, output_key(ID, "jane.jpg"), RESULT.to_json().encode(), "application/json")
    found = find_objects(store, settings, ID)
    assert found.photo == StoredObject(settings.input_bucket, PHOTO.key, 3, "image/jpeg", NOON)
    assert found.result == RESULT
    store.put(settings.output_bucket, output_key(ID, "jane.jpg"), b"{", "application/json")
    unreadable = find_objects(store, settings, ID)
    assert (unreadable.stored is None, unreadable.result) == (False, None)


def line(**fields: object) -> str:
    """A line as a worker writes it."""
    record = {"event": "recognised", "timestamp": "2026-11-01T12:00:00.5Z", "process": "worker", "level": "info"}
    return json.dumps(record | fields)


def test_records_of_a_request_have_time_event_process_and_fields() -> None:
    """The instance is part of the process's name."""
    (record,) = records_of([line(request_id=str(OTHER)), line(request_id=str(ID), attempt=2, instance_id="i-1")], ID)
    assert record is not None
    assert record.at == datetime(2026, 11, 1, 12, 0, 0, 500_000, UTC)
    assert (record.event, record.process) == ("recognised", "worker i-1")
    assert record.fields == {"request_id": str(ID), "attempt": 2, "level": "info"}


def test_records_of_a_batch_belong_to_each_of_its_requests() -> None:
    """The engines' supervisor writes all request ids into its record."""
    (record,) = records_of([line(event="batch_failed", request_ids=[str(OTHER), str(ID)])], ID)
    assert record is not None
    assert record.event == "batch_failed"


@pytest.mark.parametrize(
    "before", ["Nov 22 05:00:00 host facerec-worker[12]: ", "worker-1  | ", "2026-11-22T05:00:00.000Z "]
)
def test_text_before_a_record_is_skipped(before: str) -> None:
    """As journalctl, Docker and CloudWatch write it."""
    (record,) = records_of([before + line(request_id=str(ID))], ID)
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
def test_lines_that_are_no_records_of_facerec_are_none(foreign: str) -> None:
    """The command counts them."""
    assert list(records_of([foreign], ID)) == [None]


def test_record_with_a_traceback_keeps_the_error_only() -> None:
    """The frames stay in the log."""
    frames = [{"exc_type": "RuntimeError", "exc_value": "a bug", "frames": [{"filename": "x"}]}]
    (record,) = records_of([line(request_id=str(ID), exception=frames)], ID)
    assert record is not None
    assert record.fields["error"] == "RuntimeError: a bug"
    assert "frames" not in str(record.fields)


def test_log_files_of_a_folder_include_rotated_and_compressed_ones(tmp_path: Path) -> None:
    """Also in folders below; other files are left out."""
    (tmp_path / "below").mkdir()
    (tmp_path / "web.log").write_text("a\n")
    (tmp_path / "web.log.1").write_text("b\n")
    with gzip.open(tmp_path / "below" / "worker.log.2.gz", "wt") as file:
        file.write("c\n")
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8")
    files = log_files(tmp_path)
    assert [file.name for file in files] == ["worker.log.2.gz", "web.log", "web.log.1"]
    assert [text for file in files for text in lines_of(file)] == ["c\n", "a\n", "b\n"]


def test_unreadable_logs_are_named(tmp_path: Path) -> None:
    """A missing folder and a damaged file."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        log_files(tmp_path / "nowhere")
    broken = tmp_path / "broken.log.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(ConfigurationError, match=r"broken\.log\.gz"):
        list(lines_of(broken))
