"""The plot of `facerec simulate`: backlog, instances and latency over time."""

from bisect import bisect_left
from collections.abc import Sequence
from math import nan
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoscale.policy import Policy
from autoscale.simulator.run import Run, percentile
from autoscale.simulator.scenario import Trace

# Told apart by colour-blind readers too (Okabe and Ito), and by their strokes.
_LOOKS = {
    "ours": ("#0072b2", "-", 2.0),
    "naive": ("#e69f00", "--", 1.2),
    "keda": ("#009e73", "-.", 1.2),
    "target-tracking": ("#cc79a7", (0, (3, 1, 1, 1, 1, 1)), 1.2),
}
_BOOTING, _INK = "#e69f00", "#222222"
_WINDOWS = 120
"""Of the latencies: each one's 95th percentile is drawn."""
_DOTS = 20_000
"""Of more requests than that, only the percentiles are drawn."""


def draw(path: Path, trace: Trace, runs: dict[str, Run], policy: Policy) -> None:
    """Write the picture; one policy is shown in more detail than several."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    FigureCanvasAgg(figure)
    backlog, instances, latency = figure.subplots(3, sharex=True)
    minutes = trace.duration_seconds / 60
    if len(runs) == 1:
        ((name, run),) = runs.items()
        _detail(backlog, instances, run)
        figure.suptitle(f"{trace.name}: {name}, {_words(run)}")
    else:
        _overlay(backlog, instances, runs)
        figure.suptitle(f"{trace.name}: {len(trace.arrivals):,} requests, at most {policy.max_instances} instances")
    for name, run in runs.items():
        colour, stroke, width = _LOOKS[name]
        label = f"{name}: {_words(run)}" if len(runs) > 1 else "95th percentile of those close by"
        if len(runs) == 1 and len(trace.arrivals) <= _DOTS:
            times = [arrival / 60 for arrival in trace.arrivals]
            latency.plot(times, run.latencies, ".", color=_BOOTING, alpha=0.4, markersize=3, label="each request")
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


def _detail(backlog: Axes, instances: Axes, run: Run) -> None:
    times = [moment.at / 60 for moment in run.moments]
    waiting = [moment.visible for moment in run.moments]
    held = [moment.visible + moment.in_flight for moment in run.moments]
    colour = _LOOKS["ours"][0]
    backlog.fill_between(times, waiting, color=colour, alpha=0.75, linewidth=0, label="visible (backlog)")
    backlog.fill_between(times, waiting, held, color=colour, alpha=0.3, linewidth=0, label="in flight")
    serving = [moment.serving for moment in run.moments]
    both = [moment.serving + moment.booting for moment in run.moments]
    instances.fill_between(times, serving, step="post", color=colour, alpha=0.6, linewidth=0, label="running")
    instances.fill_between(
        times, serving, both, step="post", color=_BOOTING, alpha=0.8, linewidth=0, hatch="//", label="booting"
    )
    desired = [moment.desired for moment in run.moments]
    instances.step(times, desired, where="post", color=_INK, linewidth=1.2, label="needed")


def _overlay(backlog: Axes, instances: Axes, runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        colour, stroke, width = _LOOKS[name]
        times = [moment.at / 60 for moment in run.moments]
        tasks = [moment.visible + moment.in_flight for moment in run.moments]
        active = [moment.serving + moment.booting for moment in run.moments]
        backlog.plot(times, tasks, color=colour, linestyle=stroke, linewidth=width)
        instances.step(times, active, where="post", color=colour, linestyle=stroke, linewidth=width)


def _percentiles(trace: Trace, run: Run) -> tuple[Sequence[float], Sequence[float]]:
    """The 95th percentile of the requests that came in each window, at its middle; a gap where there were none."""
    width = trace.duration_seconds / _WINDOWS
    times, values = [], []
    for window in range(_WINDOWS):
        first, end = (bisect_left(trace.arrivals, edge * width) for edge in (window, window + 1))
        times.append((window + 0.5) * width / 60)
        values.append(percentile(sorted(run.latencies[first:end]), 95) if end > first else nan)
    return times, values


def _words(run: Run) -> str:
    told = run.outcome
    return f"p95 {told.p95_s:.1f} s, {told.cost_per_1000:.4f} $ a thousand"
