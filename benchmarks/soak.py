"""A steady load for a long time: checks that speed, memory, descriptors and threads stay constant.

    python -m benchmarks.soak --minutes 20
    python -m benchmarks.soak --minutes 4 --warm-up-minutes 1   # short, with rough slopes

Each of `--clients` clients uploads one photo after the other. After the warm-up the benchmark reads memory,
descriptors and threads of each process every few seconds. `slope_mb_per_min` is the least-squares line through its
resident memory. `first` and `last` are medians over the first and the last `window_minutes`. `drift_percent` compares
the throughput of these two windows; it is meaningful only on an otherwise idle machine. The last line is one JSON
object.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from benchmarks.measure import machine
from benchmarks.roundtrip import OK, Photo, await_enrolment, workload
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, Usage, descendants, usage

_LOOK_SECONDS = 5.0
_TOLD_EVERY = 6
_WINDOW_MINUTES = 5.0
_MIN_MINUTES = 0.5
_MOST_DRIFT_PERCENT = 5.0
_MOST_SLOPE = 0.5
_MOST_MORE = 2
"""Descriptors or threads between two medians: a connection more or less is chance."""

Series = list[tuple[float, Usage]]
"""What a process held, with the minutes since the end of the warm-up."""


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="minutes of measurement, after the warm-up")
    parser.add_argument(
        "--warm-up-minutes",
        type=float,
        default=3.0,
        help="minutes before the measurement, to fill caches and open connections",
    )
    parser.add_argument("--clients", type=int, default=8, help="uploads at once")
    parser.add_argument(
        "--images", type=Path, default=CHECKOUT / "examples", help="folder of photos, as for benchmarks.roundtrip"
    )
    options = parser.parse_args()
    if options.minutes < _MIN_MINUTES:
        parser.error(f"--minutes must be at least {_MIN_MINUTES:g}, or there is nothing to compare")
    with tempfile.TemporaryDirectory(prefix="facerec-soak-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        with LocalSystem(Path(folder) / "state", environ={"FACEREC_REPLY_STYLE": "name"}) as system:
            system.run("enrol", "--folder", str(people))
            await_enrolment(system, photos)
            soak = Soak(system, photos, options.warm_up_minutes, options.minutes)
            asyncio.run(soak.run(options.clients))
    figures = summary(soak, options.minutes)
    print(json.dumps(figures))
    sys.exit(0 if figures["passed"] else 1)


class Soak:
    """Runs the clients, and reads the processes meanwhile.

    `answered` are the moments of right and wrong answers, in minutes since the end of the warm-up; `failed` counts
    uploads without an answer 200. `seen` is what each process held, in the same minutes.
    """

    def __init__(self, system: LocalSystem, photos: Sequence[Photo], warm_up_minutes: float, minutes: float) -> None:
        self._url = system.url
        self._pids = _processes(system)
        self._bodies = itertools.cycle([(photo.path.read_bytes(), photo.answer) for photo in photos])
        self._numbers = itertools.count()
        self._zero = time.monotonic() + warm_up_minutes * 60
        self._minutes = minutes
        self.answered: list[float] = []
        self.failed = 0
        self.wrong = 0
        self.seen: dict[str, Series] = {name: [] for name in self._pids}

    async def run(self, clients: int) -> None:
        """Return when the time is over and every client has its answer."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=240, trust_env=False) as http:
            await asyncio.gather(self._look(), *(self._client(http) for _ in range(clients)))

    def _now(self) -> float:
        return (time.monotonic() - self._zero) / 60

    async def _client(self, http: httpx.AsyncClient) -> None:
        while self._now() < self._minutes:
            body, answer = next(self._bodies)
            name = f"soak{next(self._numbers):07d}"
            try:
                reply = await http.post(self._url, files={"inputFile": (f"{name}.jpg", body, "image/jpeg")})
            except httpx.HTTPError as exc:
                self._fail(f"{name}: {exc!r}")
                continue
            if reply.status_code != OK:
                self._fail(f"{name}: {reply.status_code} {reply.text.strip()}")
                continue
            self.answered.append(self._now())
            self.wrong += reply.text.strip() != f"{name}:{answer}"

    def _fail(self, how: str) -> None:
        print(how, file=sys.stderr)
        self.failed += 1

    async def _look(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._now()
            if now >= self._minutes:
                return
            held = {name: usage(pid) for name, pid in self._pids.items()}
            if number % _TOLD_EVERY == 0:
                sizes = ", ".join(f"{name} {used.rss_mb:.0f} MB {used.descriptors} fds" for name, used in held.items())
                print(f"{now:6.1f} min: {len(self.answered)} answered; {sizes}", file=sys.stderr)
            if now >= 0:
                for name, used in held.items():
                    self.seen[name].append((now, used))


def summary(soak: Soak, minutes: float) -> dict[str, Any]:
    """Compare the windows, and check the bounds."""
    window = min(_WINDOW_MINUTES, minutes / 2)
    first = sum(0 <= at < window for at in soak.answered) / window / 60
    last = sum(at >= minutes - window for at in soak.answered) / window / 60
    drift = (last / first - 1) * 100 if first else -100.0
    processes = {name: _summed_up(series, window, minutes) for name, series in soak.seen.items()}
    steady = all(
        process["slope_mb_per_min"] < _MOST_SLOPE
        and process["last"]["descriptors"] - process["first"]["descriptors"] <= _MOST_MORE
        and process["last"]["threads"] - process["first"]["threads"] <= _MOST_MORE
        for process in processes.values()
    )
    return {
        "minutes": minutes,
        "window_minutes": window,
        "answered": len(soak.answered),
        "failed": soak.failed,
        "wrong": soak.wrong,
        "first_per_s": round(first, 2),
        "last_per_s": round(last, 2),
        "drift_percent": round(drift, 1),
        "processes": processes,
        "steady": steady,
        "passed": steady and abs(drift) <= _MOST_DRIFT_PERCENT and soak.failed == soak.wrong == 0,
        "machine": machine(),
    }


def _summed_up(series: Series, window: float, minutes: float) -> dict[str, Any]:
    slope, _ = statistics.linear_regression([at for at, _ in series], [used.rss_mb for _, used in series])
    return {
        "slope_mb_per_min": round(slope, 3),
        "first": _median([used for at, used in series if at < window]),
        "last": _median([used for at, used in series if at >= minutes - window]),
    }


def _median(held: Sequence[Usage]) -> dict[str, float]:
    columns = [asdict(used) for used in held]
    return {name: round(statistics.median(column[name] for column in columns), 1) for name in columns[0]}


def _processes(system: LocalSystem) -> dict[str, int]:
    """The web process, the worker and its engines by name; one that is replaced ends the measurement."""
    [web], [worker] = system.processes("facerec.cli web"), system.processes("celery -A facerec worker")
    engines = enumerate(sorted(descendants(worker, "facerec.engine.child")), 1)
    return {"web": web, "worker": worker} | {f"engine {number}": pid for number, pid in engines}


if __name__ == "__main__":
    main()
