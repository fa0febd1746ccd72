"""How well the photo of a face suits recognition: a score from 0 to 1, and the reasons in words.

Each property gives a factor: the share of the genuine similarity that remains when good photos are degraded to it, the
mean over three embedders on 80 people of LFW (`docs/accuracy.md`, Quality). For yaw, pitch and the detector's score,
to which a photo cannot be degraded, the factor is an estimate. The score is the product. `model.quality_factors`
measures the photo; this module needs neither the photo nor OpenCV.
"""

import math
from collections.abc import Sequence

import numpy as np

from model.faces import Quality, QualityFactor

Curve = tuple[Sequence[float], Sequence[float]]
"""Ascending values, and the factor at each: linear between them, constant beyond."""

_NAMED_BELOW = 0.85  # a factor below it is a reason
_NORM: Curve = (0.3, 0.5, 0.8, 1), (0.2, 0.5, 0.87, 1)


def assess(factors: Sequence[QualityFactor], embedding_norm: float | None = None) -> Quality:
    """Return the quality of one face, given the factors that its photo gives.

    `embedding_norm` is the length of the embedding before normalisation, divided by the median of ordinary photos;
    None leaves this factor out. Without factors the score is 0.
    """
    if not factors:
        return Quality(0.0, ("outside of the picture",))
    every = list(factors)
    if embedding_norm is not None:
        every.append(QualityFactor(value_at(_NORM, embedding_norm), "little that tells this face from others"))
    every.sort(key=lambda factor: factor.value)
    score = math.prod(factor.value for factor in every)
    return Quality(round(score, 3), tuple(factor.reason for factor in every if factor.value < _NAMED_BELOW))


def value_at(curve: Curve, value: float) -> float:
    """Return the factor at a value."""
    return float(np.interp(value, *curve))
