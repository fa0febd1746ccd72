"""Error rates, thresholds and intervals, compared with cases counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.evaluation import (
    Ranking,
    Trials,
    bootstrap,
    fold_accuracy,
    method,
    pairs_needed,
    share_interval,
    shares_photos,
    threshold_above,
    threshold_at,
    wilson,
)

COSINES = st.floats(-1, 1)


def trials(genuine: list[float], impostor: list[float]) -> Trials:
    """Trials of photos that each take part in one."""
    number = len(genuine) + len(impostor)
    return Trials(
        np.array(genuine + impostor, dtype=np.float64),
        np.arange(number) < len(genuine),
        np.arange(0, 2 * number, 2),
        np.arange(1, 2 * number, 2),
    )


def test_separated_trials_have_no_error() -> None:
    """AUC 1, EER 0, and one threshold separates all."""
    curve = Ranking(trials([0.7, 0.8, 0.9], [0.1, 0.2])).curve()
    assert (curve.auc, curve.eer, curve.overlap, curve.tar_at(0)) == (1, 0, 0, 1)


def test_inverted_trials_have_only_errors() -> None:
    """Inverted trials have only errors."""
    curve = Ranking(trials([0.1, 0.2], [0.8, 0.9])).curve()
    assert (curve.auc, curve.eer, curve.overlap, curve.tar_at(0)) == (0, 1, 1, 0)


def test_one_of_four_trials_is_wrong() -> None:
    """A quarter of each kind is wrong where the rates meet."""
    curve = Ranking(trials([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0])).curve()
    assert curve.auc == 15 / 16
    assert curve.eer == pytest.approx(0.25)
    assert curve.overlap == pytest.approx(0.25)
    assert (curve.tar_at(0), curve.tar_at(0.24), curve.tar_at(0.25)) == (0.75, 0.75, 1)


def test_equal_cosines_match_together() -> None:
    """Whatever their order."""
    curve = Ranking(trials([0.5, 0.5], [0.5, 0.5])).curve()
    assert (curve.auc, curve.eer, len(curve.thresholds)) == (0.5, 0.5, 1)


@given(st.lists(COSINES, min_size=1, max_size=30), st.lists(COSINES, min_size=1, max_size=30))
def test_curve_agrees_with_counting(genuine: list[float], impostor: list[float]) -> None:
    """AUC is the share of won comparisons; each point is the count at its threshold."""
    scored = trials(genuine, impostor)
    curve = Ranking(scored).curve()
    wins = [(g > i) + (g == i) / 2 for g in genuine for i in impostor]
    assert curve.auc == pytest.approx(np.mean(wins))
    for threshold, fmr, tar in zip(curve.thresholds, curve.fmr, curve.tar, strict=True):
        assert fmr == pytest.approx((scored.impostor >= threshold).mean())
        assert tar == pytest.approx((scored.genuine >= threshold).mean())
    assert 0 <= curve.eer <= 1


@given(st.lists(COSINES, min_size=1, max_size=50), st.floats(0.001, 0.999))
def test_threshold_keeps_its_rate_and_is_the_least(impostor: list[float], fmr: float) -> None:
    """One step lower, more pairs match."""
    cosines = np.array(impostor)
    threshold = threshold_at(cosines, fmr)
    assert (cosines >= threshold).mean() <= fmr + 1e-9
    assert threshold <= 1e-4 + 1e-9 or (cosines >= threshold - 1.001e-4).mean() > fmr - 1e-9


def test_threshold_is_above_the_cosine_that_must_not_match() -> None:
    """Also if that is a multiple of the step."""
    assert threshold_above(0.47) == 0.4701
    assert threshold_above(0.46995) == 0.47
    assert threshold_above(-0.3) == 0.0001
    assert threshold_above(1.0) > 1


@pytest.mark.parametrize(("pairs", "fmr"), [([], 0.5), ([0.1], 0.0), ([0.1], 1.0)])
def test_threshold_needs_pairs_and_a_rate(pairs: list[float], fmr: float) -> None:
    """Threshold needs pairs and a rate."""
    with pytest.raises(ValueError, match="no threshold"):
        threshold_at(np.array(pairs), fmr)


@pytest.mark.parametrize(("fmr", "pairs"), [(1e-2, 1000), (1e-3, 10_000), (1e-4, 100_000), (0.3, 34)])
def test_rate_needs_ten_expected_errors(fmr: float, pairs: int) -> None:
    """In spite of rounding."""
    assert pairs_needed(fmr) == pairs


def test_all_against_all_takes_each_pair_once() -> None:
    """Three photos of two people: one genuine pair and two impostor pairs."""
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    scored = Trials.all_against_all(embeddings, np.array([0, 0, 1]))
    assert scored.genuine.tolist() == pytest.approx([0.6])
    assert sorted(scored.impostor.tolist()) == pytest.approx([0.0, 0.8])
    assert scored.pairs_a_photo == 2


def test_wilsons_interval_has_its_published_values() -> None:
    """81 of 263, from R. Newcombe, Stat. Med. 17 (1998), table I; and the ends, which are never certain."""
    interval = wilson(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    interval = wilson(15, 148)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0624, 0.1605)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0, 0.1611)
    assert (round(wilson(29, 29).low, 4), wilson(29, 29).high) == (0.8830, 1)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)


def crowd(people: int, seed: int = 3) -> Trials:
    """Every pair of two photos each of made-up people."""
    random = np.random.default_rng(seed)
    faces = np.repeat(random.normal(size=(people, 16)), 2, axis=0) + random.normal(size=(2 * people, 16)) * 0.6
    unit: NDArray[np.float32] = (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)
    return Trials.all_against_all(unit, np.repeat(np.arange(people), 2))


def test_interval_of_independent_pairs_is_wilsons() -> None:
    """Interval of independent pairs is wilsons."""
    scored = trials([], [0.6] * 3 + [0.1] * 97)
    assert not shares_photos(scored)
    assert share_interval(scored.cosines >= 0.5, scored) == wilson(3, 100)
    assert "over pairs" in method(scored)


def test_interval_of_pairs_that_share_photos_is_wider() -> None:
    """It always contains Wilson's."""
    impostors = crowd(20)
    impostors = impostors.where(~impostors.same)
    hits = impostors.cosines >= 0.4
    simple, wide = wilson(int(hits.sum()), len(hits)), share_interval(hits, impostors)
    assert wide.low < simple.low
    assert wide.high > simple.high
    assert share_interval(np.zeros(len(hits), bool), impostors) == wilson(0, len(hits))
    assert "over photos" in method(impostors)


