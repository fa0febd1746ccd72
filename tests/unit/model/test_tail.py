"""The impostor tail: between the measured points, beyond them, and the thresholds of galleries."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tail import Estimate, ImpostorTail, identification_threshold
from tests.support.tails import OPEN_SET, TAILS, TAILS_OF_PAIRS

RATES = (1e-3, 1e-4, 1e-5, 1e-6)
packs = pytest.mark.parametrize("pack", sorted(TAILS))


def make_tail(similarities: tuple[float, ...], rates: tuple[float, ...] = RATES) -> ImpostorTail:
    """A tail of these points."""
    return ImpostorTail(tuple(zip(rates, similarities, strict=True)), 1000, "a test")


def pareto(shape: float, scale: float, rate: float) -> float:
    """The similarity at a rate of a generalised Pareto tail that starts with 0.3 at 1e-3."""
    ratio = 1e-3 / rate
    return 0.3 + (scale * math.log(ratio) if shape == 0 else scale * (ratio**shape - 1) / shape)


def is_about(found: Estimate, value: float, *, extrapolated: bool, tolerance: float = 0.0) -> bool:
    """Whether an estimate has this value and mark."""
    return found.extrapolated == extrapolated and found.value == pytest.approx(value, rel=1e-6, abs=tolerance)


@packs
def test_tail_returns_measured_points(pack: str) -> None:
    """In both directions, not extrapolated."""
    for rate, similarity in TAILS[pack].points:
        assert is_about(TAILS[pack].similarity_at(rate), similarity, extrapolated=False)
        assert is_about(TAILS[pack].fmr_at(similarity), rate, extrapolated=False)


def test_tail_is_log_linear_between_points() -> None:
    """Every comparison reaches similarity 0."""
    tail = make_tail((0.2, 0.3, 0.4, 0.5))
    assert tail.similarity_at(10**-3.5).value == pytest.approx(0.25)
    assert tail.fmr_at(0.45).value == pytest.approx(10**-5.5)
    assert tail.similarity_at(1).value == 0
    assert tail.fmr_at(0).value == 1
    assert tail.similarity_at(10**-1.5).value == pytest.approx(0.1)


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0])
def test_tail_continues_as_pareto_beyond_the_points(shape: float) -> None:
    """With its inverse."""
    tail = make_tail(tuple(pareto(shape, 0.03, rate) for rate in RATES))
    for rate in (3e-7, 1e-8, 1e-10):
        assert is_about(tail.similarity_at(rate), pareto(shape, 0.03, rate), extrapolated=True)
        assert is_about(tail.fmr_at(pareto(shape, 0.03, rate)), rate, extrapolated=True)


def test_tail_without_an_end_is_exponential() -> None:
    """A positive shape would exceed every bound, and similarities end at 1."""
    heavy = make_tail(tuple(pareto(0.2, 0.02, rate) for rate in RATES))
    assert heavy.shape == 0
    step = heavy.similarity_at(1e-8).value - heavy.similarity_at(1e-7).value
    assert heavy.similarity_at(1e-9).value - heavy.similarity_at(1e-8).value == pytest.approx(step)


def test_tail_with_an_end_has_rate_zero_beyond() -> None:
    """No similarity is above 1."""
    ending = make_tail(tuple(pareto(-0.4, 0.05, rate) for rate in RATES))
    assert ending.fmr_at(0.999) == Estimate(0.0, extrapolated=True)
    assert TAILS["classic"].similarity_at(1e-300).value <= 1


@packs
@given(exponent=st.floats(-12, 0), step=st.floats(1e-3, 3))
def test_tail_is_monotone_and_invertible(pack: str, exponent: float, step: float) -> None:
    """Measured or extrapolated."""
    tail = TAILS[pack]
    near, far = tail.similarity_at(10**exponent), tail.similarity_at(10 ** (exponent - step))
    assert far.value > near.value
    assert tail.fmr_at(near.value).value == pytest.approx(10**exponent, rel=1e-6)


@packs
def test_extrapolation_agrees_with_withheld_points(pack: str) -> None:
    """From 1e-4 to 3e-6 it misses by at most 0.016, half of the effect of a factor of three."""
    known = [point for point in TAILS[pack].points if point[0] >= 1e-4]
    cut = replace(TAILS[pack], points=tuple(known))
    for rate, similarity in TAILS[pack].points[len(known) :]:
        assert is_about(cut.similarity_at(rate), similarity, extrapolated=True, tolerance=0.016)


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ((), "0 points"),
        (((1e-2, 0.1), (1e-3, 0.2), (1e-4, 0.3)), "2 points"),
        (((1e-3, 0.2), (1e-3, 0.3), (1e-5, 0.4)), "falling rates"),
        (((1e-3, 0.2), (1e-4, 0.2), (1e-5, 0.4)), "rising similarities"),
        (((1e-5, 0.2), (1e-4, 0.3), (1e-3, 0.4)), "falling rates"),
        (((1e-3, 0.2), (1e-4, math.nan), (1e-5, 0.4)), "outside"),
        (((1e-3, 0.2), (1e-4, 0.3), (1e-5, 1.1)), "outside"),
        (((1e-3, 0.2), (1e-4, 0.3), (0, 0.4)), "outside"),
    ],
)
def test_wrong_points_are_refused(points: tuple[tuple[float, float], ...], complaint: str) -> None:
    """A model's description may come from a bucket."""
    with pytest.raises(ValueError, match=complaint):
        ImpostorTail(points, 1000, "a test")
    with pytest.raises(ValueError, match="pairs"):
        replace(TAILS["open"], pairs=0)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, math.nan])
