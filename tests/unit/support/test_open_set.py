"""The simulation of strangers in large galleries."""

import numpy as np
import pytest

from tests.support.measurements import open_set
from tests.support.tails import TAILS


def test_both_ways_of_drawing_the_nearest_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing every comparison and drawing only the rarest give the same quantiles."""
    quantiles = []
    for each_up_to in (1000, 10):
        monkeypatch.setattr(open_set, "EACH_UP_TO", each_up_to)
        drawn = list(open_set.rarest(500, 20_000, np.random.default_rng(each_up_to)))
        quantiles.append(np.quantile(drawn, [0.01, 0.1, 0.5, 0.9]))
    assert quantiles[0] == pytest.approx(quantiles[1], rel=0.15)
    assert quantiles[0][2] == pytest.approx(1 - 0.5 ** (1 / 500), rel=0.03)


def test_threshold_for_many_people_keeps_the_share_of_false_names() -> None:
    """At the threshold for one-to-one comparison most strangers would get a name in a gallery of a million."""
    figures = open_set.simulated(TAILS["accurate"], [100, 1_000_000], 10_000, 0.01, np.random.default_rng(0))
    few, many = figures["sizes"]
    for size in (few, many):
        assert size["fpir_interval"][0] < 0.01 < size["fpir_interval"][1]
    assert few["fpir_at_verification"] == pytest.approx(1 - 0.999**100, abs=0.01)
    assert many["fpir_at_verification"] == 1
    assert (few["extrapolated"], many["extrapolated"], figures["cut"]["people"]) == (False, True, 3333)
