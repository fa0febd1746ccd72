"""What the `facerec dlq` commands share: the queue with what belongs to it, and how its letters are told."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from facerec import bootstrap
from facerec.commands.terminal import tracked
from facerec.dead_letters import BodySender, DeadLetter, DeadLetterQueue
from facerec.messages import RecognitionRequest
from facerec.object_keys import output_key, request_prefix
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.text import one_line as plain

_REASON_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Shelf:
    """The dead-letter queue and what belongs to it."""

    settings: Settings
    dead: DeadLetterQueue
    requests: BodySender
    store: ObjectStore

    @classmethod
    def of(cls, given: "Shelf | None") -> "Shelf":
        """What is given (click's object), else as the settings name them."""
        if given is not None:
            return given
        from facerec.aws.sqs.dead_letter_queue import SqsBodySender, SqsDeadLetterQueue

        settings = Settings.load()
        clients = bootstrap.clients(settings)
        return cls(
            settings,
            SqsDeadLetterQueue(clients, settings.dead_letter_queue),
            SqsBodySender(clients, settings.request_queue),
            bootstrap.object_store(settings),
        )

    @contextmanager
    def looked_at(self, chosen: Callable[[DeadLetter], bool], limit: int | None = None) -> Iterator[list[DeadLetter]]:
        """Those that are chosen among all, the oldest failure first; they are hidden from others within the block."""
        with self.dead.look(limit) as letters:
            found = [letter for letter in tracked(letters, "looking", total=self.dead.count()) if chosen(letter)]
            yield sorted(found, key=lambda letter: letter.failed_at)


def facts(letter: DeadLetter) -> dict[str, Any]:
    """All that the message tells of itself, for JSON."""
    request = letter.request
    return {
        "request_id": letter.request_id,
        "message_id": letter.message_id,
        "reason": letter.reason,
        "failed_at": letter.failed_at.isoformat(),
        "sent_at": letter.sent_at.isoformat(),
        "receives": letter.receives,
        "bytes": len(letter.body),
        "task": letter.task is not None,
        "filename": request.filename if request else None,
        "collection": request.collection if request else None,
        "submitted_at": request.submitted_at.isoformat() if request else None,
        "reply_to": request.reply_to if request else None,
    }


def surroundings(shelf: Shelf, request: RecognitionRequest | None) -> dict[str, Any]:
    """What the store has of the request."""
    if request is None:
        return {"input": None, "input_stored": None, "result": None}
    # Only below the request's own prefix of our own bucket: the message may say anything.
    there = shelf.store.keys(shelf.settings.input_bucket, request_prefix(request.request_id))
    key = output_key(request.request_id, request.filename)
    result = stored_result(shelf.store, shelf.settings.output_bucket, key)
    return {
        "input": f"s3://{request.input.bucket}/{request.input.key}",
        "input_stored": request.input.bucket == shelf.settings.input_bucket and request.input.key in there,
        "result": None
        if result is None
        else {"outcome": result.outcome, "detail": result.detail, "name": result.result},
    }


def name_of(letter: DeadLetter) -> str:
    """By what `show` finds it again."""
    return in_a_line(letter.request_id or letter.message_id)


def short(reason: str) -> str:
    """A reason in a table's column: whole where no terminal shows it."""
    line = in_a_line(reason)
    whole = len(line) <= _REASON_WIDTH or not sys.stdout.isatty()
    return line if whole else f"{line[: _REASON_WIDTH - 1]}…"


def in_a_line(value: Any) -> str:
    """A value as a terminal may show it: a message comes from anybody who may send one."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {in_a_line(one)}" for name, one in value.items() if one)
    return " ".join(plain(str(value)).split())


def many(number: int) -> str:
    """`1 dead letter`, `2 dead letters`."""
    return f"{number} dead letter" if number == 1 else f"{number} dead letters"
