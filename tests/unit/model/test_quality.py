"""The quality of faces: good photos score well, degraded copies worse, with the right reason."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from model.faces import Box, Landmarks, Quality, QualityFactor
from model.imaging import decode
from model.quality import assess
from model.quality_factors import grey_patch, quality_factors

EXAMPLES = Path(__file__).parents[3] / "examples"


@dataclass(frozen=True)
class Photo:
    """A picture with one face in it."""

    image: NDArray[np.uint8]
    box: Box
    landmarks: Landmarks

    @property
    def eye_distance(self) -> float:
        """In pixels."""
        (left_x, left_y), (right_x, right_y) = self.landmarks[:2]
        return float(np.hypot(right_x - left_x, right_y - left_y))

    def factors(self, probability: float = 0.99) -> tuple[QualityFactor, ...]:
        """What its photo gives."""
        return quality_factors(grey_patch(self.image, self.box), self.landmarks, probability)

    def quality(self, probability: float = 0.99) -> Quality:
        """What is to be tested."""
        return assess(self.factors(probability))

    def moved(self, image: NDArray[np.uint8], move: Callable[[float, float], tuple[float, float]]) -> "Photo":
        """Return the face in another picture, in which `move` maps each of its points."""
        points = tuple(move(x, y) for x, y in self.landmarks)
        box = self.box
        corners = [move(x, y) for x in (box.x_min, box.x_max) for y in (box.y_min, box.y_max)]
        xs, ys = zip(*corners, strict=True)
        return Photo(image, Box(min(xs), min(ys), max(xs), max(ys)), points)


# Boxes and points as MTCNN finds them.
FACES = {
    "gallery/Barack Obama/official_portrait_2012.jpg": (
        Box(309.1, 69.3, 510.5, 350.3),
        ((368.8, 178.5), (459.0, 177.0), (412.3, 231.4), (363.2, 270.1), (463.7, 266.3)),
    ),
    "gallery/Joe Biden/blue_room_2010.jpg": (
        Box(275.2, 110.3, 456.5, 358.8),
        ((342.0, 206.1), (418.5, 221.4), (381.2, 260.4), (331.9, 293.3), (402.3, 305.7)),
    ),
    "probes/image_02.jpg": (
        Box(180.3, 60.4, 268.7, 173.4),
        ((205.1, 100.9), (248.0, 103.5), (225.1, 129.0), (201.9, 139.4), (245.8, 142.1)),
    ),
    "probes/image_05.jpg": (
        Box(405.1, 78.5, 554.4, 271.3),
        ((461.2, 152.1), (526.3, 160.7), (500.1, 182.8), (459.5, 218.8), (518.3, 228.1)),
    ),
}


@pytest.fixture(params=FACES)
def photo(request: pytest.FixtureRequest) -> Photo:
    """Each of the good sample photos."""
    box, landmarks = FACES[request.param]
    return Photo(decode((EXAMPLES / request.param).read_bytes()), box, landmarks)


def pixels(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return these brightnesses as a camera stores them."""
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def blurred(photo: Photo, amount: float) -> Photo:
    """`amount` is the Gaussian's sigma in widths of the face."""
    image = cv2.GaussianBlur(photo.image, (0, 0), amount * (photo.box.x_max - photo.box.x_min))
    return replace(photo, image=np.asarray(image, dtype=np.uint8))


def dark(photo: Photo, amount: float) -> Photo:
    """Light that is this many times weaker, with the noise of a sensor."""
    noise = np.random.default_rng(0).normal(0, 1, photo.image.shape)
    return replace(photo, image=pixels(photo.image / amount + noise))


def overexposed(photo: Photo, amount: float) -> Photo:
    """Light that is this many times stronger: more and more of the face is clipped."""
    return replace(photo, image=pixels(photo.image * float(amount)))


def pale(photo: Photo, amount: float) -> Photo:
    """The contrast divided by `amount`, around a medium grey."""
    return replace(photo, image=pixels((photo.image - 128.0) / amount + 128))


def small(photo: Photo, amount: float) -> Photo:
    """Scaled so that the eyes are `amount` pixels closer than 30."""
    factor = (30 - amount) / photo.eye_distance
    image = cv2.resize(photo.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return photo.moved(np.asarray(image, dtype=np.uint8), lambda x, y: (x * factor, y * factor))


def tilted(photo: Photo, degrees: float) -> Photo:
    """Turned in the plane of the picture, around the face; negative adds to the tilt of the samples."""
    centre = ((photo.box.x_min + photo.box.x_max) / 2, (photo.box.y_min + photo.box.y_max) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1)
    image = cv2.warpAffine(photo.image, matrix, photo.image.shape[1::-1])

    def move(x: float, y: float) -> tuple[float, float]:
        moved = matrix @ (x, y, 1)
        return float(moved[0]), float(moved[1])

    turned = photo.moved(np.asarray(image, dtype=np.uint8), move)
    return replace(turned, box=photo.box)


def turned(photo: Photo, degrees: float) -> Photo:
    """Turned to the side: the picture laid on a head with a nose, which is then rotated around its axis."""
    left_x, right_x = photo.landmarks[0][0], photo.landmarks[1][0]
    middle, unit = (left_x + right_x) / 2, photo.eye_distance
    nose_x, nose_y = photo.landmarks[2]
    angle = np.radians(degrees)

    def depth(x: NDArray[np.float64], y: float) -> NDArray[np.float64]:
        skull = -0.3 * ((x - middle) / unit) ** 2
        nose = 0.45 * np.exp(-(((x - nose_x) / (0.3 * unit)) ** 2) - ((y - nose_y) / (0.4 * unit)) ** 2)
        return unit * (skull + nose)

    def column(x: NDArray[np.float64], y: float) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = middle + (x - middle) * np.cos(angle) + depth(x, y) * np.sin(angle)
        return moved

    height, width = photo.image.shape[:2]
    sources = np.arange(width, dtype=np.float64)
    source_x = np.empty((height, width), np.float32)
    for y in range(height):
        # What is hidden behind the nose or the cheek is left out.
        source_x[y] = np.interp(sources, np.maximum.accumulate(column(sources, y)), sources)
    source_y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, axis=1)
    image = np.asarray(cv2.remap(photo.image, source_x, source_y, cv2.INTER_LINEAR), dtype=np.uint8)
    return photo.moved(image, lambda x, y: (float(column(np.array([x]), y)[0]), y))


