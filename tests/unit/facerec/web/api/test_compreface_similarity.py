"""Similarities on CompreFace's scale."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facerec.web.api.compreface.faces_json import scaled

RATIO = st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    ("similarity", "threshold", "expected"),
    [
        (0.0, 0.4, 0.0),
        (0.2, 0.4, 0.25),
        (0.4, 0.4, 0.5),
        (0.7, 0.4, 0.75),
        (1.0, 0.4, 1.0),
        (0.0, 0.0, 0.5),
        (1.0, 1.0, 1.0),
        (0.5, 1.0, 0.25),
        (0.123456789, 0.5, 0.12345),
    ],
)
def test_similarity_lies_on_two_lines_that_meet_at_the_threshold(
    similarity: float, threshold: float, expected: float
) -> None:
    """From 0 to 0.5 below our threshold, from 0.5 to 1 above it."""
    assert scaled(similarity, threshold) == pytest.approx(expected, abs=1e-9)


@given(RATIO, RATIO)
@example(0.3999999999999999, 0.4)
@example(0.4, 0.4000000000000001)
@example(5e-324, 5e-324)
@example(0.0, 5e-324)
def test_similarity_reaches_the_other_threshold_exactly_with_ours(similarity: float, threshold: float) -> None:
    """A client that compares with the fixed value decides as we do."""
    value = scaled(similarity, threshold)
    assert 0 <= value <= 1
    assert (value >= 0.5) == (similarity >= threshold)


@given(RATIO, RATIO, RATIO)
def test_greater_similarity_never_gets_a_smaller_value(one: float, other: float, threshold: float) -> None:
    """The order of people stays."""
    less, more = sorted((one, other))
    assert scaled(less, threshold) <= scaled(more, threshold)
