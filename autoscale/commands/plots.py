"""The pictures of `facerec fleet history` and `facerec simulate`."""

import math
import re
import textwrap
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoscale.policy import Policy
from autoscale.reconcile_result import ranges
from autoscale.simulator.run import Run, percentile
from autoscale.simulator.scenario import Trace
from facerec.fleet_records import SILENT_SECONDS, RoundRecord

# Distinct for colour-blind readers, too (Okabe and Ito), and by strokes.
_BLUE, _ORANGE, _GREEN, _YELLOW, _PINK, _INK = "#0072B2", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#222222"
_LOOKS = {
    "ours": (_BLUE, "-", 2.0),
    "naive": (_ORANGE, "--", 1.2),
    "keda": (_GREEN, "-.", 1.2),
    "target-tracking": (_PINK, (0, (3, 1, 1, 1, 1, 1)), 1.2),
}
_APART = 0.022
"""Marks that are closer than this share of the width become one."""
_LISTED = 14
"""Episodes that the picture lists; of the others it shows only their number."""
_CHARACTERS = 150
"""Of a line of the list."""
_WINDOWS = 120
"""Of the latencies: for each one the 95th percentile is drawn."""
_DOTS = 20_000
"""Above so many requests only the percentiles are drawn."""


def plot_history(records: Sequence[RoundRecord], path: Path, *, until: float) -> None:
    """Write a PNG; `records` are in order of time, at least one; `until` is in seconds since the epoch."""
    apart_seconds = (until - records[0].at) * _APART
    acted = episodes([record for record in records if record.actions], apart_seconds)
    lines = _lines(acted)
    figure = Figure(figsize=(13, 7 + 0.21 * len(lines)), layout="constrained", dpi=120)
    grid = figure.add_gridspec(3, 1, height_ratios=[3, 3, 0.1 + 0.19 * len(lines)])
    queue = figure.add_subplot(grid[0])
    fleet = figure.add_subplot(grid[1], sharex=queue)
    series = Series(records, until)
    _draw_queue(queue, series)
    _draw_fleet(fleet, series, acted)
    text = figure.add_subplot(grid[2])
    text.axis("off")
    text.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=8, transform=text.transAxes)
    span = f"{_time(records[0].at):%Y-%m-%d %H:%M:%S} to {_time(until):%H:%M:%S} UTC"
    figure.suptitle(f"Backlog and fleet, {span}", fontsize=13)
    with mpl.rc_context({"agg.path.chunksize": 10_000}):
        figure.savefig(path, format="png")


class Series:
    """Values over time, as steps: each holds until the next record, or until nothing is known."""

    def __init__(self, records: Sequence[RoundRecord], until: float) -> None:
        self._records: list[RoundRecord | None] = []
        self.times: list[float] = []
        for record, following in zip(records, [*(r.at for r in records[1:]), until], strict=True):
            self._add(record.at, record)
            if not record.tells(following):
                self._add(record.at + SILENT_SECONDS, None)
        self._add(max(until, records[-1].at), self._records[-1])

    def _add(self, at: float, record: RoundRecord | None) -> None:
        self.times.append(_days(at))
        self._records.append(record)

    def values(self, count: Callable[[RoundRecord], float]) -> list[float]:
        """Return one value for each time; not a number while nothing is known."""
        return [math.nan if record is None else count(record) for record in self._records]


def _draw_queue(axes: Axes, series: Series) -> None:
    visible = series.values(lambda record: record.visible)
    axes.fill_between(series.times, visible, step="post", color=_BLUE, alpha=0.2, linewidth=0)
    axes.plot(series.times, visible, drawstyle="steps-post", color=_BLUE, linewidth=1.8, label="visible (backlog)")
    in_flight = series.values(lambda record: record.in_flight)
    axes.plot(series.times, in_flight, "--", drawstyle="steps-post", color=_ORANGE, linewidth=1.8, label="in flight")
    axes.set_ylabel("tasks in the queue")
    axes.tick_params(labelbottom=False)
    _finish(axes)


def _draw_fleet(axes: Axes, series: Series, acted: Sequence["Episode"]) -> None:
    layers = [
        ("serving", _GREEN, series.values(lambda record: record.serving)),
        ("booting", _YELLOW, series.values(lambda record: record.booting)),
        ("draining", _PINK, series.values(lambda record: record.draining)),
    ]
    bottom = [0.0] * len(series.times)
    for name, colour, values in layers:
        top = [below + value for below, value in zip(bottom, values, strict=True)]
        label = f"{name} (stacked)"
        axes.fill_between(series.times, bottom, top, step="post", color=colour, alpha=0.75, linewidth=0, label=label)
        bottom = top
    needed = series.values(lambda record: record.needed)
    axes.plot(series.times, needed, drawstyle="steps-post", color="#000000", linewidth=1.6, label="needed")
    stopped = series.values(lambda record: record.stopped)
    if any(value > 0 for value in stopped):
        axes.plot(series.times, stopped, ":", drawstyle="steps-post", color="#666666", label="stopped (warm pool)")
    axes.set_ylabel("instances")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call] # matplotlib's own
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call] # as above
    for index, episode in enumerate(acted[:_LISTED], 1):
        at = _days(episode.records[0].at)
        axes.axvline(at, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.annotate(
            str(index),
            (at, 1.03),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=8,
            bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": "#666666", "linewidth": 0.8},
        )


def _finish(axes: Axes) -> None:
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)  # beside, where it hides nothing


