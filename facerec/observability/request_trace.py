"""What became of one request: its log records and its stored objects, as steps in the order of time."""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from facerec.errors import ConfigurationError, ObjectMissing
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import request_prefix
from facerec.ports import ObjectStore, StoredObject
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.text import for_people

_LOG_NAMES = ("*.log", "*.log.*", "*.jsonl", "*.jsonl.*")
_HIDDEN = frozenset({"level", "logger", "request_id", "total_ms"})
_DEAD = frozenset({str(Outcome.FAILED), "dead_lettered"})
_STAGE_FAILED = frozenset({str(Outcome.FAILED), "redelivered", "error"})
"""Outcomes of a delivery whose last stage failed."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A JSON record of a facerec process; `fields` is all that is not in the other attributes."""

    at: datetime
    event: str
    process: str
    """Its name, and the EC2 instance if there is one."""
    fields: dict[str, Any]


class Objects(NamedTuple):
    """The objects of a request in the store; `result` is the content of `stored`, if this version can read it."""

    photo: StoredObject | None = None
    stored: StoredObject | None = None
    result: RecognitionResult | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the request."""

    at: datetime
    where: str
    what: str
    facts: dict[str, Any] = field(default_factory=dict)
    failed: bool = False


def log_files(path: Path) -> list[Path]:
    """Return the file, or the log files below a folder; raises `ConfigurationError` if there is neither."""
    if path.is_dir():
        return sorted({file for pattern in _LOG_NAMES for file in path.rglob(pattern) if file.is_file()})
    if path.is_file():
        return [path]
    raise ConfigurationError(f"there are no logs at {path}: name a file or a folder with --logs")


def lines_of(file: Path) -> Iterator[str]:
    """Yield the lines of a file, plain or compressed by gzip; raises `ConfigurationError`."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rt", encoding="utf-8", errors="replace") as lines:
            yield from lines
    except (OSError, EOFError) as exc:
        raise ConfigurationError(f"cannot read {file}: {exc}") from exc


def records_of(lines: Iterable[str], request_id: UUID) -> Iterator[LogRecord | None]:
    """Yield the record of each line that names the request; `None` for a line that is not a record of facerec.

    journalctl, Docker and CloudWatch may have written something before the record.
    """
    wanted = str(request_id)
    return (_parse(line) for line in lines if wanted in line)


