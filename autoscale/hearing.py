"""When each worker was last heard, by the clock of who listens: those of two machines are never compared."""

from collections.abc import Iterable

from autoscale.observation import Instance

_Said = tuple[str | None, float, float | None, float | None]


class Hearing:
    """Notices reports by their change, as a waiter notices the renewals of a lease.

    Until it has listened for a while nobody is silent: what was said before the first reading may be of any age.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[_Said, float]] = {}

    def listen(self, fleet: Iterable[Instance], now: float) -> dict[int, float]:
        """Take a reading in; returns when what is said of each instance last changed, by number.

        To listen to one reading twice changes nothing.
        """
        latest: dict[int, tuple[_Said, float]] = {}
        for instance in fleet:
            report = instance.worker
            # A launch, a start or a stop is news, too: from then on the time to the first report counts.
            told = (None, None) if report is None else (report.ready_at, report.reported_at)
            said: _Said = (instance.instance_id, instance.since, *told)
            before = self._last.get(instance.number)
            latest[instance.number] = before if before is not None and before[0] == said else (said, now)
        self._last = latest
        return {number: at for number, (_, at) in latest.items()}
