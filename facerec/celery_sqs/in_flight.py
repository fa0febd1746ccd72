"""A consumer's messages in flight, until each is deleted, given back, or in the dead-letter queue."""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from facerec.aws.sqs.queue import BATCH, SqsQueue
from facerec.background import BackgroundQueue, BackgroundThread
from facerec.dead_letters import DeadLetterWriter
from facerec.errors import ConfigurationError, FacerecError, QueueMissing, Transient

log = structlog.get_logger(__name__)

_ACK_WINDOW_SECONDS = 0.1
_MAX_DEAD_LETTERS_WAITING = 100
_FIRST_REDELIVERY_SECONDS = 5
_LONGEST_REDELIVERY_SECONDS = 120


def redelivery_seconds(receives: int, jitter: float) -> int:
    """The wait before a failed task is delivered again: 5, 15, 45 … 120 s, less up to half.

    `receives` counts its deliveries from 1; `jitter`, from 0 to 1, spreads tasks that failed together. Between the
    default four deliveries the waits are about a minute in all, which is how long a fault of our own may last. An
    outage of AWS may last 40 minutes: `RetryBudget` waits for its end within each delivery (ADR 12).
    """
    longest: int = min(_FIRST_REDELIVERY_SECONDS * 3 ** (receives - 1), _LONGEST_REDELIVERY_SECONDS)
    return round(longest * (1 - jitter / 2))


@dataclass(frozen=True, slots=True)
class InFlightMessage:
    """A message as it was received."""

    receipt: str
    queue: SqsQueue
    body: str
    receives: int


@dataclass(frozen=True, slots=True)
class _RejectedMessage:
    message: InFlightMessage
    reason: str
    request_id: str


