"""The dead-letter queue on SQS: its writer, and a reader that takes nothing away."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import BATCH, SqsQueue
from facerec.dead_letters import DeadLetter
from facerec.errors import Transient
from facerec.text import one_line

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD_SECONDS = 300
"""How long a message that was read stays hidden when the reader ends without giving it back, as by SIGKILL."""
_LONGEST_ATTRIBUTE = 1000
"""In characters: reason, id and time fit into the room that the dead-letter queue has beside the longest message."""
_EMPTY_RECEIVES = 3
"""A queue may answer a receive with nothing while it counts messages; so often in a row it is empty."""


class SqsDeadLetterWriter:
    """Writes to the dead-letter queue; the body stays as it came, so that SQS can move it back to be tried again."""

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """Store the body with message attributes `reason`, `request_id` and `failed_at`; raises as `SqsQueue`."""
        attributes = {"reason": reason, "request_id": request_id, "failed_at": failed_at.isoformat()}
        # SQS refuses control characters, which a quoted message may hold, and an empty value.
        self._queue.send(
            body,
            attributes={name: one_line(value[:_LONGEST_ATTRIBUTE]) or "unknown" for name, value in attributes.items()},
        )


class SqsDeadLetterReader:
    """`DeadLetterReader` on SQS; for one look at a time.

    `poll_seconds` above 0 makes SQS ask all of its servers, where it would ask some.
    """

    def __init__(self, clients: Clients, queue: str, *, poll_seconds: int = 1) -> None:
        self._sqs = clients.sqs
        self._queue = SqsQueue(clients.sqs, queue)
        self._poll_seconds = poll_seconds
        self._held: dict[str, str] = {}

    def count(self) -> int:
        """About how many messages there are, hidden ones included."""
        return sum(self._counts())

    @contextmanager
    def look(self, limit: int | None = None) -> Iterator[Iterator[DeadLetter]]:
        """Receive each message once, and give all of them back on leaving, also on Ctrl-C."""
        try:
            yield self._letters(limit)
        finally:
            receipts = list(self._held.values())
            self._held.clear()
            self._give_back(receipts)

    def remove(self, letter: DeadLetter) -> None:
        """Delete one message."""
        if failed := self._queue.delete_batch([letter.receipt]):
            raise Transient(f"queue {self._queue.name!r} kept a message: {failed[0].code}")
        self._held.pop(letter.message_id, None)

    def purge(self) -> None:
        """Delete every message; SQS takes up to a minute, and refuses a second time within it."""
        self._queue.call("purge", lambda url: self._sqs.purge_queue(QueueUrl=url))

    def _letters(self, limit: int | None) -> Iterator[DeadLetter]:
        seen: set[str] = set()
        empty = 0
        while (limit is None or len(seen) < limit) and empty < _EMPTY_RECEIVES:
            messages = self._queue.receive(
                BATCH if limit is None else min(BATCH, limit - len(seen)),
                wait_seconds=self._poll_seconds,
                hidden_seconds=HOLD_SECONDS,
                attributes=["ApproximateReceiveCount", "SentTimestamp"],
                message_attributes=True,
            )
            # A receipt is valid until the next receive of its message.
            self._held.update((message["MessageId"], message["ReceiptHandle"]) for message in messages)
            new = [message for message in messages if message["MessageId"] not in seen]
            seen.update(message["MessageId"] for message in new)
            yield from map(_letter, new)
            if messages and not new:
                return  # the first ones have become visible again: everything has been seen
            if not messages and not self._counts()[0]:
                return
            empty = 0 if messages else empty + 1

    def _counts(self) -> tuple[int, int]:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        read = self._queue.attributes(*names)
        visible, hidden = (int(read[name]) for name in names)
        return visible, hidden

    def _give_back(self, receipts: list[str]) -> None:
        """Make the messages visible. One whose receipt is no longer valid is visible already, or gone."""
        kept = [failure.code for failure in self._queue.change_visibility_batch(receipts, 0) if failure.retryable]
        if kept:
            raise Transient(
                f"{len(kept)} messages of queue {self._queue.name!r} stay hidden for up to {HOLD_SECONDS} s: {kept[0]}"
            )


def _letter(message: "MessageTypeDef") -> DeadLetter:
    system: Mapping[Any, str] = message.get("Attributes", {})
    return DeadLetter(
        message_id=message["MessageId"],
        body=message["Body"],
        sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
        receives=int(system["ApproximateReceiveCount"]),
        receipt=message["ReceiptHandle"],
        attributes={name: value.get("StringValue", "") for name, value in message.get("MessageAttributes", {}).items()},
    )