def test_wrong_rate_or_similarity_is_refused(wrong: float) -> None:
    """Wrong rate or similarity is refused."""
    with pytest.raises(ValueError, match="rate"):
        TAILS["open"].similarity_at(wrong)
    with pytest.raises(ValueError, match="similarity"):
        TAILS["open"].fmr_at(wrong or 2)


@packs
def test_tail_survives_json(pack: str) -> None:
    """Tail survives json."""
    assert ImpostorTail.from_json(json.loads(json.dumps(TAILS[pack].to_json()))) == TAILS[pack]


def test_threshold_rises_with_the_gallery_and_falls_with_the_share() -> None:
    """From the threshold of verification up to 1."""
    tail = TAILS["accurate"]
    few, some, many = (identification_threshold(tail, 0.234, 0.01, people) for people in (0, 100, 10_000))
    assert few == Estimate(0.234, extrapolated=False)
    assert some == tail.similarity_at(1e-4)
    assert (many, many.extrapolated) == (tail.similarity_at(1e-6), True)
    assert few.value < some.value < many.value
    assert identification_threshold(tail, 0.234, 0.1, 100).value < some.value
    assert identification_threshold(tail, 0.234, 1.0, 1).value == 0.234
    assert identification_threshold(tail, 0.234, 1e-9, 10**9).value <= 1
    with pytest.raises(ValueError, match="rate"):
        identification_threshold(tail, 0.234, 0, 10)


@packs
def test_the_tail_of_all_photos_is_on_the_safe_side_of_the_open_set(pack: str) -> None:
    """At most 0.037 above what 1 % of strangers needed, and never below: the bound holds for dependent comparisons.

    It is above because the few people with hundreds of photos make most of the pairs.
    """
    for people, measured in OPEN_SET[pack].items():
        assert measured <= identification_threshold(TAILS[pack], 0.0, 0.01, people).value <= measured + 0.037


@pytest.mark.parametrize("pack", sorted(TAILS_OF_PAIRS))
def test_tail_of_evenly_spread_photos_predicts_the_open_set(pack: str) -> None:
    """Within 0.008 of the threshold at which 1 % of strangers got a name."""
    for people, measured in OPEN_SET[pack].items():
        found = identification_threshold(TAILS_OF_PAIRS[pack], 0.0, 0.01, people)
        assert is_about(found, measured, extrapolated=False, tolerance=0.008)
