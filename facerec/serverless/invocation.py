"""One invocation: the time that it may take, the threads that share it, and the records of its deliveries."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from facerec.dead_letters import DeadLetterWriter
from facerec.delivery.driver import DeliveryRecord
from facerec.delivery.retry import RetryBudget
from facerec.errors import Transient
from facerec.settings.tiers import FUNCTION_RESERVE_SECONDS

T = TypeVar("T")
R = TypeVar("R")


class LambdaContext(Protocol):
    """What Lambda's runtime says of an invocation."""

    function_name: str
    memory_limit_in_mb: str
    invoked_function_arn: str
    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """The time until Lambda ends the process."""


class Unfinished(Exception):
    """The invocation's time was over before the work was done; it may still be done later, which is harmless."""


class Invocation:
    """The time of one invocation, less a reserve for what follows: the reports to SQS, the logs, the answer.

    `records` gets what happened to each delivery.
    """

    def __init__(
        self,
        context: LambdaContext,
        *,
        reserve_seconds: float = FUNCTION_RESERVE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = max(0.0, context.get_remaining_time_in_millis() / 1000 - reserve_seconds)
        self.records: list[DeliveryRecord] = []
        self.unfinished = 0
        self._monotonic = monotonic
        self._ends_at = monotonic() + self.seconds
        self._over = threading.Event()
        self._ended = False

    @property
    def remaining_seconds(self) -> float:
        """How much of the time is left."""
        return max(0.0, self._ends_at - self._monotonic())

    def retry_budget(self) -> RetryBudget:
        """The retries of one delivery: a retry that would begin after the end is not made."""
        return RetryBudget(self.remaining_seconds, self._pause)

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R | Exception]:
        """Do the work for all items at once, each in a thread; returns for each its result, or what it raised.

        `Unfinished` stands for what is not done in time. Its thread stays behind: it ends by itself, and Lambda may
        freeze and continue it.
        """
        futures: list[Future[R | Exception]] = [Future() for _ in items]
        for item, future in zip(items, futures, strict=True):
            threading.Thread(target=_settle, args=(future, partial(work, item)), name="delivery", daemon=True).start()
        wait(futures, self.remaining_seconds)
        self._over.set()  # no retry begins after this
        unfinished = Unfinished("its invocation has no time left")
        ends = [future.result() if future.done() else unfinished for future in futures]
        self.unfinished += sum(end is unfinished for end in ends)
        return ends

    def do(self, work: Callable[[T], R], item: T) -> R:
        """Do the work for one item; raises what it raises, or `Unfinished`."""
        (end,) = self.map(work, [item])
        if isinstance(end, Exception):
            raise end
        return end

    def end(self) -> None:
        """The invocation is answered: its deliveries that are not finished may fail no message any more."""
        self._ended = True

    def guarded(self, dead_letters: DeadLetterWriter) -> DeadLetterWriter:
        """Return a writer that raises `Transient` after the end.

        Lambda may freeze the process for any time. When it continues, the engine's time limit is over, and a photo that
        was not finished looks like one that makes the engine hang. Its message is delivered again in any case.
        """
        return _GuardedDeadLetters(dead_letters, lambda: self._ended)

    def _pause(self, seconds: float) -> bool:
        return not self._over.wait(seconds)


@dataclass(frozen=True, slots=True)
class _GuardedDeadLetters:
    writer: DeadLetterWriter
    ended: Callable[[], bool]

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        if self.ended():
            raise Transient("the invocation has ended; the message is delivered again")
        self.writer.put(body, reason=reason, request_id=request_id, failed_at=failed_at)


def _settle(future: "Future[R | Exception]", work: Callable[[], R]) -> None:
    try:
        future.set_result(work())
    except Exception as exc:  # noqa: BLE001 - the thread that waits decides
        future.set_result(exc)
