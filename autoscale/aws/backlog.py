"""How much waits in the queues of the app tier, as SQS counts it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from autoscale.aws import CachedReading
from autoscale.ports import Backlog
from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.depth import read_depth, total
from facerec.aws.sqs.queue import SqsQueue
from facerec.fleet_records import QueueDepth

_AGE_EVERY_SECONDS = 60.0
"""SQS gives CloudWatch one value a minute, and CloudWatch charges for each request."""
_DEAD_LETTERS_EVERY_SECONDS = 15.0
"""As often as Prometheus usually asks."""
_AGE_WINDOW = timedelta(minutes=5)
"""CloudWatch gets its values minutes late; an older one says nothing about this moment."""


def parse_age(answer: Mapping[str, Any]) -> float | None:
    """Return the latest datapoint of CloudWatch's unsorted answer, or None without a usable one."""
    points = [point for point in answer.get("Datapoints", []) if "Timestamp" in point and "Maximum" in point]
    latest = max(points, key=lambda point: point["Timestamp"], default=None)
    age = None if latest is None else float(latest["Maximum"])
    return age if age is not None and 0 <= age < math.inf else None


class SqsBacklog:
    """`Backlog` of one queue; `dead_letters` names its dead-letter queue."""

    def __init__(
        self,
        clients: Clients,
        queue: str,
        dead_letters: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clients = clients
        self._queue = SqsQueue(clients.sqs, queue)
        self._dead_letter_queue = None if dead_letters is None else SqsQueue(clients.sqs, dead_letters)
        self._now = now
        self._age: CachedReading[float | None] = CachedReading(
            "message_age", self._read_age, fallback=None, every_seconds=_AGE_EVERY_SECONDS, clock=clock
        )
        self._dead_letters: CachedReading[int | None] = CachedReading(
            "dead_letter_queue",
            self._read_dead_letters,
            fallback=None,
            every_seconds=_DEAD_LETTERS_EVERY_SECONDS,
            clock=clock,
        )

    def depth(self) -> QueueDepth:
        """Ask SQS for its counts, and now and then for the dead letters, and CloudWatch for the oldest one's age."""
        depth = read_depth(self._queue)
        return replace(depth, oldest_age_seconds=self._age.value(), dead_letters=self._dead_letters.value())

    def _read_dead_letters(self) -> int | None:
        if self._dead_letter_queue is None:
            return None
        depth = read_depth(self._dead_letter_queue)
        return depth.open + depth.delayed  # also those that somebody has received to look at them

    def _read_age(self) -> float | None:
        end = self._now()
        with translated("read ApproximateAgeOfOldestMessage"):
            return parse_age(
                self._clients.cloudwatch.get_metric_statistics(
                    Namespace="AWS/SQS",
                    MetricName="ApproximateAgeOfOldestMessage",
                    Dimensions=[{"Name": "QueueName", "Value": self._queue.name}],
                    StartTime=end - _AGE_WINDOW,
                    EndTime=end,
                    Period=60,
                    Statistics=["Maximum"],
                )
            )


class TotalBacklog:
    """`Backlog` of several queues, from which the same instances take; a queue that cannot be read is an error."""

    def __init__(self, backlogs: Sequence[Backlog]) -> None:
        self._backlogs = backlogs

    def depth(self) -> QueueDepth:
        """Ask for each queue's depth; raises as `Backlog.depth`."""
        return total([backlog.depth() for backlog in self._backlogs])
