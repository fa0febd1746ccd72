"""How many strangers get a name in galleries of a hundred to a million people, simulated from impostor tails.

    python -m benchmarks.open_set                          # every pack's

Each stranger is compared with N people. The similarities are drawn independently from the quantile function of the
tail; the greatest decides. Up to 10 000 people every comparison is drawn. Beyond that only the greatest is drawn, from
its own distribution: the rarest of N uniform rates is 1 - U^(1/N). The result is the share of strangers with a name
(FPIR) at the threshold for N people, and for comparison at the threshold for one-to-one (FMR 1e-3).

Draws from the tail cannot show whether the tail is right. `cut` tests the extrapolation: it takes the threshold from
the part of the tail up to FMR 1e-5, and draws from the whole tail. For real photos: `facerec evaluate --open-set`.

The last line is one JSON object. The exit status is 1 if significantly more strangers get a name than allowed.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np

from model.packs.catalogue import PACKS
from tests.support.measurements.open_set import simulated

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