def _parse(line: str) -> LogRecord | None:
    try:
        entry = json.loads(line[line.index("{") :])
        at = datetime.fromisoformat(entry.pop("timestamp"))
        event = str(entry.pop("event"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if at.tzinfo is None:
        return None
    process, instance = entry.pop("process", ""), entry.pop("instance_id", None)
    if isinstance(exception := entry.pop("exception", None), list) and exception:
        # The traceback stays in the log.
        entry["error"] = f"{exception[0].get('exc_type')}: {exception[0].get('exc_value')}"
    return LogRecord(at, event, f"{process} {instance}" if instance else str(process), entry)


def find_objects(store: ObjectStore, settings: Settings, request_id: UUID) -> Objects:
    """Find the objects of a request; raises `Transient` and `ConfigurationError`."""
    photo = _first(store, settings.input_bucket, request_id)
    stored = _first(store, settings.output_bucket, request_id, ".json")
    return Objects(photo, stored, None if stored is None else stored_result(store, stored.bucket, stored.key))


def _first(store: ObjectStore, bucket: str, request_id: UUID, ending: str = "") -> StoredObject | None:
    for key in store.keys(bucket, request_prefix(request_id)):
        if key.endswith(ending):
            with suppress(ObjectMissing):  # it may expire after it was listed
                return store.describe(bucket, key)
    return None


@dataclass(frozen=True, slots=True)
class Event:
    """The steps in a record that ends an upload or a delivery: a beginning, stages in their order, and an end."""

    begin: str
    begin_facts: tuple[str, ...]
    stages: Mapping[str, str]
    """By the name of their duration, in `timings_ms` or the record itself."""
    end: str


EVENTS = {
    "upload": Event(
        "upload received",
        ("filename", "bytes", "operation"),
        {"took_in_ms": "photo stored, task submitted"},
        "answered with {status}",
    ),
    "recognised": Event(
        "task received, delivery {attempt}",
        ("queued_ms",),
        {
            "fetch": "photo fetched",
            "engine": "faces detected and embedded",
            "match": "faces compared with the gallery",
            "write": "gallery changed",
            "store": "result stored",
            "publish": "result published",
        },
        "delivery ended: {outcome}",
    ),
}
"""Every other event is one step."""


def timeline(records: Iterable[LogRecord], objects: Objects | None) -> list[Step]:
    """Return the steps in the order of time; `objects` is `None` if the store was not read."""
    steps = [step for record in records for step in _steps(record)]
    if objects is not None:
        steps += _object_steps(objects, min((step.at for step in steps), default=None))
    return sorted(steps, key=lambda step: step.at)


def _steps(record: LogRecord) -> Iterator[Step]:
    event, fields = EVENTS.get(record.event), {"attempt": 1, "status": None, "outcome": None} | record.fields
    facts = {name: value for name, value in record.fields.items() if name not in _HIDDEN}
    outcome, total = fields["outcome"], fields.get("total_ms")
    failed = outcome in _STAGE_FAILED | _DEAD or fields.get("level") in {"warning", "error", "critical"}
    if event is None or not isinstance(total, int | float):
        what = record.event if event is None else event.end.format_map(fields)
        yield Step(record.at, record.process, what, facts, failed)
        return
    at = record.at - timedelta(milliseconds=total)
    first = {name: facts.pop(name) for name in event.begin_facts if facts.get(name) is not None}
    yield Step(at, record.process, event.begin.format_map(fields), first)
    timings = fields.get("timings_ms", fields)
    stages = [stage for stage in event.stages if timings.get(stage) is not None]
    for stage in stages:
        at = min(at + timedelta(milliseconds=timings[stage]), record.at)
        # The last stage failed, unless the delivery answered with the stored result of an earlier one.
        bad = stage == stages[-1] and outcome in _STAGE_FAILED and "computed_in_attempt" not in fields
        yield Step(at, record.process, f"{stage} failed" if bad else event.stages[stage], failed=bad)
    yield Step(record.at, record.process, event.end.format_map(fields), facts, failed)


def _object_steps(objects: Objects, first: datetime | None) -> Iterator[Step]:
    if (photo := objects.photo) is not None:
        at = photo.stored_at
        if first is not None and at < first < at + timedelta(seconds=1):
            at = first  # the store cuts the second off, and the photo is not older than the upload
        yield Step(at, f"s3 {photo.bucket}", "photo in the store", _size(photo))
    if (stored := objects.stored) is not None:
        result = objects.result
        at, facts = (stored.stored_at, {}) if result is None else (result.completed_at, _content(result))
        yield Step(at, f"s3 {stored.bucket}", "result in the store", facts | _size(stored))


def _size(stored: StoredObject) -> dict[str, Any]:
    return {"key": stored.key, "bytes": stored.size, "type": stored.content_type}


def _content(result: RecognitionResult) -> dict[str, Any]:
    names = {"outcome", "result", "detail", "more_faces", "engine", "precision", "model_id", "attempt", "timings_ms"}
    names |= {"thing", "captured_at", "operation", "refusal"}
    facts = result.model_dump(mode="json", include=names) | {"faces": len(result.faces)}
    if result.operation == "recognise":
        del facts["operation"]
    facts["enrolled"] = [f"{each.identity}: {each.status}" for each in result.enrolments]
    shown = {name: value for name, value in facts.items() if value or name == "faces"}
    return shown | _threshold(result) | _rules(result)


def _threshold(result: RecognitionResult) -> dict[str, str]:
    """`0.6350, the model's for 332 people at 1 %`."""
    if result.threshold is None or result.identities is None:
        return {}
    text = f"{result.threshold:.4f}, the {result.threshold_source}'s"
    if result.false_names is None:
        return {"threshold": f"{text}, among {result.identities} people"}
    extrapolated = ", extrapolated" if result.threshold_extrapolated else ""
    return {"threshold": f"{text} {for_people(result.identities, result.false_names)}{extrapolated}"}


def _rules(result: RecognitionResult) -> dict[str, str]:
    """`Ada 0.7200 is another face`, of the people that a rule excludes for the primary face."""
    words = {"other_face": "is another face of the picture", "rejected": "was said to be somebody else"}
    texts = [
        f"{each.identity} {each.similarity:.4f} {words.get(each.reason, each.reason)}"
        for face in result.faces[:1]
        for each in face.left_out
    ]
    return {"left_out": "; ".join(texts)} if texts else {}


def advice(request_id: UUID, records: Iterable[LogRecord], objects: Objects | None) -> Iterator[str]:
    """Yield where to look further."""
    photo, stored, result = objects or Objects()
    show = f"`facerec dlq show {request_id}`"
    last = max((r for r in records if r.event == "recognised"), key=lambda record: record.at, default=None)
    # After a redrive an earlier failure does not count.
    if last is None or (result is not None and result.completed_at > last.at):
        dead = result is not None and result.outcome is Outcome.FAILED
    else:
        dead = last.fields.get("outcome") in _DEAD
    if dead:
        yield f"it is a dead letter: {show} has the task with its reason, unless it was redriven or purged since"
    elif photo is not None and stored is None:
        yield f"there is a photo and no result: the task waits, is in flight, or is a dead letter ({show})"
    elif stored is not None and result is None:
        yield "this version cannot read the stored result"
