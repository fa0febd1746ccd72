"""The story of one request: what its log records and its stored objects tell, step by step. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from facerec.errors import ObjectMissing
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import request_prefix
from facerec.observability.log_records import LogRecord
from facerec.ports import ObjectStore, StoredObject
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.text import for_people

_STAGES = {
    "fetch": ("photo fetched", "photo not fetched"),
    "engine": ("faces looked for", "looking for faces failed"),
    "match": ("faces compared with the gallery", "faces not compared with the gallery"),
    "store": ("result stored", "result not stored"),
    "publish": ("result published", "result not published"),
}
"""The worker's stages that follow one another, as `timings_ms` names them: what is told when they went well, or not."""
_IN_VAIN = frozenset({"failed", "redelivered", "error"})
_OVER = "delivery over: "
_PUT_ASIDE = frozenset({f"{_OVER}failed", f"{_OVER}dead_lettered"})
_WITHIN_ENGINE = ("wait", "decode", "detect", "embed")
_KNOWN = frozenset({"level", "request_id", "logger"})
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to the request."""

    at: datetime
    where: str
    what: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objects:
    """What the object store has of the request."""

    photo: StoredObject | None = None
    stored: StoredObject | None = None
    result: RecognitionResult | None = None
    """What `stored` says, where it can be read."""
    copies: tuple[StoredObject, ...] = ()
    """Objects under the file's own name: this request's, or those of a later one with the same name."""

    @property
    def nothing(self) -> bool:
        """Whether there is none."""
        return self.photo is None and self.stored is None


@dataclass(frozen=True, slots=True)
class Story:
    """The steps in the order of time, and what else there is to say."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def story(request_id: UUID, records: Iterable[LogRecord], objects: Objects | None, notes: Iterable[str] = ()) -> Story:
    """Put together what is known; without `objects` the store was not asked, or could not be."""
    steps = [step for record in records for step in _told(record)]
    if objects is not None:
        steps += _seen(objects, _received_at(steps))
    return Story(tuple(sorted(steps, key=lambda step: step.at)), (*notes, *_hints(request_id, steps, objects)))


def _told(record: LogRecord) -> Iterator[Step]:
    facts = {name: value for name, value in record.facts.items() if name not in _KNOWN}
    match record.event:
        case "upload":
            yield from _upload(record, facts)
        case "recognised":
            yield from _delivery(record, facts)
        case _:
            yield Step(record.at, record.process, record.event, facts)


_RECEIVED = "upload received"


def _upload(record: LogRecord, facts: dict[str, Any]) -> Iterator[Step]:
    total, took_in, waited = (_ms(facts.pop(name, None)) for name in ("total_ms", "took_in_ms", "waited_ms"))
    of_the_upload = {name: facts.pop(name) for name in ("filename", "bytes") if facts.get(name) is not None}
    if total is not None:
        yield Step(record.at - total, record.process, _RECEIVED, of_the_upload)
        of_the_upload = {}
    if took_in is not None and waited is not None:
        yield Step(record.at - waited, record.process, "photo stored, task submitted")
    yield Step(record.at, record.process, f"answered with {facts.pop('status', '?')}", of_the_upload | facts)


def _delivery(record: LogRecord, facts: dict[str, Any]) -> Iterator[Step]:
    total, attempt, timings = _ms(facts.pop("total_ms", None)), facts.pop("attempt", 1), facts.pop("timings_ms", None)
    timings = timings if isinstance(timings, dict) else {}
    if total is not None:
        at = record.at - total
        queued = {"queued_ms": facts.pop("queued_ms")} if "queued_ms" in facts else {}
        yield Step(at, record.process, f"task received, delivery {attempt}", queued)
        timed = {stage: took for stage in _STAGES if (took := _ms(timings.get(stage))) is not None}
        # Stages are timed however they end. One that had a result passed them all, though the result be a failure.
        in_vain = facts.get("outcome") in _IN_VAIN and "computed_in_attempt" not in facts
        failed = [*timed][-1] if timed and in_vain else None
        for stage, took in timed.items():
            at = min(at + took, record.at)
            inside = {f"{name}_ms": timings[name] for name in _WITHIN_ENGINE if name in timings}
            yield Step(at, record.process, _STAGES[stage][stage == failed], inside if stage == "engine" else {})
    yield Step(record.at, record.process, f"{_OVER}{facts.pop('outcome', '?')}", facts)


def _received_at(steps: Iterable[Step]) -> datetime | None:
    return min((step.at for step in steps if step.what == _RECEIVED), default=None)


