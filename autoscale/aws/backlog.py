"""How much waits in the queues of the app tier, as SQS counts it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from autoscale.aws import CachedReading
from autoscale.observation import QueueDepth
from autoscale.ports import Backlog
from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import Transient

_VISIBLE: Final = "ApproximateNumberOfMessages"
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_AGE_EVERY_SECONDS = 60.0
"""SQS gives CloudWatch one value a minute, and CloudWatch charges for each request."""
_DEAD_LETTERS_EVERY_SECONDS = 15.0
"""As often as Prometheus usually asks."""
_DIGITS = 12
"""More digits are no count of messages, and such a number is none that floats can hold."""
_AGE_WINDOW = timedelta(minutes=5)
"""CloudWatch gets its values minutes late; an older one says nothing about this moment."""


def parse_depth(
    attributes: Mapping[str, str], oldest_age_seconds: float | None = None, dead_letters: int | None = None
) -> QueueDepth:
    """Read SQS's answer; a missing or unusable count is `Transient`: it must never look like an empty queue."""

    def count(name: str) -> int:
        text = attributes.get(name)
        if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise Transient(f"SQS answered without a usable {name} ({text!r}); retry later")
        return int(text)

    return QueueDepth(count(_VISIBLE), count(_IN_FLIGHT), count(_DELAYED), oldest_age_seconds, dead_letters)


def parse_age(answer: Mapping[str, Any]) -> float | None:
    """Return the latest datapoint of CloudWatch's unsorted answer, or None without a usable one."""
    points = [point for point in answer.get("Datapoints", []) if "Timestamp" in point and "Maximum" in point]
    latest = max(points, key=lambda point: point["Timestamp"], default=None)
    age = None if latest is None else float(latest["Maximum"])
    return age if age is not None and 0 <= age < math.inf else None


def total(depths: Sequence[QueueDepth]) -> QueueDepth:
    """Return the depth of all queues together: the oldest message is that of any, and unknown counts stay unknown."""
    ages = [depth.oldest_age_seconds for depth in depths if depth.oldest_age_seconds is not None]
    dead_letters = [depth.dead_letters for depth in depths if depth.dead_letters is not None]
    return QueueDepth(
        visible=sum(depth.visible for depth in depths),
        in_flight=sum(depth.in_flight for depth in depths),
        delayed=sum(depth.delayed for depth in depths),
        oldest_age_seconds=max(ages, default=None),
        dead_letters=sum(dead_letters) if len(dead_letters) == len(depths) else None,
    )


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
        return parse_depth(self._read_counts(self._queue), self._age.value(), self._dead_letters.value())

    def _read_counts(self, queue: SqsQueue) -> Mapping[str, str]:
        answer: Any = queue.call(
            "read the depth of",
            lambda url: self._clients.sqs.get_queue_attributes(
                QueueUrl=url, AttributeNames=[_VISIBLE, _IN_FLIGHT, _DELAYED]
            ),
        )
        counts: Mapping[str, str] = answer.get("Attributes", {})
        return counts

    def _read_dead_letters(self) -> int | None:
        if self._dead_letter_queue is None:
            return None
        depth = parse_depth(self._read_counts(self._dead_letter_queue))
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