@pytest.mark.parametrize("scored", [crowd(20), trials([0.9, 0.8, 0.3, 0.7] * 10, [0.5, 0.1, 0.2, 0.35] * 10)])
def test_bootstrap_contains_the_measured_value(scored: Trials) -> None:
    """By photo and by pair; the same seed gives the same interval."""
    curve = Ranking(scored).curve()
    auc, eer = bootstrap(scored, lambda drawn: (drawn.auc, drawn.eer), draws=200)
    assert auc.low < curve.auc < auc.high
    assert eer.low < curve.eer < eer.high
    assert [auc] == bootstrap(scored, lambda drawn: (drawn.auc,), draws=200)


def test_bootstrap_of_more_pairs_is_narrower() -> None:
    """Four times the pairs halve the interval, about."""
    genuine, impostor = [0.9, 0.8, 0.3, 0.7], [0.5, 0.1, 0.2, 0.35]
    widths = []
    for times in (10, 40):
        (auc,) = bootstrap(trials(genuine * times, impostor * times), lambda drawn: (drawn.auc,), draws=300)
        widths.append(auc.high - auc.low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.4)


def test_fold_accuracy_uses_the_threshold_of_the_other_folds() -> None:
    """Fold 1 has its impostor above the threshold that fits fold 0."""
    scored = trials([0.9, 0.9], [0.1, 0.1])
    perfect = fold_accuracy(scored, np.array([0, 1, 0, 1]))
    assert (perfect.mean, perfect.standard_error, perfect.threshold, perfect.folds) == (1, 0, 0.5, 2)
    # Fold 0 asks for 0.5, which is wrong on fold 1's impostor; fold 1 asks for 0.85, and all of fold 0 is right.
    mixed = fold_accuracy(trials([0.9, 0.9], [0.1, 0.8]), np.array([0, 1, 0, 1]))
    assert mixed.mean == 0.75
    assert mixed.standard_error == pytest.approx(0.25)


def test_fold_accuracy_may_accept_all_or_nothing() -> None:
    """If the other folds have one kind, the best threshold is at an end."""
    everyone = fold_accuracy(trials([0.9, 0.2], []), np.array([0, 1]))
    assert everyone.mean == 0.5  # 0.2 is below the only cosine that was seen
    nobody = fold_accuracy(trials([], [0.9, 0.2]), np.array([0, 1]))
    assert nobody.mean == 0.5


def test_fold_accuracy_needs_two_folds() -> None:
    """Fold accuracy needs two folds."""
    with pytest.raises(ValueError, match="two folds"):
        fold_accuracy(trials([0.9], [0.1]), np.array([0, 0]))
