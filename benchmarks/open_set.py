"""Strangers in galleries of a hundred to a million people, by simulation from impostor tails.

    python -m benchmarks.open_set                          # every pack's

Each stranger is compared with N people. The similarities are drawn from the quantile function of the tail, by
themselves; the greatest decides. Up to 10 000 people every comparison is drawn, beyond that the greatest alone, from
its own distribution: the rarest of N uniform rates is 1 - U^(1/N). Told is the share of strangers with a name (FPIR) at
the threshold for so many people, and for comparison at the one for comparing one to one (FMR 1e-3).

What is drawn from the tail cannot say whether the tail is right. `cut` looks at the extrapolation: it takes the
threshold from a tail that is known to FMR 1e-5 only, for as many people as the whole tail has measured, and draws from
the whole one. Photos of people and strangers tell the rest: `facerec evaluate --open-set`.

The last line is one JSON object. The exit status is 1 when surely more strangers than the share get a name.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation import wilson
from model.packs.catalogue import PACKS
from model.tail import VERIFICATION_FMR, ImpostorTail, identification_threshold

EACH_UP_TO = 10_000
"""People up to whom every comparison is drawn."""
KNOWN_TO = 1e-5
"""The rarest rate of the tail that is cut."""
AT_ONCE = 4_000_000
CHANCE = 1.2
"""How far above the share the interval must lie: of a dozen intervals of 95 %, one may miss it."""


def main() -> None:
    """Simulate each tail and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, nargs="+", default=[100, 10_000, 1_000_000])
    parser.add_argument("--strangers", type=int, default=20_000)
    parser.add_argument("--false-names", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tails = {pack.name: pack.tail for pack in PACKS.values()}
    random = np.random.default_rng(options.seed)
    result: dict[str, Any] = {"false_names": options.false_names, "strangers": options.strangers}
    for name, tail in tails.items():
        result[name] = simulated(tail, options.people, options.strangers, options.false_names, random)
        tell(name, result[name])
    too_many = [
        f"{name}, {size['people']} people"
        for name in tails
        for size in result[name]["sizes"]
        if size["fpir_interval"][0] > options.false_names * CHANCE
    ]
    print(json.dumps(result | {"too_many_names": too_many}))
    sys.exit(1 if too_many else 0)


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


def tell(name: str, figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{name} (shape {figures['shape']:g})")
    for label, size in [*(("", size) for size in figures["sizes"]), ("known to 1e-5 only: ", figures["cut"])]:
        low, high = size["fpir_interval"]
        print(
            f"  {label}{size['people']} people: threshold {size['threshold']:.4f}"
            f"{' (extrapolated)' if size['extrapolated'] else ''}, strangers with a name {size['fpir']:.2%} "
            f"[{low:.2%}, {high:.2%}]; at the threshold of one to one {size['fpir_at_verification']:.1%}"
        )


if __name__ == "__main__":
    main()
