"""The picture of `facerec fleet history`: backlog and fleet over time, with what was done and why."""

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoscale.ports import Record
from autoscale.round_result import in_words

# Told apart by colour-blind readers too, and in grey (Okabe and Ito).
_VISIBLE, _IN_FLIGHT, _NEEDED = "#0072B2", "#E69F00", "#000000"
_SERVING, _BOOTING, _DRAINING = "#009E73", "#F0E442", "#CC79A7"
_SILENT_SECONDS = 30.0
"""There is a record every ten seconds while anything runs: a longer gap means that nothing was known."""
_APART = 0.022
"""Share of the width by which two marks must lie apart; what is closer is told together."""
_LISTED = 14
"""Episodes that the picture lists; of more it says how many there were."""
_WIDTH = 150
"""Characters of a line of the list."""


def draw(records: Sequence[Record], path: Path, *, until: float) -> None:
    """Write the PNG; `records` are in order of time, at least one; `until` is in seconds since the epoch."""
    apart_seconds = (until - records[0].at) * _APART
    told = episodes([record for record in records if record.actions], apart_seconds)
    lines = _lines(told)
    listed = max(1, len(lines))
    figure = Figure(figsize=(13, 7 + 0.21 * listed), layout="constrained", dpi=120)
    grid = figure.add_gridspec(3, 1, height_ratios=[3, 3, 0.1 + 0.19 * listed])
    queue = figure.add_subplot(grid[0])
    fleet = figure.add_subplot(grid[1], sharex=queue)
    series = Series(records, until)
    _draw_queue(queue, series)
    _draw_fleet(fleet, series, told)
    _write_list(figure.add_subplot(grid[2]), lines)
    span = f"{_time(records[0].at):%Y-%m-%d %H:%M:%S} to {_time(until):%H:%M:%S} UTC"
    figure.suptitle(f"Backlog and fleet, {span}", fontsize=13)
    with mpl.rc_context({"agg.path.chunksize": 10_000}):
        figure.savefig(path, format="png")


class Series:
    """Values over time, as steps: each holds until the next record, or until nothing is known."""

    def __init__(self, records: Sequence[Record], until: float) -> None:
        self._records: list[Record | None] = []
        self.times: list[float] = []
        for record, following in zip(records, [*(r.at for r in records[1:]), until], strict=True):
            self._add(record.at, record)
            if following - record.at > _SILENT_SECONDS and not _idle(record):
                self._add(record.at + _SILENT_SECONDS, None)
        last = self._records[-1]
        self._add(max(until, records[-1].at), last)

    def _add(self, at: float, record: Record | None) -> None:
        self.times.append(_days(at))
        self._records.append(record)

    def values(self, count: Callable[[Record], float]) -> list[float]:
        """One value for each time; not a number where nothing is known."""
        return [math.nan if record is None else count(record) for record in self._records]


def _draw_queue(axes: Axes, series: Series) -> None:
    visible = series.values(lambda one: one.visible)
    axes.fill_between(series.times, visible, step="post", color=_VISIBLE, alpha=0.2, linewidth=0)
    axes.plot(series.times, visible, drawstyle="steps-post", color=_VISIBLE, linewidth=1.8, label="visible (backlog)")
    in_flight = series.values(lambda one: one.in_flight)
    axes.plot(series.times, in_flight, "--", drawstyle="steps-post", color=_IN_FLIGHT, linewidth=1.8, label="in flight")
    axes.set_ylabel("tasks in the queue")
    axes.tick_params(labelbottom=False)
    _finish(axes)


def _draw_fleet(axes: Axes, series: Series, told: Sequence["Episode"]) -> None:
    layers = [
        ("serving", _SERVING, series.values(lambda one: one.serving)),
        ("booting", _BOOTING, series.values(lambda one: one.booting)),
        ("draining", _DRAINING, series.values(lambda one: one.draining)),
    ]
    bottom = [0.0] * len(series.times)
    for name, colour, values in layers:
        top = [below + value for below, value in zip(bottom, values, strict=True)]
        axes.fill_between(
            series.times, bottom, top, step="post", color=colour, alpha=0.75, linewidth=0, label=f"{name} (stacked)"
        )
        bottom = top
    axes.plot(
        series.times,
        series.values(lambda one: one.needed),
        drawstyle="steps-post",
        color=_NEEDED,
        linewidth=1.6,
        label="needed",
    )
    stopped = series.values(lambda one: one.stopped)
    if any(value > 0 for value in stopped):
        axes.plot(series.times, stopped, ":", drawstyle="steps-post", color="#666666", label="stopped (warm pool)")
    axes.set_ylabel("instances")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes)
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call] # matplotlib's own
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call] # as above
    _mark(axes, told)


def _mark(axes: Axes, told: Sequence["Episode"]) -> None:
    """Number the listed episodes above the axes."""
    for index, episode in enumerate(told[:_LISTED], 1):
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
    """Actions that lie so close together that the picture shows them as one."""

    records: list[Record]

    def __str__(self) -> str:
        """When, what, and the reason of the first."""
        first, last = self.records[0], self.records[-1]
        numbers: dict[str, set[int]] = {}
        for part in "; ".join(record.actions for record in self.records).split("; "):
            name = re.sub(r"[\d, -]+", " ", part).strip()
            runs = re.findall(r"(\d+)(?:-(\d+))?", part)
            numbers.setdefault(name, set()).update(n for a, b in runs for n in range(int(a), int(b or a) + 1))
        actions = "; ".join(f"{name} {in_words(each)}" for name, each in numbers.items())
        until = "" if first is last else f" to {_time(last.at):%H:%M:%S}"
        return f"{_time(first.at):%H:%M:%S}{until}  {actions}: {first.reason}"


def episodes(acted: Sequence[Record], apart_seconds: float) -> list[Episode]:
    """Unite what lies closer together than that."""
    found: list[Episode] = []
    for record in acted:
        if found and record.at - found[-1].records[0].at < apart_seconds:
            found[-1].records.append(record)
        else:
            found.append(Episode([record]))
    return found


def _lines(told: Sequence[Episode]) -> list[str]:
    lines = []
    for index, episode in enumerate(told[:_LISTED], 1):
        lines += textwrap.wrap(
            f"{index:>2}  {episode}", _WIDTH, subsequent_indent=" " * 14, max_lines=2, placeholder=" …"
        )
    if len(told) > _LISTED:
        lines.append(f"    … and {len(told) - _LISTED} more: `facerec fleet history`")
    return lines or ["nothing was done in this time"]


def _write_list(axes: Axes, lines: Sequence[str]) -> None:
    axes.axis("off")
    axes.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=8, transform=axes.transAxes)


def _idle(record: Record) -> bool:
    """Whether there was nothing to record any more."""
    return not (record.visible or record.in_flight or record.booting or record.serving or record.draining)


def _days(at: float) -> float:
    """Matplotlib's unit of time."""
    return at / 86_400


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
