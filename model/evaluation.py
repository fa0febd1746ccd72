"""How well cosines distinguish people: error rates, thresholds, and their confidence intervals; pure functions.

A *trial* compares two photos: genuine when they show one person, impostor otherwise. A pair matches when its cosine is
at or above the threshold. FMR is the share of impostor trials that match, TAR (1 - false non-match rate) that of
genuine ones; terms as in ISO/IEC 19795-1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ERRORS_NEEDED = 10
"""A rate p is reported from 10/p trials on, which give ten errors on average; with fewer it is mostly chance."""
STEP = 1e-4  # thresholds are multiples of it, rounded up
SHARED = 2.0  # with more pairs per photo on average, pairs depend on each other too much to be drawn one by one
_Z = 1.959963984540054  # the two-sided 95 % quantile of the normal distribution
_TAILS = (2.5, 97.5)  # percentiles of a 95 % interval
DRAWS = 1000  # resamplings of a bootstrap
_SEED = 0  # the same trials give the same intervals


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Scored pairs: `cosines` float (P,), `same` bool (P,), and `left`, `right` the two photos' numbers, int (P,)."""

    cosines: Floats
    same: NDArray[np.bool_]
    left: NDArray[np.intp]
    right: NDArray[np.intp]

    @property
    def genuine(self) -> Floats:
        """The cosines of pairs of one person."""
        return self.cosines[self.same]

    @property
    def impostor(self) -> Floats:
        """The cosines of pairs of different people."""
        return self.cosines[~self.same]

    @property
    def pairs_a_photo(self) -> float:
        """The mean number of pairs of a photo; 0 without pairs."""
        photos = len(np.unique(np.concatenate([self.left, self.right])))
        return 2 * len(self.cosines) / photos if photos else 0.0

    def where(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the chosen trials, bool (P,)."""
        return type(self)(self.cosines[chosen], self.same[chosen], self.left[chosen], self.right[chosen])

    @classmethod
    def all_against_all(cls, embeddings: NDArray[np.float32], owners: NDArray[np.intp]) -> Self:
        """Return every pair of the embeddings (N, D), L2-normalised; `owners` (N,) numbers the people."""
        left, right = np.triu_indices(len(embeddings), 1)
        cosines = (embeddings.astype(np.float64) @ embeddings.T.astype(np.float64))[left, right]
        return cls(cosines, owners[left] == owners[right], left, right)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """FMR and TAR at each distinct cosine as the threshold, descending: three arrays of one length."""

    thresholds: Floats
    fmr: Floats
    tar: Floats

    @property
    def auc(self) -> float:
        """The area under TAR over FMR: the chance that a genuine pair beats an impostor pair; ties count half."""
        return float(np.trapezoid(np.append(0.0, self.tar), np.append(0.0, self.fmr)))

    @property
    def eer(self) -> float:
        """The rate at which FMR equals 1 - TAR, linear between neighbouring thresholds."""
        fmr, tar = np.append(0.0, self.fmr), np.append(0.0, self.tar)
        excess = fmr - (1 - tar)  # rises from -1 to 1
        after = int(np.argmax(excess >= 0))
        share = -excess[after - 1] / (excess[after] - excess[after - 1])
        return float(fmr[after - 1] + share * (fmr[after] - fmr[after - 1]))

    @property
    def overlap(self) -> float:
        """The least sum of both error rates (1 - Youden's J): 0 if one threshold separates all pairs."""
        return float(1 - max(0.0, (self.tar - self.fmr).max()))

    def tar_at(self, fmr: float) -> float:
        """Return the largest TAR at which at most this share of impostor pairs matches."""
        allowed = int(np.searchsorted(self.fmr, fmr + 1e-12, side="right"))
        return float(self.tar[allowed - 1]) if allowed else 0.0


def pairs_needed(fmr: float) -> int:
    """Return the least number of impostor pairs for measuring a false match rate: 10/FMR."""
    return math.ceil(ERRORS_NEEDED / fmr - 1e-6)


def threshold_above(cosine: float) -> float:
    """Return the least multiple of 1e-4, at least 0, that this cosine does not reach."""
    steps = math.floor(max(cosine, 0.0) / STEP + 1e-9) + 1
    return round(steps * STEP, 4)


def threshold_at(impostor: Floats, fmr: float) -> float:
    """Return the least threshold, to 1e-4, at which at most this share of the impostor cosines matches.

    Raises ValueError without impostor pairs, and unless the rate is above 0 and below 1.
    """
    if not len(impostor) or not 0 < fmr < 1:
        raise ValueError(f"no threshold for the rate {fmr} from {len(impostor)} impostor pairs")
    allowed = math.floor(fmr * len(impostor) + 1e-9)
    return threshold_above(float(-np.partition(-impostor, allowed)[allowed]))


class Ranking:
    """Trials of both kinds, sorted once for the curves of many weightings."""

    def __init__(self, trials: Trials) -> None:
        self._order = np.argsort(-trials.cosines, kind="stable")
        cosines = trials.cosines[self._order]
        self._same = trials.same[self._order]
        self._ends = _ends(cosines)
        self._thresholds = cosines[self._ends]

    def curve(self, weights: Floats | None = None) -> Curve:
        """Return FMR and TAR over all thresholds; trial i counts `weights[i]` times. Both kinds must have weight."""
        counts = np.ones(len(self._same)) if weights is None else weights[self._order]
        genuine = np.cumsum(np.where(self._same, counts, 0.0))
        impostor = np.cumsum(np.where(self._same, 0.0, counts))
        return Curve(self._thresholds, impostor[self._ends] / impostor[-1], genuine[self._ends] / genuine[-1])


def _ends(ranked: Floats) -> NDArray[np.intp]:
    """Return the last place of each run of equal cosines, which can only match together."""
    return np.flatnonzero(np.append(np.diff(ranked) != 0, [True]))


@dataclass(frozen=True, slots=True)
class FoldAccuracy:
    """Accuracy over folds: the mean, its standard error, and the mean of the chosen thresholds."""

    mean: float
    standard_error: float
    threshold: float
    folds: int


def fold_accuracy(trials: Trials, folds: NDArray[np.intp]) -> FoldAccuracy:
    """Return the accuracy by the protocol of LFW's view 2; `folds` (P,) numbers each trial's fold.

    Each fold is evaluated with the threshold that was best on all the others; the error is that of the mean over folds.
    G. Huang et al., "Labeled Faces in the Wild", UMass 07-49 (2007). Raises ValueError with fewer than two folds.
    """
    numbers = np.unique(folds)
    if len(numbers) < 2:  # noqa: PLR2004 - one fold leaves nothing to choose a threshold on
        raise ValueError("at least two folds are needed")
    accuracies, thresholds = [], []
    for number in numbers:
        held_out = folds == number
        threshold = _most_accurate(trials.cosines[~held_out], trials.same[~held_out])
        accuracies.append(float(((trials.cosines >= threshold) == trials.same)[held_out].mean()))
        thresholds.append(threshold)
    error = float(np.std(accuracies, ddof=1) / math.sqrt(len(numbers)))
    return FoldAccuracy(float(np.mean(accuracies)), error, float(np.mean(thresholds)), len(numbers))


def _most_accurate(cosines: Floats, same: NDArray[np.bool_]) -> float:
    """Return the threshold with the most right answers, in the middle between the cosines beside it."""
    order = np.argsort(-cosines, kind="stable")
    ranked = cosines[order]
    ends = _ends(ranked)
    right = np.cumsum(np.where(same[order], 1, -1))[ends]  # more right answers than with a threshold above all
    best = int(np.argmax(np.append(0, right)))
    if best == 0:
        return float(np.nextafter(ranked[0], np.inf))
    last = ends[best - 1]
    return float((ranked[last] + ranked[last + 1]) / 2) if last + 1 < len(ranked) else float(ranked[last])


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval, both ends included."""

    low: float
    high: float

    def around(self, other: "Interval") -> "Interval":
        """Return the least interval that contains both."""
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
    """Return whether photos recur in so many pairs that photos, not pairs, were sampled."""
    return trials.pairs_a_photo > SHARED


def method(trials: Trials) -> str:
    """Return a sentence on how the intervals of these trials are computed."""
    if shares_photos(trials):
        return "95 %: bootstrap over photos (Owen 2007), for shares widened to Wilson's score interval"
    return "95 %: Wilson's score interval for shares, bootstrap over pairs (Efron 1979) for the rest"


def bootstrap(trials: Trials, statistics: Callable[[Curve], Sequence[float]], *, draws: int = DRAWS) -> list[Interval]:
    """Return the percentile interval of each statistic of the curve over resampled trials of both kinds.

    Pairs are drawn with replacement within their kind: B. Efron, "Bootstrap methods", Ann. Stat. 7 (1979). If photos
    recur, photos are drawn and a pair counts the product of its photos' counts: A. B. Owen, "The pigeonhole bootstrap",
    Ann. Appl. Stat. 1 (2007), mildly conservative.
    """
    ranking, random = Ranking(trials), np.random.default_rng(_SEED)
    resampled = _by_photo(trials, random) if shares_photos(trials) else _by_pair(trials, random)
    values = [statistics(ranking.curve(weights)) for weights, _ in zip(resampled, range(draws), strict=False)]
    return [Interval(float(low), float(high)) for low, high in np.percentile(values, _TAILS, axis=0).T]


def share_interval(hits: NDArray[np.bool_], trials: Trials, *, draws: int = DRAWS) -> Interval:
    """Return the interval of the share of `hits`, bool (P,), among trials of one kind: Wilson's.

    If photos recur it is widened to that of the bootstrap over photos, which alone would claim certainty for 0 %.
    """
    interval = wilson(int(hits.sum()), len(hits))
    if not shares_photos(trials):
        return interval
    resampled = _by_photo(trials, np.random.default_rng(_SEED))
    shares = [weights[hits].sum() / weights.sum() for weights, _ in zip(resampled, range(draws), strict=False)]
    low, high = np.percentile(shares, _TAILS)
    return interval.around(Interval(float(low), float(high)))


def share_by_group(hits: NDArray[np.bool_], groups: NDArray[np.intp]) -> Interval:
    """Return the interval of the share of `hits`, bool (P,), of trials of sampled `groups`, int (P,): Wilson's.

    If a group has several trials it is widened to that of the bootstrap over groups, which alone would claim
    certainty for 0 %: B. Efron, "Bootstrap methods", Ann. Stat. 7 (1979).
    """
    interval = wilson(int(hits.sum()), len(hits))
    _, numbers = np.unique(groups, return_inverse=True)
    trials = np.bincount(numbers)
    if len(trials) == len(hits):
        return interval
    hit, random = np.bincount(numbers, weights=hits), np.random.default_rng(_SEED)
    drawn = (random.integers(len(trials), size=len(trials)) for _ in range(DRAWS))
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
        if all(weights[kind].any() for kind in kinds):  # a draw without one of the kinds has no rates
            yield weights
