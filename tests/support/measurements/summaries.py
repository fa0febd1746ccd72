"""Summaries of the benchmarks' figures, and the checks that make a benchmark fail."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean
from typing import Any

from autoscale.simulator.run import POLICIES

BurstFigures = dict[str, float | None]


def burst_summary(bursts: list[BurstFigures], max_instances: int) -> dict[str, Any]:
    """Return sums of counts, the worst of times, and the failed checks (`amiss`)."""
    sums = ("answered", "wrong", "lost", "left_visible", "left_in_flight", "left_responses")
    worst = ("max_running", "to_first_answer_s", "to_last_answer_s", "to_zero_s")
    figures: BurstFigures = {name: sum(burst[name] or 0 for burst in bursts) for name in sums}
    for name in worst:
        seen = [value for burst in bursts if (value := burst[name]) is not None]
        figures[name] = max(seen) if len(seen) == len(bursts) else None
    return {
        **figures,
        "max_instances": max_instances,
        "bursts": bursts,
        "amiss": burst_failures(figures, max_instances),
    }


def burst_failures(figures: BurstFigures, max_instances: int) -> list[str]:
    """The names of the figures that make a burst a failure."""
    wrong = [
        name for name in ("wrong", "lost", "left_visible", "left_in_flight", "left_responses") if figures[name] != 0
    ]
    if not figures["answered"]:
        wrong.append("answered")
    if not 0 < (figures["max_running"] or 0) <= max_instances:
        wrong.append("max_running")
    return wrong


FROM_ONE = "ours-from-one"


PolicyFigures = dict[str, float]


Table = dict[str, dict[str, PolicyFigures]]
"""Trace → policy → figures."""


Comparison = dict[str, Any]


def comparison(table: Table) -> Comparison:
    """Compare ours with the others: geometric means of the ratios over the traces, and which policy dominates which."""
    baselines = [name for name in POLICIES if name != "ours"]
    result: Comparison = {}
    for baseline in baselines:
        result |= ratios(table, "ours", baseline)
    pairs = [(trace, baseline) for trace in table for baseline in baselines]
    result["pairs"] = len(pairs)
    result["dominates"] = sum(dominates(table[trace]["ours"], table[trace][other]) for trace, other in pairs)
    result["dominated_by"] = [
        f"{other} on {trace}" for trace, other in pairs if dominates(table[trace][other], table[trace]["ours"])
    ]
    result["faster_than_ours"] = beaten(table, pairs, "p95_s")
    result["cheaper_than_ours"] = beaten(table, pairs, "cost_per_1000")
    result["over_cap"] = max(figures["over_cap"] for row in table.values() for figures in row.values())
    result["lost"] = max(figures["lost"] for row in table.values() for figures in row.values())
    from_one = [(trace, "target-tracking") for trace in table]
    result["from_one"] = {
        **ratios(table, FROM_ONE, "target-tracking"),
        "dominates": sum(dominates(table[trace][FROM_ONE], table[trace][other]) for trace, other in from_one),
        "dominated_by": [
            f"{other} on {trace}" for trace, other in from_one if dominates(table[trace][other], table[trace][FROM_ONE])
        ],
        "pairs": len(from_one),
    }
    return result


def comparison_failures(summary: Comparison) -> list[str]:
    """The names of the figures that make a comparison a failure."""
    wrong = [name for name in ("over_cap", "lost", "dominated_by") if summary[name]]
    return wrong + (["from_one dominated_by"] if summary["from_one"]["dominated_by"] else [])


def ratios(table: Table, ours: str, baseline: str) -> dict[str, float]:
    """Ours by theirs: below 1 is better."""
    known = baseline.replace("-", "_")
    return {
        f"{word}_vs_{known}": round(geometric_mean(row[ours][key] / row[baseline][key] for row in table.values()), 3)
        for word, key in (("p95", "p95_s"), ("cost", "cost_per_1000"))
    }


def dominates(ours: PolicyFigures, other: PolicyFigures) -> bool:
    """Whether ours is both faster and cheaper."""
    return ours["p95_s"] < other["p95_s"] and ours["cost_per_1000"] < other["cost_per_1000"]


def beaten(table: Table, pairs: Sequence[tuple[str, str]], key: str) -> list[str]:
    """Where a baseline is better by one figure."""
    return [f"{other} on {trace}" for trace, other in pairs if table[trace][other][key] < table[trace]["ours"][key]]


def scale_failures(runs: dict[str, dict[str, float]]) -> list[str]:
    """The runs that failed, each with its reason."""
    return [f"{name}: {what}" for name, figures in runs.items() for what in ("lost", "over_cap") if figures[what]]


_MOST_PERCENT = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """One backlog's drain; CPU time in milliseconds for each task."""

    worker_cpu_ms: float
    process_cpu_ms: float
    emulator_cpu_ms: float
    sends_per_task: float


def events_cost(off: list[Turn], on: list[Turn], alone: float) -> dict[str, object]:
    """What events cost by turns without and with them, and by their CPU milliseconds for each task alone."""

    def middle(turns: list[Turn]) -> dict[str, float]:
        columns = [asdict(turn) for turn in turns]
        return {name: round(statistics.median(column[name] for column in columns), 3) for name in columns[0]}

    def differences(figure: str) -> list[float]:
        """In percent: the lower quartile over the pairs, and their median."""
        ratios = [getattr(b, figure) / getattr(a, figure) for a, b in zip(off, on, strict=True)]
        lower, median, _ = statistics.quantiles(ratios * 2 if len(ratios) == 1 else ratios, method="inclusive")
        return [round(ratio * 100 - 100, 1) for ratio in (lower, median)]

    percent = round(alone / middle(off)["worker_cpu_ms"] * 100, 2)
    lower, median = differences("worker_cpu_ms")
    compared = all(turn.sends_per_task > 0 for turn in on) and not any(turn.sends_per_task for turn in off)
    return {
        "off": middle(off),
        "on": middle(on),
        "difference_percent": median,
        "difference_lower_quartile_percent": lower,
        "process_difference_percent": differences("process_cpu_ms")[1],
        "events_cpu_ms": round(alone, 3),
        "events_percent": percent,
        "events_process_percent": round(alone / middle(off)["process_cpu_ms"] * 100, 1),
        "rounds": len(off),
        "compared": compared,
        "passed": compared and percent < _MOST_PERCENT and lower <= _MOST_PERCENT,
    }
