"""What is known of a recogniser's accuracy from scored trials, each figure with what it rests on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.evaluation import (
    FoldAccuracy,
    Interval,
    Ranking,
    Trials,
    bootstrap,
    fold_accuracy,
    method,
    pairs_needed,
    share_interval,
    threshold_at,
)

TARGETS = (1e-2, 1e-3, 1e-4)
"""The false match rates that are reported."""

_PAIRS_DRAWN = 200_000_000
"""Pairs times draws of a bootstrap: 1000 draws up to 200 000 pairs, fewer beyond, 100 at least."""

_NOISE = 1e-9  # of rounding, in rates that are the same


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its interval.

    The interval is absent where resampling cannot tell: of a single pair, and of pairs that are all on the right side,
    where every draw says the same.
    """

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Both rates at a threshold; a rate is absent where there is no pair of its kind."""

    threshold: float
    fmr: Measured | None
    tar: Measured | None


_RATES = tuple(field.name for field in fields(OperatingPoint))


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """Figures of one set of trials; those that it says nothing of are absent."""

    genuine_pairs: int
    impostor_pairs: int
    auc: Measured | None
    eer: Measured | None
    at_fmr: dict[float, OperatingPoint | None]
    """By target; absent without impostor pairs, and to be taken as `weak` says."""
    at_threshold: OperatingPoint
    """At the threshold in use."""
    folds: FoldAccuracy | None
    intervals: str
    """How the intervals were made."""

    def weak(self, target: float) -> bool:
        """Whether fewer than 10/FMR impostor pairs were there: the rate rests on few false matches, or on none."""
        return self.impostor_pairs < pairs_needed(target)

    def to_json(self) -> dict[str, Any]:
        """The same for `json.dumps`."""
        plain = asdict(self)
        plain["at_fmr"] = {
            f"{target:g}": (dict.fromkeys(_RATES) if point is None else asdict(point))
            | {"weak": self.weak(target), "impostor_pairs_needed": pairs_needed(target)}
            for target, point in self.at_fmr.items()
        }
        return plain


def assess(
    trials: Trials, folds: NDArray[np.intp] | None, threshold: float, targets: Sequence[float] = TARGETS
) -> AccuracyReport:
    """Return the figures; `folds` number the trials for LFW's protocol, `threshold` is the one in use."""
    genuine, impostor = len(trials.genuine), len(trials.impostor)
    auc = eer = None
    if genuine and impostor:
        curve = Ranking(trials).curve()
        ranges = bootstrap(trials, lambda drawn: (drawn.auc, drawn.eer), draws=_draws(len(trials.cosines)))
        auc, eer = (
            Measured(value, interval if interval.high - interval.low > _NOISE else None)
            for value, interval in zip((curve.auc, curve.eer), ranges, strict=True)
        )
    return AccuracyReport(
        genuine_pairs=genuine,
        impostor_pairs=impostor,
        auc=auc,
        eer=eer,
        at_fmr={
            target: operating_point(trials, threshold_at(trials.impostor, target)) if impostor else None
            for target in targets
        },
        at_threshold=operating_point(trials, threshold),
        folds=None if folds is None or len(np.unique(folds)) == 1 else fold_accuracy(trials, folds),
        intervals=method(trials),
    )


def operating_point(trials: Trials, threshold: float) -> OperatingPoint:
    """Return both rates at a threshold with their intervals."""
    return OperatingPoint(
        threshold, _share(trials.where(~trials.same), threshold), _share(trials.where(trials.same), threshold)
    )


def _share(trials: Trials, threshold: float) -> Measured | None:
    hits = trials.cosines >= threshold
    if not len(hits):
        return None
    return Measured(float(hits.mean()), share_interval(hits, trials, draws=_draws(len(hits))))


def _draws(pairs: int) -> int:
    return min(1000, max(100, _PAIRS_DRAWN // pairs))