@dataclass(frozen=True, slots=True)
class Episode:
    """Actions that are so close together that the picture shows them as one."""

    records: list[RoundRecord]

    def __str__(self) -> str:
        """Describe when, what, and the reason of the first action."""
        first, last = self.records[0], self.records[-1]
        numbers: dict[str, set[int]] = {}
        for part in "; ".join(record.actions for record in self.records).split("; "):
            name = re.sub(r"[\d, -]+", " ", part).strip()
            runs = re.findall(r"(\d+)(?:-(\d+))?", part)
            numbers.setdefault(name, set()).update(n for a, b in runs for n in range(int(a), int(b or a) + 1))
        actions = "; ".join(f"{name} {ranges(each)}" for name, each in numbers.items())
        until = "" if first is last else f" to {_time(last.at):%H:%M:%S}"
        return f"{_time(first.at):%H:%M:%S}{until}  {actions}: {first.reason}"


def episodes(acted: Sequence[RoundRecord], apart_seconds: float) -> list[Episode]:
    """Unite records that are closer together than that."""
    found: list[Episode] = []
    for record in acted:
        if found and record.at - found[-1].records[0].at < apart_seconds:
            found[-1].records.append(record)
        else:
            found.append(Episode([record]))
    return found


def _lines(acted: Sequence[Episode]) -> list[str]:
    lines = []
    for index, episode in enumerate(acted[:_LISTED], 1):
        lines += textwrap.wrap(
            f"{index:>2}  {episode}", _CHARACTERS, subsequent_indent=" " * 14, max_lines=2, placeholder=" …"
        )
    if len(acted) > _LISTED:
        lines.append(f"    … and {len(acted) - _LISTED} more: `facerec fleet history`")
    return lines or ["nothing was done in this time"]


def _days(at: float) -> float:
    """Convert to matplotlib's unit of time."""
    return at / 86_400


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def plot_simulation(path: Path, trace: Trace, runs: dict[str, Run], policy: Policy) -> None:
    """Write a PNG: backlog, instances and latency over time; one policy is shown in more detail than several."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    FigureCanvasAgg(figure)
    backlog, instances, latency = figure.subplots(3, sharex=True)
    minutes = trace.duration_seconds / 60
    if len(runs) == 1:
        ((name, run),) = runs.items()
        _draw_one(backlog, instances, run)
        figure.suptitle(f"{trace.name}: {name}, {_figures(run)}")
    else:
        _draw_several(backlog, instances, runs)
        figure.suptitle(f"{trace.name}: {len(trace.arrivals):,} requests, at most {policy.max_instances} instances")
    for name, run in runs.items():
        colour, stroke, width = _LOOKS[name]
        label = f"{name}: {_figures(run)}" if len(runs) > 1 else "95th percentile of those close by"
        if len(runs) == 1 and len(trace.arrivals) <= _DOTS:
            times = [arrival / 60 for arrival in trace.arrivals]
            latency.plot(times, run.latencies, ".", color=_ORANGE, alpha=0.4, markersize=3, label="each request")
        latency.plot(
            *_percentiles(trace, run), color=colour, linestyle=stroke, linewidth=width, marker=".", label=label
        )
        minutes = max(minutes, run.moments[-1].at / 60)
    instances.axhline(policy.max_instances, color=_INK, linewidth=0.8, linestyle=":")
    instances.annotate("cap", (minutes, policy.max_instances), (2, 2), textcoords="offset points", fontsize="small")
    instances.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axes, title in ((backlog, "open tasks"), (instances, "instances"), (latency, "latency, s")):
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(runs) == 1:
            axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    if len(runs) > 1:
        figure.legend(*latency.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    latency.set_xlim(0, minutes)
    latency.set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def _draw_one(backlog: Axes, instances: Axes, run: Run) -> None:
    times = [moment.at / 60 for moment in run.moments]
    waiting = [moment.visible for moment in run.moments]
    held = [moment.visible + moment.in_flight for moment in run.moments]
    backlog.fill_between(times, waiting, color=_BLUE, alpha=0.75, linewidth=0, label="visible (backlog)")
    backlog.fill_between(times, waiting, held, color=_BLUE, alpha=0.3, linewidth=0, label="in flight")
    serving = [moment.serving for moment in run.moments]
    both = [moment.serving + moment.booting for moment in run.moments]
    instances.fill_between(times, serving, step="post", color=_BLUE, alpha=0.6, linewidth=0, label="running")
    instances.fill_between(
        times, serving, both, step="post", color=_ORANGE, alpha=0.8, linewidth=0, hatch="//", label="booting"
    )
    desired = [moment.desired for moment in run.moments]
    instances.step(times, desired, where="post", color=_INK, linewidth=1.2, label="needed")


def _draw_several(backlog: Axes, instances: Axes, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        colour, stroke, width = _LOOKS[name]
        times = [moment.at / 60 for moment in run.moments]
        tasks = [moment.visible + moment.in_flight for moment in run.moments]
        active = [moment.serving + moment.booting for moment in run.moments]
        backlog.plot(times, tasks, color=colour, linestyle=stroke, linewidth=width)
        instances.step(times, active, where="post", color=colour, linestyle=stroke, linewidth=width)


def _percentiles(trace: Trace, run: Run) -> tuple[Sequence[float], Sequence[float]]:
    """Return the middle of each window, and the 95th percentile of its requests; a gap where there were none."""
    width = trace.duration_seconds / _WINDOWS
    times, values = [], []
    for window in range(_WINDOWS):
        first, end = (bisect_left(trace.arrivals, edge * width) for edge in (window, window + 1))
        times.append((window + 0.5) * width / 60)
        values.append(percentile(sorted(run.latencies[first:end]), 95) if end > first else math.nan)
    return times, values


def _figures(run: Run) -> str:
    return f"p95 {run.outcome.p95_s:.1f} s, {run.outcome.cost_per_1000:.4f} $ a thousand"
