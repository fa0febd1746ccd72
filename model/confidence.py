"""How far a measured rate may be from the true one: 95 % confidence intervals; pure functions."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.evaluation import Curve, Floats, Ranking, Trials

_Z = 1.959963984540054  # of the normal distribution, two-sided 95 %
_TAILS = (2.5, 97.5)  # percentiles
SHARED = 2.0
"""With more pairs a photo than this on average, pairs are too dependent to be drawn one by one."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, both ends included."""

    low: float
    high: float

    def around(self, other: "Interval") -> "Interval":
        """The least interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


def wilson(successes: int, trials: int) -> Interval:
    """Return Wilson's score interval of a share of independent trials; 0 to 1 without any.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if trials == 0:
        return Interval(0.0, 1.0)
    share, z2 = successes / trials, _Z**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low = 0.0 if successes == 0 else centre - half
    return Interval(low, 1.0 if successes == trials else centre + half)


def shares_photos(trials: Trials) -> bool:
    """Whether photos recur in so many pairs that photos, not pairs, are what was sampled."""
    return trials.pairs_a_photo > SHARED


def method(trials: Trials) -> str:
    """How the intervals of these trials are made, for people."""
    if shares_photos(trials):
        return "95 %: bootstrap over photos (Owen 2007), for shares widened to Wilson's score interval"
    return "95 %: Wilson's score interval for shares, bootstrap over pairs (Efron 1979) for the rest"


def bootstrap(
    trials: Trials, statistics: Callable[[Curve], Sequence[float]], *, draws: int = 1000, seed: int = 0
) -> list[Interval]:
    """Return the percentile interval of each statistic of the curve over resampled trials of both kinds.

    Pairs are drawn with replacement within their kind: B. Efron, "Bootstrap methods", Ann. Stat. 7 (1979). Where photos
    recur, photos are drawn and a pair counts the product of its photos' counts: A. B. Owen, "The pigeonhole bootstrap",
    Ann. Appl. Stat. 1 (2007), mildly conservative.
    """
    ranking, random = Ranking(trials), np.random.default_rng(seed)
    resampled = _by_photo(trials, random) if shares_photos(trials) else _by_pair(trials, random)
    values = [statistics(ranking.curve(weights)) for weights, _ in zip(resampled, range(draws), strict=False)]
    return [Interval(float(low), float(high)) for low, high in np.percentile(values, _TAILS, axis=0).T]


def share_interval(hits: NDArray[np.bool_], trials: Trials, *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the interval of the share of `hits`, bool (P,), among trials of one kind: Wilson's.

    Where photos recur it is widened to that of the bootstrap over photos, which alone would claim certainty for 0 %.
    """
    interval = wilson(int(hits.sum()), len(hits))
    if not shares_photos(trials):
        return interval
    resampled = _by_photo(trials, np.random.default_rng(seed))
    shares = [weights[hits].sum() / weights.sum() for weights, _ in zip(resampled, range(draws), strict=False)]
    low, high = np.percentile(shares, _TAILS)
    return interval.around(Interval(float(low), float(high)))


def share_by_group(hits: NDArray[np.bool_], groups: NDArray[np.intp], *, draws: int = 1000, seed: int = 0) -> Interval:
    """Return the interval of the share of `hits`, bool (P,), of trials of sampled `groups`, int (P,): Wilson's.

    Where a group has several trials it is widened to that of the bootstrap over groups, which alone would claim
    certainty for 0 %: B. Efron, "Bootstrap methods", Ann. Stat. 7 (1979).
    """
    interval = wilson(int(hits.sum()), len(hits))
    _, numbers = np.unique(groups, return_inverse=True)
    trials = np.bincount(numbers)
    if len(trials) == len(hits):
        return interval
    hit, random = np.bincount(numbers, weights=hits), np.random.default_rng(seed)
    drawn = (random.integers(len(trials), size=len(trials)) for _ in range(draws))
    low, high = np.percentile([hit[groups].sum() / trials[groups].sum() for groups in drawn], _TAILS)
    return interval.around(Interval(float(low), float(high)))


def _by_pair(trials: Trials, random: np.random.Generator) -> Iterator[Floats]:
    kinds = [np.flatnonzero(trials.same), np.flatnonzero(~trials.same)]
    while True:
        weights = np.zeros(len(trials.same))
        for kind in kinds:
            weights[kind] = np.bincount(random.integers(len(kind), size=len(kind)), minlength=len(kind))
        yield weights


def _by_photo(trials: Trials, random: np.random.Generator) -> Iterator[Floats]:
    photos, places = np.unique(np.concatenate([trials.left, trials.right]), return_inverse=True)
    left, right = np.split(places, 2)
    kinds = [kind for kind in (trials.same, ~trials.same) if kind.any()]
    while True:
        counts = np.bincount(random.integers(len(photos), size=len(photos)), minlength=len(photos))
        weights = (counts[left] * counts[right]).astype(np.float64)
        if all(weights[kind].any() for kind in kinds):  # a draw without one of the kinds says nothing
            yield weights
