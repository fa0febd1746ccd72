"""Strangers in large galleries, simulated from an impostor tail; `benchmarks.open_set` says how."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation import wilson
from model.tail import VERIFICATION_FMR, ImpostorTail, identification_threshold

EACH_UP_TO = 10_000
"""People up to whom every comparison is drawn."""
KNOWN_TO = 1e-5
"""The rarest rate of the tail that is cut."""
AT_ONCE = 4_000_000


def simulated(
    tail: ImpostorTail, people: list[int], strangers: int, false_names: float, random: np.random.Generator
) -> dict[str, Any]:
    """The figures of one tail."""
    verification = tail.similarity_at(VERIFICATION_FMR).value
    known = replace(tail, points=tuple(point for point in tail.points if point[0] >= KNOWN_TO))
    measured = round(false_names / tail.rarest)
    return {
        "shape": tail.shape,
        "sizes": [searched(tail, tail, verification, false_names, count, strangers, random) for count in people],
        "cut": searched(tail, known, verification, false_names, measured, strangers, random),
    }


def searched(
    tail: ImpostorTail,
    known: ImpostorTail,
    verification: float,
    false_names: float,
    people: int,
    strangers: int,
    random: np.random.Generator,
) -> dict[str, Any]:
    """Strangers drawn from one tail, at the threshold that another, known one gives."""
    threshold = identification_threshold(known, verification, false_names, people)
    nearest = np.array([tail.similarity_at(rate).value for rate in rarest(people, strangers, random)])
    named = int((nearest >= threshold.value).sum())
    interval = wilson(named, strangers)
    return {
        "people": people,
        "threshold": round(threshold.value, 4),
        "extrapolated": threshold.extrapolated,
        "fpir": named / strangers,
        "fpir_interval": [round(interval.low, 5), round(interval.high, 5)],
        "fpir_at_verification": float((nearest >= verification).mean()),
    }


def rarest(people: int, strangers: int, random: np.random.Generator) -> Iterator[float]:
    """For each stranger the rate of the nearest of so many people."""
    if people > EACH_UP_TO:
        yield from (-np.expm1(np.log(random.random(strangers)) / people)).tolist()
        return
    step = max(1, AT_ONCE // people)
    for start in range(0, strangers, step):
        rates: NDArray[np.float64] = 1 - random.random((min(step, strangers - start), people))
        yield from rates.min(axis=1).tolist()
