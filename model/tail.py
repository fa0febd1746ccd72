"""How often strangers look alike: a model's impostor tail, and the threshold for a gallery's size; pure.

Only the standard library is imported, because every process reads a tail with the model's description.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

VERIFICATION_FMR = 1e-3
"""The false match rate of a one-to-one comparison, and the highest rate that the fit of the tail uses."""
_FEWEST = 3  # points of a fit: it has three unknowns
_SHAPES = tuple(-number / 1000 for number in range(501))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A similarity or a rate, and whether it lies beyond the measured range."""

    value: float
    extrapolated: bool


@dataclass(frozen=True)
class ImpostorTail:
    """The similarities that comparisons of different people reach, by their rate.

    `points` are pairs of a false match rate (FMR) and the similarity that this share of the comparisons reaches, from
    the highest rate to the lowest; `pairs` is the number of comparisons, `source` describes the photos.

    Between the points, and from the first point to similarity 0, which every comparison reaches, log10(FMR) is linear
    in the similarity. Beyond the last point the tail continues as a generalised Pareto distribution: with X the
    similarity and u a high threshold, P(X > x | X > u) = (1 + shape (x - u) / scale)^(-1/shape). J. Pickands,
    "Statistical inference using extreme order statistics", Ann. Stat. 3 (1975); S. Coles, "An introduction to
    statistical modeling of extreme values" (2001), ch. 4. Scale and shape fit the quantiles at FMR 1e-3 and below by
    least squares. The shape is at most 0, because a positive one has no upper end and a similarity ends at 1. At 0 the
    tail is exponential, the most cautious of these.

    Raises ValueError unless the rates fall and the similarities rise, all within 0 and 1, with at least three points
    at FMR 1e-3 and below.
    """

    points: tuple[tuple[float, float], ...]
    pairs: int
    source: str

    def __post_init__(self) -> None:
        """Check the points."""
        rates, similarities = zip(*self.points, strict=True) if self.points else ((), ())
        if not all(0 < rate < 1 for rate in rates) or not all(0 < value <= 1 for value in similarities):
            raise ValueError("a point of the impostor tail has a rate or a similarity outside of 0 and 1")
        neighbours = zip(self.points, self.points[1:], strict=False)
        if not all(rarer < rate and lower < higher for (rate, lower), (rarer, higher) in neighbours):
            raise ValueError("the points of the impostor tail must have falling rates and rising similarities")
        if len(self._fitted) < _FEWEST:
            raise ValueError(f"the impostor tail has {len(self._fitted)} points from 1e-3 on, {_FEWEST} are needed")
        if self.pairs < 1:
            raise ValueError(f"the impostor tail comes from {self.pairs} pairs")

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Return the tail that `to_json` gave; raises KeyError, TypeError or ValueError for anything else."""
        points = tuple((float(rate), float(similarity)) for rate, similarity in plain["points"])
        return cls(points, int(plain["pairs"]), str(plain["source"]))

    def to_json(self) -> dict[str, Any]:
        """Return the tail for `json.dumps`."""
        return {"points": [list(point) for point in self.points], "pairs": self.pairs, "source": self.source}

    @property
    def rarest(self) -> float:
        """The lowest FMR that was measured."""
        return self.points[-1][0]

    def similarity_at(self, fmr: float) -> Estimate:
        """Return the similarity that this share of comparisons of different people reaches, at most 1.

        Raises ValueError unless the rate is above 0 and at most 1.
        """
        if not 0 < fmr <= 1:
            raise ValueError(f"{fmr} is no false match rate")
        if fmr < self.rarest:
            last, scale = self.points[-1][1], self._scale_at(self.rarest)
            return Estimate(min(1.0, last + scale * _growth(self.rarest / fmr, self.shape)), extrapolated=True)
        return Estimate(_between([(math.log(rate), value) for rate, value in self._measured], math.log(fmr)), False)

    def fmr_at(self, similarity: float) -> Estimate:
        """Return the share of comparisons of different people that reach the similarity: `similarity_at` inverted.

        It is 0 beyond the end of a tail that has one. Raises ValueError for a similarity outside 0 and 1.
        """
        if not 0 <= similarity <= 1:
            raise ValueError(f"{similarity} is no similarity")
        last = self.points[-1][1]
        if similarity > last:
            excess = (similarity - last) / self._scale_at(self.rarest)
            return Estimate(self.rarest * _survival(excess, self.shape), extrapolated=True)
        logs = [(value, math.log(rate)) for rate, value in self._measured]
        return Estimate(math.exp(_between(logs, similarity)), False)

    @property
    def shape(self) -> float:
        """The fitted shape, from -0.5 (ends soon) to 0."""
        return self._fit[0]

    @property
    def _measured(self) -> tuple[tuple[float, float], ...]:
        return ((1.0, 0.0), *self.points)

    @property
    def _fitted(self) -> tuple[tuple[float, float], ...]:
        return tuple(point for point in self.points if point[0] <= VERIFICATION_FMR * (1 + 1e-9))

    @cached_property
    def _fit(self) -> tuple[float, float]:
        """The shape, and the scale at the first of the fitted points.

        For a given shape the quantile is linear in the scale and in the similarity at that point, so a regression gives
        both; the best shape is taken.
        """
        first = self._fitted[0][0]
        similarities = [similarity for _, similarity in self._fitted]
        fits = []
        for shape in _SHAPES:
            growths = [_growth(first / rate, shape) for rate, _ in self._fitted]
            scale, squares = _regression(growths, similarities)
            fits.append((squares, shape, scale))
        _, shape, scale = min(fits)
        return shape, scale

    def _scale_at(self, rate: float) -> float:
        """Return the scale beyond a lower rate: the excesses over a higher threshold have the same shape."""
        shape, scale = self._fit
        return scale * math.pow(self._fitted[0][0] / rate, shape)


def identification_threshold(tail: ImpostorTail, verification: float, false_names: float, identities: int) -> Estimate:
    """Return the least similarity of a match in a gallery of `identities` people.

    A stranger is compared with each of N people. With FMR = `false_names` / N at most the share `false_names` of
    strangers gets a name, even if the comparisons depend on each other (Boole's inequality). The threshold is never
    below `verification`, that of a one-to-one comparison. Raises ValueError unless the share is above 0 and at most 1.
    """
    found = tail.similarity_at(false_names / max(1, identities))
    return found if found.value >= verification else Estimate(verification, extrapolated=False)


def _growth(ratio: float, shape: float) -> float:
    """Return by how many scales the similarity rises while the rate falls by a ratio."""
    return math.log(ratio) if shape == 0 else (ratio**shape - 1) / shape


def _survival(scales: float, shape: float) -> float:
    """Return the inverse of `_growth`, as the remaining share."""
    if shape == 0:
        return math.exp(-scales)
    return float(max(0.0, 1 + shape * scales) ** (-1 / shape))


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Interpolate linearly; the points' x are monotone and `x` lies within them."""
    ordered = sorted(points)
    after = max(1, bisect_left(ordered, x, hi=len(ordered) - 1, key=lambda point: point[0]))
    (left, low), (right, high) = ordered[after - 1], ordered[after]
    return low + (high - low) * (x - left) / (right - left)


def _regression(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Return the slope, and the sum of squared residuals."""
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    products = math.fsum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope = products / math.fsum((x - mean_x) ** 2 for x in xs)
    left = math.fsum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return slope, left
