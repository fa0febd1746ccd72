"""A collection's threshold from its own impostor pairs: as asked for, refused where too few support it."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import pytest

import facerec.accuracy.calibration
from facerec.accuracy.calibration import Calibration, NoThreshold, TooFewPairs, calibrate
from facerec.ports import Template
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def enrolled(people: int, photos: int = 1, **changes: str) -> InMemoryTemplateStore:
    """A store with made-up people."""
    store = InMemoryTemplateStore()
    for number in range(people * photos):
        store.add(make_template(number, f"person {number // photos:04d}", **changes))
    return store


def found(store: InMemoryTemplateStore, fmr: float, evaluation: list[float] | None = None) -> Calibration:
    """Calibrate the default collection."""
    extra = None if evaluation is None else np.array(evaluation)
    return calibrate(store, "default", MODEL, fmr, evaluation=extra, now=lambda: NOW)


def impostors(store: InMemoryTemplateStore) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The cosines of all pairs of different people, one by one."""
    return np.array(
        [
            float(np.dot(a.embedding, b.embedding))
            for a, b in combinations(store.templates("default"), 2)
            if a.identity != b.identity
        ]
    )


@pytest.mark.parametrize("cells", [4_000_000, 7])
def test_threshold_keeps_the_rate_on_the_gallerys_pairs(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Counted one by one, also when the gallery takes many blocks; photos of one person are no impostor pairs."""
    monkeypatch.setattr(facerec.accuracy.calibration, "_CELLS", cells)
    store = enrolled(30, photos=2)
    calibration, cosines = found(store, 0.01), impostors(store)
    threshold = calibration.threshold
    assert (threshold.impostor_pairs, calibration.gallery_pairs, len(cosines)) == (1740, 1740, 1740)
    assert (cosines >= threshold.value).mean() == threshold.fmr <= 0.01
    assert (cosines >= threshold.value - 1e-4).mean() > 0.01
    assert calibration.lookalikes is not None
    assert calibration.lookalikes.cosine == pytest.approx(cosines.max())
    assert calibration.lookalikes.one.identity != calibration.lookalikes.other.identity
    assert (threshold.calibrated_at, threshold.target_fmr) == (NOW, 0.01)
    assert threshold.source == "1740 pairs of 60 templates of 30 people"


def test_one_pair_too_few_is_refused_with_both_numbers() -> None:
    """45 people have 990 pairs; 10 more from an evaluation set make 1000."""
    store = enrolled(45)
    with pytest.raises(TooFewPairs, match=r"needs 1000 impostor pairs and there are 990: 990 in collection default"):
        found(store, 0.01)
    with pytest.raises(TooFewPairs, match="999"):
        found(store, 0.01, [0.2] * 9)
    calibration = found(store, 0.01, [0.2] * 10)
    assert (calibration.threshold.impostor_pairs, calibration.evaluation_pairs) == (1000, 10)
    assert calibration.threshold.source.endswith("and 10 pairs of an evaluation set")


def test_share_of_strangers_is_divided_by_the_number_of_people() -> None:
    """30 % of searches among 60 people is a rate of 0.005: 2000 pairs, and with one photo each they have 1770."""
    store = enrolled(60)
    store.add(make_template(9999, "person of another model", model_id=OTHER_MODEL))
    with pytest.raises(
        TooFewPairs, match=r"0\.005 \(0\.3 of strangers / 60 people\) needs 2000 .* there are 1770"
    ) as few:
        calibrate(store, "default", MODEL, 0.3, per_search=True)
    assert "ask for a rate of 0.34 or more" in str(few.value)
    assert "has the model's threshold for so many people" in str(few.value)
    calibration = calibrate(store, "default", MODEL, 0.34, per_search=True)
    assert calibration.threshold.target_fmr == pytest.approx(0.34 / 60)
    assert calibration.threshold.fmr <= 0.34 / 60
    assert calibration.strangers_taken <= 0.34


def test_refusal_without_a_pair_recommends_no_rate() -> None:
    """Also for a share of strangers."""
    with pytest.raises(TooFewPairs, match="give --pairs; a collection"):
        calibrate(enrolled(1), "default", MODEL, 0.5, per_search=True)
    with pytest.raises(TooFewPairs, match="give --pairs; a collection"):
        calibrate(enrolled(5), "default", MODEL, 0.5)


def test_refusal_recommends_a_rate_that_is_accepted() -> None:
    """4950 pairs do not support 0.002, which 10/4950 would round to."""
    store = enrolled(100)
    with pytest.raises(TooFewPairs, match=r"ask for a rate of 0\.0021 or more"):
        found(store, 0.002)
    assert found(store, 0.0021).threshold.impostor_pairs == 4950


def test_empty_gallery_is_calibrated_on_an_evaluation_set() -> None:
    """Without enrolled people."""
    calibration = found(InMemoryTemplateStore(), 0.01, [i / 2000 for i in range(1000)])
    assert calibration.threshold.value == pytest.approx(0.4946, abs=2e-4)
    assert (calibration.identities, calibration.lookalikes) == (0, None)


def test_evaluation_set_counts_like_the_gallerys_pairs() -> None:
    """Eleven look-alikes in it, one more than may match, raise the threshold above them."""
    store = enrolled(101)
    assert found(store, 0.002).threshold.value < 0.3
    assert found(store, 0.002, [0.7] * 11).threshold.value == 0.7001


def test_templates_of_another_model_are_left_out() -> None:
    """Their cosines are on another scale."""
    store = enrolled(45)
    for number in range(45, 60):
        store.add(make_template(number, f"person {number}", model_id=OTHER_MODEL))
    with pytest.raises(TooFewPairs, match="990"):
        found(store, 0.01)
    assert found(store, 0.02).other_models == 15


def test_same_face_under_two_names_is_reported() -> None:
    """It is the most alike pair; enough of them leave no threshold at all."""
    store = enrolled(60)
    twin = next(store.templates("default"))
    store.add(alias(twin, 1))
    calibration = found(store, 0.01)
    assert calibration.lookalikes is not None
    assert {calibration.lookalikes.one.identity, calibration.lookalikes.other.identity} == {"alias 1", "person 0000"}
    for number in range(2, 8):
        store.add(alias(twin, number))
    with pytest.raises(NoThreshold, match="under two names"):
        found(store, 0.01)


def test_share_of_strangers_with_a_name_grows_with_the_gallery() -> None:
    """A rate per comparison is not one per search."""
    assert found(enrolled(45), 0.02).strangers_taken == pytest.approx(1 - 0.98**45)


def alias(template: Template, number: int) -> Template:
    """The same face under another name."""
    return replace(template, template_id=f"a{number:031d}", identity=f"alias {number}")
