"""What is simulated: the environment and the traces, from `scenarios.toml` or from a file of arrival times."""

import csv
import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from facerec.errors import ConfigurationError

_BURST_SPREAD_SECONDS = 2.0
_TAIL_SECONDS = 600.0
"""How long a trace from a file lasts after its last arrival."""


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A distribution of times: its mean in seconds, and the standard deviation of their logarithm."""

    mean: float
    sigma: float

    def draw(self, random: Random) -> float:
        """Draw one time."""
        return random.lognormvariate(math.log(self.mean) - self.sigma**2 / 2, self.sigma)


@dataclass(frozen=True, slots=True)
class Environment:
    """How instances, queue and bill behave, for every policy; `scenarios.toml` names the sources."""

    engines: int
    prefetch: int
    service: LogNormal
    overhead_seconds: float
    boot: LogNormal
    start: LogNormal
    pending_seconds: float
    order_seconds: float
    stopping_seconds: float
    counts_refresh_seconds: float
    visibility_seconds: float
    deaths_per_instance_hour: float
    warm_pool_max: int
    price_per_hour: float
    billed_least_seconds: float
    disk_price_per_hour: float
    launches_per_second: float | None = None
    """EC2's rate after the first `launches_at_once`; without it there is no limit."""
    launches_at_once: int = 5

    @property
    def service_seconds(self) -> float:
        """A busy instance's time for a task."""
        return self.service.mean / self.engines


@dataclass(frozen=True, slots=True)
class Trace:
    """Sorted arrival times, and how long each task keeps an engine busy: the same for every policy."""

    name: str
    arrivals: list[float]
    services: list[float]
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a trace is drawn from; `rate` and `bursts` as `scenarios.toml` explains them."""

    name: str
    about: str
    duration_seconds: float
    rate: tuple[tuple[float, float], ...] = ()
    bursts: tuple[tuple[float, int], ...] = ()
    arrivals: tuple[float, ...] = ()
    """Recorded ones."""

    def trace(self, environment: Environment, seed: int) -> Trace:
        """Draw the trace of a seed."""
        random = Random(f"{self.name} {seed}")  # noqa: S311 - repeatable, not secret
        arrivals = list(self.arrivals)
        for (start, low), (end, high) in zip(self.rate, self.rate[1:], strict=False):
            # Thinning (Lewis and Shedler 1979): candidates at the greatest rate, kept in proportion.
            peak, now = max(low, high), start
            while peak > 0 and (now := now + random.expovariate(peak)) < end:
                if random.random() * peak < low + (high - low) * (now - start) / (end - start):
                    arrivals.append(now)
        for at, count in self.bursts:
            arrivals += [at + random.uniform(0, _BURST_SPREAD_SECONDS) for _ in range(count)]
        arrivals.sort()
        services = [environment.service.draw(random) for _ in arrivals]
        return Trace(self.name, arrivals, services, self.duration_seconds)


@dataclass(frozen=True, slots=True)
class Scenarios:
    """The committed file."""

    environment: Environment
    loads: dict[str, Load]
    seeds: int

    @classmethod
    def load(cls) -> "Scenarios":
        """Read `scenarios.toml`."""
        content = tomllib.loads(files("autoscale.simulator").joinpath("scenarios.toml").read_text(encoding="utf-8"))
        loads = {name: _load(name, known) for name, known in content["traces"].items()}
        return cls(_environment(content["environment"]), loads, content["seeds"])


def read_trace(path: Path) -> Load:
    """Read a load from a file: its first column has arrival times in seconds, from any moment on; a heading is skipped.

    Raises `ConfigurationError` for a file without times.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [row[0] for row in csv.reader(lines) if row]
        if rows and not _is_number(rows[0]):
            del rows[0]
        times = sorted(float(row) for row in rows)
    except (OSError, UnicodeDecodeError, ValueError) as exc:
        raise ConfigurationError(f"{path} cannot be read as arrival times in seconds, one a line: {exc}") from exc
    if not times or not math.isfinite(times[-1] - times[0]):
        raise ConfigurationError(f"{path} has no arrival times: write one a line, in seconds")
    arrivals = tuple(time - times[0] for time in times)
    return Load(path.stem, f"recorded in {path.name}", arrivals[-1] + _TAIL_SECONDS, arrivals=arrivals)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _environment(known: dict[str, Any]) -> Environment:
    distributions = {name: LogNormal(**known[name]) for name in ("service", "boot", "start")}
    return Environment(**known | distributions)


def _load(name: str, known: dict[str, Any]) -> Load:
    return Load(
        name,
        known["about"],
        known["duration_seconds"],
        tuple((time, rate) for time, rate in known.get("rate", [])),
        tuple((time, count) for time, count in known.get("bursts", [])),
    )
