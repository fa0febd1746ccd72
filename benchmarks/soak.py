"""A steady load for a long time: checks that speed, memory, descriptors and threads stay constant.

    python -m benchmarks.soak --minutes 20
    python -m benchmarks.soak --minutes 4 --warm-up-minutes 1   # short, with rough slopes

Each of `--clients` clients uploads one photo after the other. After the warm-up the benchmark reads memory,
descriptors and threads of each process every few seconds. `slope_mb_per_min` is the least-squares line through its
resident memory. `first` and `last` are medians over the first and the last `window_minutes`. `drift_percent` compares
the throughput of these two windows; it is meaningful only on an otherwise idle machine.

`cpu_ms` is a process's CPU time per answer in each window. It attributes a drift: of the process whose time grew, or of
the machine if none grew. `clients` is this benchmark's own process, `emulator` all that the emulated AWS runs, and
`fixed_work_ms` the CPU time of a fixed calculation: only the machine can change it. The last line is one JSON object.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
_FIXED_WORK = 200_000
_EMULATOR = "facerec.local.ministack_server"
_NOT_OURS = frozenset({"emulator", "clients"})
"""Their memory and descriptors are shown, but have no bounds."""
_MOST_MORE = 2
"""Descriptors or threads between two medians: a connection more or less is chance."""

Series = list[tuple[float, Usage]]
"""What a process held, with the minutes since the end of the warm-up."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the measurement, in minutes since the end of the warm-up."""

    begin: float
    end: float

    def of(self, at: float) -> bool:
        """Whether the moment is in it."""
        return self.begin <= at < self.end


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
    uploads without an answer 200. `seen` is what each process held, in the same minutes, and `fixed_work` the CPU time
    of a fixed calculation in milliseconds.
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
        self.fixed_work: list[tuple[float, float]] = []

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
                self.fixed_work.append((now, _fixed_work_ms()))


def summary(soak: Soak, minutes: float) -> dict[str, Any]:
    """Compare the windows, and check the bounds."""
    length = min(_WINDOW_MINUTES, minutes / 2)
    windows = Window(0, length), Window(minutes - length, minutes)
    answers = [sum(map(window.of, soak.answered)) for window in windows]
    drift = (answers[1] / answers[0] - 1) * 100 if answers[0] else -100.0
    processes = {name: _summed_up(series, windows, answers) for name, series in soak.seen.items()}
    steady = all(
        process["slope_mb_per_min"] < _MOST_SLOPE
        and process["last"]["descriptors"] - process["first"]["descriptors"] <= _MOST_MORE
        and process["last"]["threads"] - process["first"]["threads"] <= _MOST_MORE
        for name, process in processes.items()
        if name not in _NOT_OURS
    )
    return {
        "minutes": minutes,
        "window_minutes": length,
        "answered": len(soak.answered),
        "failed": soak.failed,
        "wrong": soak.wrong,
        "first_per_s": round(answers[0] / length / 60, 2),
        "last_per_s": round(answers[1] / length / 60, 2),
        "drift_percent": round(drift, 1),
        "fixed_work_ms": [
            round(statistics.median(ms for at, ms in soak.fixed_work if window.of(at)), 2) for window in windows
        ],
        "processes": processes,
        "steady": steady,
        "passed": steady and abs(drift) <= _MOST_DRIFT_PERCENT and soak.failed == soak.wrong == 0,
        "machine": machine(),
    }


def _summed_up(series: Series, windows: tuple[Window, Window], answers: list[int]) -> dict[str, Any]:
    slope, _ = statistics.linear_regression([at for at, _ in series], [used.rss_mb for _, used in series])
    first, last = ([(at, used) for at, used in series if window.of(at)] for window in windows)
    return {
        "slope_mb_per_min": round(slope, 3),
        "cpu_ms": [
            _cpu_ms(seen, window, count) for seen, window, count in zip((first, last), windows, answers, strict=True)
        ],
        "first": _median([used for _, used in first]),
        "last": _median([used for _, used in last]),
    }


def _cpu_ms(seen: Series, window: Window, answers: int) -> float | None:
    """The CPU time per answer, from the first look to the last one of the window."""
    (begin, before), (end, after) = seen[0], seen[-1]
    if not answers or end == begin:
        return None
    per_minute = (after.cpu_seconds - before.cpu_seconds) / (end - begin)
    return round(per_minute * (window.end - window.begin) / answers * 1000, 2)


def _fixed_work_ms() -> float:
    """The CPU time of a calculation that is the same each time."""
    begun = time.process_time()
    sum(number * number for number in range(_FIXED_WORK))
    return (time.process_time() - begun) * 1000


def _median(held: Sequence[Usage]) -> dict[str, float]:
    return {
        name: round(statistics.median(getattr(each, name) for each in held), 1)
        for name in ("rss_mb", "descriptors", "threads")
    }


def _processes(system: LocalSystem) -> dict[str, int]:
    """The processes by name; one that is replaced ends the measurement."""
    [web], [worker] = system.processes("facerec.cli web"), system.processes("celery -A facerec worker")
    [emulator] = system.processes(_EMULATOR)
    engines = enumerate(sorted(descendants(worker, "facerec.engine.child")), 1)
    return {"web": web, "worker": worker, "emulator": emulator, "clients": os.getpid()} | {
        f"engine {number}": pid for number, pid in engines
    }


if __name__ == "__main__":
    main()
