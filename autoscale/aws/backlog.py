"""How much waits in the request queue, as SQS counts it."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from autoscale.aws.cached_reading import Polled
from autoscale.observation import QueueDepth
from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import missing
from facerec.errors import Transient

_VISIBLE: Final = "ApproximateNumberOfMessages"
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_AGE_EVERY_SECONDS = 60.0
"""SQS gives CloudWatch one value a minute, and CloudWatch charges for each question."""
_DEAD_LETTERS_EVERY_SECONDS = 15.0
"""As often as Prometheus usually asks."""
_AGE_WINDOW = timedelta(minutes=5)
"""CloudWatch gets its values late by minutes; an older one tells nothing of this moment."""


def parse_depth(
    attributes: Mapping[str, str], oldest_age_seconds: float | None = None, dead_letters: int | None = None
) -> QueueDepth:
    """Read SQS's answer; a count that is missing, or none, is `Transient`: it must never pass for an empty queue."""

    def count(name: str) -> int:
        text = attributes.get(name)
        if text is None or not (text.isascii() and text.isdigit()):
            raise Transient(f"SQS answered without a usable {name} ({text!r}); retry later")
        return int(text)

    return QueueDepth(count(_VISIBLE), count(_IN_FLIGHT), count(_DELAYED), oldest_age_seconds, dead_letters)


def parse_age(answer: Mapping[str, Any]) -> float | None:
    """The latest datapoint of CloudWatch's answer, which comes in no order; nothing where there is none."""
    latest = max(answer.get("Datapoints", []), key=lambda point: point["Timestamp"], default=None)
    return None if latest is None else float(latest["Maximum"])


class SqsBacklog:
    """`Backlog` of one queue; `dead_letters` names the one that its failed tasks go to."""

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
        self._queue = queue
        self._now = now
        self._url: str | None = None
        self._age: Polled[float | None] = Polled(
            f"the age of the oldest message of {queue!r}",
            self._read_age,
            fallback=None,
            every_seconds=_AGE_EVERY_SECONDS,
            clock=clock,
        )
        self._dead_letters: Polled[int | None] = Polled(
            f"the depth of queue {dead_letters!r}",
            lambda: self._read_dead_letters(dead_letters),
            fallback=None,
            every_seconds=_DEAD_LETTERS_EVERY_SECONDS,
            clock=clock,
        )

    def depth(self) -> QueueDepth:
        """Ask SQS for its counts, and now and then for the dead letters, and CloudWatch for the oldest one's age."""
        with translated(
            f"read the depth of queue {self._queue!r}",
            AWS_SimpleQueueService_NonExistentQueue=self._missing,
            QueueDoesNotExist=self._missing,
        ):
            if self._url is None:
                self._url = self._clients.sqs.get_queue_url(QueueName=self._queue)["QueueUrl"]
            answer: Any = self._clients.sqs.get_queue_attributes(
                QueueUrl=self._url, AttributeNames=[_VISIBLE, _IN_FLIGHT, _DELAYED]
            )
        return parse_depth(answer.get("Attributes", {}), self._age.value(), self._dead_letters.value())

    def _missing(self) -> Transient:
        self._url = None
        return Transient(f"there is no queue {self._queue!r}; create it with `facerec provision`")

    def _read_dead_letters(self, queue: str | None) -> int | None:
        if queue is None:
            return None
        with missing(queue, "read the depth of"):
            url = self._clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            answer: Any = self._clients.sqs.get_queue_attributes(
                QueueUrl=url, AttributeNames=[_VISIBLE, _IN_FLIGHT, _DELAYED]
            )
        depth = parse_depth(answer.get("Attributes", {}))
        # Also those that somebody looks at now.
        return depth.open + depth.delayed

    def _read_age(self) -> float | None:
        end = self._now()
        with translated("read ApproximateAgeOfOldestMessage"):
            return parse_age(
                self._clients.cloudwatch.get_metric_statistics(
                    Namespace="AWS/SQS",
                    MetricName="ApproximateAgeOfOldestMessage",
                    Dimensions=[{"Name": "QueueName", "Value": self._queue}],
                    StartTime=end - _AGE_WINDOW,
                    EndTime=end,
                    Period=60,
                    Statistics=["Maximum"],
                )
            )