class InFlightMessages:
    """Owns the messages of one consumer from `add` to their end; safe for many threads.

    A thread keeps each hidden from other consumers: it extends the visibility timeout every third of it. So a task may
    take longer than the timeout, and a lost worker's tasks still come back soon. The extensions go on until SQS has
    deleted the message. If the process dies before that, the message is delivered again, and its stored result is
    published again, which is harmless.

    Deletes go together, up to ten in one call. A dead letter stays hidden while its dead-letter queue is out of reach;
    beyond 100 of them the oldest are left to be delivered again. `dead_lettered` is called after each that is stored.
    `dead_letters` has the writer of each queue, by the queue's name.
    """

    def __init__(
        self,
        dead_letters: Mapping[str, DeadLetterWriter],
        *,
        visibility_timeout_seconds: int,
        max_receives: float,
        dead_lettered: Callable[[], None] = lambda: None,
    ) -> None:
        self._dead_letters = dead_letters
        self._timeout_seconds = visibility_timeout_seconds
        self._max_receives = max_receives
        self._dead_lettered = dead_lettered
        self._messages: dict[str, InFlightMessage] = {}
        self._lock = threading.Lock()
        self._extender = BackgroundThread("visibility", self._extend_until_stopped)
        self._acks = BackgroundQueue("acks", self._delete, window_seconds=_ACK_WINDOW_SECONDS, full=BATCH)
        # One for each queue: an outage of one dead-letter queue does not keep the letters of another.
        self._letters = {
            queue: BackgroundQueue[_RejectedMessage](
                "dead_letter_queue",
                self._store,
                max_waiting=_MAX_DEAD_LETTERS_WAITING,
                dropped=lambda letter: self.release(letter.message.receipt),
            )
            for queue in dead_letters
        }

    def __len__(self) -> int:
        """How many messages are in flight."""
        return len(self._messages)

    def add(self, message: InFlightMessage) -> None:
        """Keep the message hidden from now on."""
        with self._lock:
            self._extender.start()  # first: without extensions a message would come back while it is processed
            self._messages[message.receipt] = message

    def release(self, receipt: str) -> None:
        """Extend the message no longer: it becomes visible when its timeout is over, unless it is deleted."""
        with self._lock:
            self._messages.pop(receipt, None)

    def ack(self, receipt: str) -> None:
        """Have the message deleted; one that is not in flight has been settled already."""
        message = self._messages.get(receipt)
        if message is not None:
            self._acks.put(message)

    def reject(self, receipt: str, request_id: str) -> None:
        """Have the message delivered again, later each time; after its last delivery it is a dead letter."""
        message = self._messages.get(receipt)
        if message is None:
            return
        if message.receives >= self._max_receives:
            reason = "it failed in its last delivery; the worker's log says how"
            self.dead_letter(receipt, reason, request_id)
        else:
            self.give_back([message], redelivery_seconds(message.receives, random.random()))  # noqa: S311 - no secret

    def requeue(self, receipt: str, seconds: int) -> None:
        """Make the message visible after so many seconds."""
        message = self._messages.get(receipt)
        if message is not None:
            self.give_back([message], seconds)

    def dead_letter(self, receipt: str, reason: str, request_id: str) -> None:
        """Have the message stored in the dead-letter queue and then deleted."""
        message = self._messages.get(receipt)
        if message is None:
            return
        if not self._letters[message.queue.name].put(_RejectedMessage(message, reason, request_id)):
            self.release(receipt)

    def give_back(self, messages: Sequence[InFlightMessage], seconds: int) -> None:
        """Make them visible after so many seconds; what fails becomes visible when its visibility timeout is over."""
        for message in messages:
            self.release(message.receipt)  # first: an extension would hide it again
        for queue, receipts in _by_queue(messages).items():
            try:
                queue.change_visibility_batch(receipts, seconds)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the message comes back by itself
                log.warning("messages_not_given_back", count=len(receipts), reason=str(exc) or repr(exc))

    def stop(self) -> None:
        """Delete what is finished, store the dead letters, and give back everything else."""
        for letter in [letter for letters in self._letters.values() for letter in letters.stop()]:
            self.release(letter.message.receipt)
        for message in self._acks.stop():
            self.release(message.receipt)
        self._extender.stop()
        with self._lock:
            messages = list(self._messages.values())
        self.give_back(messages, 0)

    def extend(self) -> None:
        """Extend the visibility timeout of all messages once.

        Two extensions may fail before a message is delivered twice, which is harmless. A message whose receipt is no
        longer valid is released.
        """
        with self._lock:
            messages = list(self._messages.values())
        for queue, receipts in _by_queue(messages).items():
            try:
                for failure in queue.change_visibility_batch(receipts, self._timeout_seconds):
                    if not failure.retryable:
                        self.release(failure.receipt)
            except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end the thread
                log.warning("visibility_not_extended", count=len(receipts), reason=str(exc) or repr(exc))

    def _extend_until_stopped(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._timeout_seconds / 3):
            self.extend()

    def _delete(self, messages: list[InFlightMessage]) -> None:
        for queue, receipts in _by_queue(messages).items():
            try:
                failed = queue.delete_batch(receipts)
            except (QueueMissing, ConfigurationError) as exc:
                log.warning("messages_not_deleted", count=len(receipts), reasons=[str(exc)])
                failed = []
            if failed:
                reasons = sorted({failure.code for failure in failed})
                log.warning("messages_not_deleted", count=len(failed), reasons=reasons)
            again = {failure.receipt for failure in failed if failure.retryable}
            for receipt in set(receipts) - again:
                self.release(receipt)
            messages[:] = [message for message in messages if message.queue is not queue or message.receipt in again]
        if messages:
            raise Transient(f"{len(messages)} messages were not deleted")

    def _store(self, letters: list[_RejectedMessage]) -> None:
        while letters:
            letter = letters[0]
            try:
                self._dead_letters[letter.message.queue.name].put(
                    letter.message.body,
                    reason=letter.reason,
                    request_id=letter.request_id,
                    failed_at=datetime.now(UTC),
                )
            except (Transient, QueueMissing):
                raise
            except FacerecError as exc:
                log.warning("not_dead_lettered", request_id=letter.request_id, reason=str(exc))
                self.release(letter.message.receipt)
            else:
                log.warning("dead_lettered", request_id=letter.request_id, reason=letter.reason)
                self.ack(letter.message.receipt)
                self._dead_lettered()
            del letters[0]


def _by_queue(messages: Sequence[InFlightMessage]) -> dict[SqsQueue, list[str]]:
    """The receipts of the messages, by their queue."""
    receipts: dict[SqsQueue, list[str]] = {}
    for message in messages:
        receipts.setdefault(message.queue, []).append(message.receipt)
    return receipts
