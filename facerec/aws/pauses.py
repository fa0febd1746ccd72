"""How long to wait before SQS is asked again: pure; `luck`, from 0 to 1, spreads what failed at the same time."""

_LONGEST_PAUSE_SECONDS = 10.0
_FIRST_REDELIVERY_SECONDS = 5
_LONGEST_REDELIVERY_SECONDS = 120


def redelivery_seconds(receives: int, luck: float) -> int:
    """The pause before a task that failed for a passing reason is delivered again: 5, 15, 45 … 120 s, less up to half.

    `receives` counts its deliveries from 1; `luck`, from 0 to 1, spreads tasks that failed together. With the default
    of four deliveries a fault may last about a minute before the task is left to the dead-letter queue.
    """
    longest: int = min(_FIRST_REDELIVERY_SECONDS * 3 ** (receives - 1), _LONGEST_REDELIVERY_SECONDS)
    return round(longest * (1 - luck / 2))


def pause_seconds(failures: int, luck: float) -> float:
    """The pause after a number of failed receives in a row: 0.5, 1, 2 … 10 s, less up to half by `luck` from 0 to 1."""
    doublings = min(failures - 1, 10)
    return float(min(0.5 * 2**doublings, _LONGEST_PAUSE_SECONDS) * (1 - luck / 2))
