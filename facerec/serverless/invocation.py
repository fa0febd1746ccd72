"""One invocation: the time that it may take, the threads that share it, and the records of its deliveries."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Protocol, TypeVar

from facerec.delivery.driver import DeliveryRecord
from facerec.delivery.retry import RetryBudget
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

    def _pause(self, seconds: float) -> bool:
        return not self._over.wait(seconds)


def _settle(future: "Future[R | Exception]", work: Callable[[], R]) -> None:
    try:
        future.set_result(work())
    except Exception as exc:  # noqa: BLE001 - the thread that waits decides
        future.set_result(exc)
