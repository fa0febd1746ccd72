"""Celery's events on the wire: many in one SQS message, numbered by their sender. Pure.

A body is JSON: `version`, `source` (a random name of the sending process), `sequence` (1, 2, 3 …), `lost` (how many
events the process has dropped so far) and `events`. Readers skip what they cannot read.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

Event = dict[str, Any]

_VERSION = 1
_MAX_BATCH_BYTES = 200_000
"""Below the limit of every SQS queue, 256 KiB. AWS charges a request for each 64 KiB."""
_MAX_EVENT_BYTES = 16_000
_MAX_TEXT = 2_000
_MAX_MISSING = 1_000
_MISSING_SECONDS = 60.0
_SILENT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The content of one message."""

    source: str
    sequence: int
    lost: int
    events: tuple[Event, ...]


def packed(events: Sequence[Event], lose: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Yield JSON arrays of events, each for one message; a value that is no JSON becomes its `repr`.

    Long texts (a traceback) are cut. `lose` is called for an event that is still too large, or cannot be written.
    """
    parts: list[str] = []
    size = 0
    for event in events:
        try:
            text = json.dumps(event, default=repr)
            if len(text) > _MAX_EVENT_BYTES:
                text = json.dumps({name: _short(value) for name, value in event.items()}, default=repr)
        except Exception:  # noqa: BLE001 - it may hold anything, itself included, and `repr` may raise
            text = None
        if text is None or len(text) > _MAX_EVENT_BYTES:
            lose()
            continue
        if size + len(text) > _MAX_BATCH_BYTES:
            yield f"[{','.join(parts)}]"
            parts, size = [], 0
        parts.append(text)
        size += len(text) + 1
    if parts:
        yield f"[{','.join(parts)}]"


def body(source: str, sequence: int, lost: int, events: str) -> str:
    """The body of a message, with one of the arrays of `packed`; ASCII."""
    head = json.dumps({"version": _VERSION, "source": source, "sequence": sequence, "lost": lost})
    return f'{head[:-1]}, "events": {events}}}'


def parse(text: str) -> EventBatch:
    """Read a body; raises `ValueError` if it is not one. Events that Celery could not use are left out."""
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise ValueError("not a batch of events")
    source, sequence, lost, events = (content.get(name) for name in ("source", "sequence", "lost", "events"))
    if not (isinstance(source, str) and isinstance(sequence, int) and isinstance(lost, int)):
        raise ValueError("a batch of events without its number")  # noqa: TRY004 - of the text, not of an argument
    if not isinstance(events, list):
        raise ValueError("a batch without events")  # noqa: TRY004 - as above
    return EventBatch(source, sequence, lost, tuple(event for event in events if _usable(event)))


def _usable(event: Any) -> bool:
    """Whether Celery's `State` can take it without an error."""
    if not isinstance(event, dict):
        return False
    kind = event.get("type")
    if not isinstance(kind, str) or not isinstance(event.get("hostname"), str):
        return False
    if not all(isinstance(event.get(name), int | float) and isfinite(event[name]) for name in ("timestamp", "clock")):
        return False
    if kind.startswith("task-"):
        return isinstance(event.get("uuid"), str) and isinstance(event.get("name"), str | None)
    return kind.startswith("worker-") and isinstance(event.get("freq"), int | float)


def _short(value: Any) -> Any:
    return f"{value[:_MAX_TEXT]}…" if isinstance(value, str) and len(value) > _MAX_TEXT else value


@dataclass(slots=True)
class _Source:
    first: int
    highest: int
    lost: int
    seen_at: float
    missing: dict[int, float] = field(default_factory=dict)


class BatchTracker:
    """Notes which batches have come: SQS delivers some twice, in any order, and some to another reader."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._sources: dict[str, _Source] = {}

    def is_new(self, batch: EventBatch) -> bool:
        """Note a batch; returns whether it is new."""
        now = self._now()
        source = self._sources.get(batch.source)
        if source is None:
            self._sources[batch.source] = _Source(batch.sequence, batch.sequence, batch.lost, now)
            return True
        source.seen_at = now
        if batch.sequence > source.highest:
            gap = range(source.highest + 1, batch.sequence)[-_MAX_MISSING:]
            source.missing |= dict.fromkeys(gap, now)
            source.highest = batch.sequence
            return True
        # A batch that was sent before the first one here counts as new.
        return source.missing.pop(batch.sequence, None) is not None or batch.sequence < source.first

    def newly_lost(self, batch: EventBatch) -> int:
        """How many more events this batch's sender has dropped than its earlier batches reported."""
        source = self._sources[batch.source]
        more = max(0, batch.lost - source.lost)
        source.lost += more
        return more

    def overdue(self) -> int:
        """How many batches have been missing for a minute, each counted once; forgets silent senders."""
        now = self._now()
        count = 0
        for name, source in list(self._sources.items()):
            late = [number for number, since in source.missing.items() if now - since > _MISSING_SECONDS]
            for number in late:
                del source.missing[number]
            count += len(late)
            if now - source.seen_at > _SILENT_SECONDS:
                del self._sources[name]
        return count
