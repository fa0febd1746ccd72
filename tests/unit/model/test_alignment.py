"""Aligned crops: five points onto the template, by OpenCV and without it."""

from math import cos, radians, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import model.alignment
from model.alignment import TEMPLATE, aligned, region, scale_of, similarity, warp, warp_numpy
from model.faces import Landmarks

SEEDED = np.random.default_rng(5)


def picture(width: int = 300, height: int = 240) -> NDArray[np.uint8]:
    """A picture with detail at every scale."""
    return SEEDED.integers(0, 256, (height, width, 3), dtype=np.uint8)


def placed(scale: float, degrees: float, x: float, y: float) -> Landmarks:
    """The template's points turned, scaled and moved."""
    turn = radians(degrees)
    rotation = scale * np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]])
    return tuple((px, py) for px, py in (TEMPLATE @ rotation.T + (x, y)).tolist())


@given(scale=st.floats(0.05, 20), degrees=st.floats(-180, 180), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_similarity_maps_the_points_onto_the_template(scale: float, degrees: float, x: float, y: float) -> None:
    """For any size, turn and place."""
    points = placed(scale, degrees, x, y)
    matrix = similarity(points)
    mapped = np.array(points) @ matrix[:, :2].T + matrix[:, 2]
    assert mapped == pytest.approx(TEMPLATE, abs=1e-6 * max(1.0, abs(x), abs(y)) / scale + 1e-6)
    assert scale_of(matrix) == pytest.approx(1 / scale, rel=1e-6)


def test_similarity_never_mirrors_a_face() -> None:
    """Points in mirrored order give the best rotation, not a reflection."""
    mirrored = tuple((112 - x, y) for x, y in TEMPLATE.tolist())
    assert np.linalg.det(similarity(mirrored)[:, :2]) > 0


def test_coinciding_points_give_a_crop() -> None:
    """A network may return anything."""
    crop = aligned(picture(), ((10.0, 10.0),) * 5)
    assert crop.shape == (112, 112, 3)


@pytest.mark.parametrize("scale", [0.2, 0.5, 1.0, 1.7, 2.5])
@pytest.mark.parametrize("degrees", [0.0, 13.0, -95.0])
@pytest.mark.parametrize("corner", [(40.0, 30.0), (-50.0, -20.0), (250.0, 200.0)])
def test_warp_is_the_same_without_opencv_to_one_level(
    scale: float, degrees: float, corner: tuple[float, float]
) -> None:
    """An edge device's faces are compared with those that a server enrolled."""
    image = picture()
    matrix = similarity(placed(scale, degrees, *corner))
    known = warp(image, matrix, 112).astype(int)
    assert np.abs(known - warp_numpy(image, matrix, 112)).max() <= 1


@pytest.mark.parametrize("scale", [2.0, 3.4, 8.0])
def test_large_faces_are_averaged_alike_without_opencv(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of a face that shrinks."""
    image, points = picture(1200, 1100), placed(scale, 4.0, 20.0, 10.0)
    known = aligned(image, points).astype(int)
    monkeypatch.setattr(model.alignment, "cv2", None)
    assert np.abs(known - aligned(image, points)).max() <= 1


def test_large_face_is_averaged() -> None:
    """Fine stripes become grey, not stripes of another width."""
    stripes = np.zeros((1200, 1200, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    crop = aligned(stripes, placed(8.0, 0.0, 50.0, 50.0))
    inner = crop[10:-10, 10:-10].astype(int)
    assert np.abs(inner - 127).max() <= 2


def test_crop_outside_the_picture_is_black() -> None:
    """Crop outside the picture is black."""
    white = np.full((100, 100, 3), 255, dtype=np.uint8)
    crop = aligned(white, placed(1.0, 0.0, -60.0, 0.0))
    assert (crop[20:80, :50] == 0).all()
    assert (crop[20:80, 65:] == 255).all()


@pytest.mark.parametrize("scale", [0.4, 1.3, 2.6, 5.3])
@pytest.mark.parametrize("corner", [(350.0, 300.0), (-60.0, 40.0)])
def test_region_gives_the_same_crop(scale: float, corner: tuple[float, float]) -> None:
    """A device sends the part of a frame with the face; the cloud aligns it again."""
    image, points = picture(1300, 1200), placed(scale, 12.0, *corner)
    left, top, right, bottom = region(similarity(points), 1300, 1200)
    moved = tuple((x - left, y - top) for x, y in points)
    part = np.ascontiguousarray(image[top:bottom, left:right])
    assert np.abs(aligned(image, points).astype(int) - aligned(part, moved)).max() <= 1
    assert part.size < image.size