def _seen(objects: Objects, received_at: datetime | None) -> Iterator[Step]:
    if (photo := objects.photo) is not None:
        yield Step(_not_before(received_at, photo), f"s3 {photo.bucket}", "photo lies there", _object(photo))
    if (stored := objects.stored) is not None:
        result = objects.result
        facts = {} if result is None else _result(result)
        at = stored.stored_at if result is None else result.completed_at
        yield Step(at, f"s3 {stored.bucket}", "result lies there", facts | _object(stored))
    for copy in objects.copies:
        of_the_photo = objects.photo is not None and copy.bucket == objects.photo.bucket
        first = received_at if of_the_photo or objects.result is None else objects.result.completed_at
        yield Step(_not_before(first, copy), f"s3 {copy.bucket}", "copy under the file's own name", _object(copy))


def _not_before(first: datetime | None, stored: StoredObject) -> datetime:
    """When an object was stored: the store cuts the second off, and something may be known to have come first."""
    at = stored.stored_at
    return first if first is not None and at < first < at + _SECOND else at


def _object(stored: StoredObject) -> dict[str, Any]:
    return {"key": stored.key, "bytes": stored.size, "type": stored.content_type}


def _result(result: RecognitionResult) -> dict[str, Any]:
    known = {
        "outcome": str(result.outcome),
        "result": result.result,
        "detail": result.detail,
        "faces": len(result.faces),
        "more_faces": result.more_faces or None,
        "threshold": _threshold(result),
        "engine": result.engine,
        "precision": result.precision,
        "model_id": result.model_id,
        "attempt": result.attempt,
        "timings_ms": result.timings_ms,
    }
    return {name: value for name, value in known.items() if value not in (None, "", {})}


def _threshold(result: RecognitionResult) -> str | None:
    """`0.6350, the model's for 332 people at 1 %`."""
    if result.threshold is None or result.identities is None:
        return None
    told = f"{result.threshold:.4f}, the {result.threshold_source}'s"
    if result.false_names is None:
        return f"{told}, among {result.identities} people"
    extrapolated = ", extrapolated" if result.threshold_extrapolated else ""
    return f"{told} {for_people(result.identities, result.false_names)}{extrapolated}"


def _hints(request_id: UUID, steps: Iterable[Step], objects: Objects | None) -> Iterator[str]:
    show = f"`facerec dlq show {request_id}`"
    if _put_aside(steps, None if objects is None else objects.result):
        yield f"it was put aside: {show} has the task with its reason, unless it was redriven or purged since"
    elif objects is not None and objects.stored is None and objects.photo is not None:
        yield f"there is a photo and no result: it waits, is worked on, or is a dead letter ({show})"
    elif objects is not None and objects.stored is not None and objects.result is None:
        yield "the stored result cannot be read by this version"


def _put_aside(steps: Iterable[Step], result: RecognitionResult | None) -> bool:
    """Whether what came last made it a dead letter: after a redrive an earlier end does not count."""
    last = max((step for step in steps if step.what.startswith(_OVER)), key=lambda step: step.at, default=None)
    if last is None or (result is not None and result.completed_at > last.at):
        return result is not None and result.outcome is Outcome.FAILED
    return last.what in _PUT_ASIDE


def _ms(value: Any) -> timedelta | None:
    return timedelta(milliseconds=value) if isinstance(value, int | float) else None


def find(store: ObjectStore, settings: Settings, request_id: UUID) -> Objects:
    """Look for the photo, the result and, where there are any, the copies; raises `Transient`, `ConfigurationError`."""
    prefix = request_prefix(request_id)
    photos = [*_described(store, settings.input_bucket, prefix)]
    results = [one for one in _described(store, settings.output_bucket, prefix) if one.key.endswith(".json")]
    stored = results[0] if results else None
    copies: list[StoredObject] = []
    if settings.key_style == "filename":
        names = [
            (one.bucket, one.key.removeprefix(prefix).removesuffix(".json")) for one in (*photos[:1], *results[:1])
        ]
        for bucket, name in names:
            try:
                copies.append(store.describe(bucket, name))
            except ObjectMissing:
                continue
    result = None if stored is None else stored_result(store, stored.bucket, stored.key)
    return Objects(photos[0] if photos else None, stored, result, tuple(copies))


def _described(store: ObjectStore, bucket: str, prefix: str) -> Iterator[StoredObject]:
    for key in store.keys(bucket, prefix):
        try:
            yield store.describe(bucket, key)
        except ObjectMissing:
            continue  # it expired between the two looks
