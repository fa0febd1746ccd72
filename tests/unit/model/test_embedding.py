"""The crop of a face and the embedding of a network's output."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.cropping import BoxCropper
from model.embedding import normalised, preprocess
from model.faces import Box, DetectedFace
from model.packs import EmbedderSpec


def cropped(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Return the crop of a box, as the pack `classic` makes it."""
    return BoxCropper(160, 32).crop(image, DetectedFace(box, 1.0, ()))


def test_crop_adds_the_margin_on_all_sides() -> None:
    """A margin of 32 pixels at 160 is a quarter of the box's 128: half of it on each side."""
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    image[84:244, 120:280] = 255  # the box of 128 x 128 and 16 pixels around it
    assert (cropped(image, Box(136, 100, 264, 228)) == 255).all()
    assert not (cropped(image, Box(135, 100, 263, 228)) == 255).all()


def test_crop_stops_at_the_pictures_edge() -> None:
    """The part outside is cut off, not invented."""
    image = np.full((100, 100, 3), 200, dtype=np.uint8)
    crop = cropped(image, Box(-20, -20, 50, 130))
    assert crop.shape == (160, 160, 3)
    assert (crop == 200).all()


@pytest.mark.parametrize(
    "box", [Box(-50, -50, -10, -10), Box(500, 500, 600, 600), Box(-50, 40, -10, 60), Box(30, 30, 30, 30)]
)
def test_box_without_pixels_still_gives_a_crop(box: Box) -> None:
    """A wrong regression must not fail the other faces."""
    assert cropped(np.zeros((100, 120, 3), dtype=np.uint8), box).shape == (160, 160, 3)


def test_preprocessing_is_that_of_the_training() -> None:
    """Channels first, centred and scaled."""
    crops = np.array([0, 128, 255], dtype=np.uint8).reshape(1, 1, 1, 3)
    planes = preprocess(crops, EmbedderSpec(512, mean=127.5, scale=128))
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, 1, 1)
    assert planes.ravel().tolist() == [-127.5 / 128, 0.5 / 128, 127.5 / 128]


def test_embeddings_are_normalised_with_their_norms() -> None:
    """A network that normalises by itself has no norms."""
    outputs = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    found = normalised(outputs, EmbedderSpec(2, mean=0.0, scale=1.0, typical_norm=2.5))
    assert found.vectors.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    assert found.norms is not None
    assert found.norms.tolist() == [2.0, 0.0]
    unit = np.array([[0.6, 0.8]], dtype=np.float32)
    assert normalised(unit, EmbedderSpec(2, mean=0.0, scale=1.0)).norms is None
