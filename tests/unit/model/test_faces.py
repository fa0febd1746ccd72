"""Faces within the picture."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.faces import Box, DetectedFace

INSIDE = DetectedFace(Box(10.0, 20.0, 30.0, 45.0), 0.9, ((12.0, 25.0),) * 5)


def test_face_inside_is_unchanged() -> None:
    """Also if it fills the picture."""
    assert INSIDE.clipped(100, 50) == INSIDE
    whole = DetectedFace(Box(0.0, 0.0, 100.0, 50.0), 0.9, ((0.0, 0.0), (100.0, 50.0)))
    assert whole.clipped(100, 50) == whole


def test_face_cut_by_the_corner_ends_at_the_edges() -> None:
    """Box and landmarks alike; the probability stays."""
    face = DetectedFace(Box(-124.0, -90.0, 83.5, 161.5), 0.8, ((-84.0, -3.0), (14.0, 3.0), (300.0, 200.0)))
    assert face.clipped(165, 150) == DetectedFace(Box(0, 0, 83.5, 150), 0.8, ((0, 0), (14, 3), (165, 150)))


@pytest.mark.parametrize(
    "box",
    [(-9, 5, 0, 9), (100, 5, 120, 9), (5, -9, 9, -1), (5, 50, 9, 60), (-9, -9, 0, 0), (9, 9, 9, 9), (9, 9, 5, 12)],
)
def test_face_outside_is_none(box: tuple[float, float, float, float]) -> None:
    """Nothing of it can be shown."""
    assert DetectedFace(Box(*box), 0.9, ()).clipped(100, 50) is None


@pytest.mark.parametrize("number", [nan, inf, -inf])
@pytest.mark.parametrize("place", range(6))
def test_face_with_a_coordinate_that_is_no_number_is_none(place: int, number: float) -> None:
    """In its box or its landmarks: JSON has no such number."""
    values = [10.0, 20.0, 30.0, 45.0, 12.0, 25.0]
    values[place] = number
    assert DetectedFace(Box(*values[:4]), 0.9, ((values[4], values[5]),)).clipped(100, 50) is None


COORDINATES = st.floats(-1e6, 1e6)


@given(st.tuples(*[COORDINATES] * 4), st.tuples(COORDINATES, COORDINATES), st.integers(1, 999), st.integers(1, 999))
def test_clipped_face_is_consistent(
    box: tuple[float, float, float, float], point: tuple[float, float], width: int, height: int
) -> None:
    """It has an area, lies within the picture, and is not clipped further."""
    face = DetectedFace(Box(*box), 0.9, (point,)).clipped(width, height)
    if face is not None:
        assert 0 <= face.box.x_min < face.box.x_max <= width
        assert 0 <= face.box.y_min < face.box.y_max <= height
        assert 0 <= face.landmarks[0][0] <= width
        assert 0 <= face.landmarks[0][1] <= height
        assert "-" not in f"{face.box.x_min}{face.box.y_min}{face.landmarks}".replace("e-", "")
        assert face.clipped(width, height) == face
