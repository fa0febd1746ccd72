"""How much waits in a queue, as SQS counts it."""

from collections.abc import Mapping, Sequence
from typing import Final

from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import Transient
from facerec.fleet_records import QueueDepth

_VISIBLE: Final = "ApproximateNumberOfMessages"
_IN_FLIGHT: Final = "ApproximateNumberOfMessagesNotVisible"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_DIGITS = 12
"""More digits are no count of messages, and such a number is none that floats can hold."""


def parse_depth(attributes: Mapping[str, str]) -> QueueDepth:
    """Read SQS's answer; a missing or unusable count is `Transient`: it must never look like an empty queue."""

    def count(name: str) -> int:
        text = attributes.get(name)
        if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise Transient(f"SQS answered without a usable {name} ({text!r}); retry later")
        return int(text)

    return QueueDepth(count(_VISIBLE), count(_IN_FLIGHT), count(_DELAYED))


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


def read_depth(queue: SqsQueue) -> QueueDepth:
    """Ask SQS for the counts of one queue, and nothing else; raises `QueueMissing` and `Transient`."""
    return parse_depth(queue.attributes(_VISIBLE, _IN_FLIGHT, _DELAYED))