def test_good_photo_scores_well_without_reasons(photo: Photo) -> None:
    """Good photo scores well without reasons."""
    quality = photo.quality()
    assert quality.score > 0.9
    assert quality.reasons == ()


@pytest.mark.parametrize(
    ("degrade", "amounts", "reason"),
    [
        (blurred, (0.02, 0.03, 0.05, 0.08, 0.12), "blurred"),
        (dark, (2, 4, 8, 12), "too dark"),
        (overexposed, (3, 4, 5), "too bright"),
        (pale, (2, 4, 8, 12), "low contrast"),
        (small, (10, 18, 22, 25), "small: 5 pixels between the eyes"),
        (turned, (25, 40, 55), "turned to the side"),
        (tilted, (-20, -45, -60, -75), "tilted"),
    ],
)
def test_degraded_copy_scores_lower(
    photo: Photo, degrade: Callable[[Photo, float], Photo], amounts: tuple[float, ...], reason: str
) -> None:
    """The first reason names the degradation."""
    found = [photo.quality(), *(degrade(photo, amount).quality() for amount in amounts)]
    scores = [quality.score for quality in found]
    assert all(better > worse for better, worse in pairwise(scores))
    assert scores[-1] < 0.6
    assert found[-1].reasons[0] == reason


def test_dark_skin_in_good_light_is_no_dark_photo(photo: Photo) -> None:
    """A face that reflects a third of the light, with its highlights, is well exposed."""
    # Gamma keeps the highlights, as skin does; a weak light would take them too.
    darker = replace(photo, image=pixels(255 * (photo.image / 255.0) ** 2.2))
    assert darker.image.mean() < 0.75 * photo.image.mean()
    assert "too dark" not in darker.quality().reasons
    assert darker.quality().score > photo.quality().score - 0.05


def test_reduced_picture_is_assessed_by_original_pixels(photo: Photo) -> None:
    """A face is not small because the picture was decoded reduced."""
    reduced = small(photo, 24)
    assert reduced.quality().reasons[0].startswith("small: 6 pixels")
    original = tuple((8 * x, 8 * y) for x, y in reduced.landmarks)
    of_eight = assess(quality_factors(grey_patch(reduced.image, reduced.box), original, 0.99))
    assert not any(reason.startswith("small") for reason in of_eight.reasons)
    assert of_eight.score > reduced.quality().score


def test_low_detector_score_lowers_the_quality(photo: Photo) -> None:
    """Low detector score lowers the quality."""
    assert photo.quality(0.5).score < photo.quality(0.6).score < photo.quality(0.99).score
    assert photo.quality(0.5).reasons == ("hardly a face to the detector",)


def test_short_embedding_lowers_the_quality(photo: Photo) -> None:
    """Without a length it has no influence."""
    scores = [assess(photo.factors(), norm).score for norm in (0.2, 0.6, 1.0)]
    assert scores == sorted(scores)
    assert scores[-1] == photo.quality().score


@pytest.mark.parametrize(
    "box", [Box(-50, -50, -10, -10), Box(5000, 5000, 5100, 5100), Box(10, 10, 10, 10), Box(20, 20, 10, 10)]
)
def test_box_without_pixels_scores_zero(photo: Photo, box: Box) -> None:
    """A detector may return one outside the picture."""
    assert replace(photo, box=box).quality() == Quality(0.0, ("outside of the picture",))


@pytest.mark.parametrize("points", [((5.0, 5.0),) * 5, ((9.0, 5.0), (5.0, 5.0), (7.0, 2.0), (9.0, 1.0), (5.0, 1.0))])
def test_points_that_form_no_face_score_low(photo: Photo, points: Landmarks) -> None:
    """All in one place, or upside down."""
    assert replace(photo, landmarks=points).quality().score < 0.5


def test_flat_picture_scores_zero() -> None:
    """Flat picture scores zero."""
    box, landmarks = FACES["probes/image_02.jpg"]
    assert Photo(np.full((512, 512, 3), 128, np.uint8), box, landmarks).quality().score == 0
