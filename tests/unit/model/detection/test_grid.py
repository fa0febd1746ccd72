"""Grid detectors with a fake network: views, canvases, reading, merging, the second detection."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from model.detection.grid import (
    DETAIL_SIDE,
    SMALL_SIDE,
    STRIDES,
    WHOLE_SIDE,
    GridDetector,
    GridReading,
    Scrfd,
    YuNet,
)

Floats = NDArray[np.float32]

MARK = 250  # the value of a pretended face's pixels; all others are below


class FakeNet:
    """A YuNet that sees a face of 64 pixels around every bright spot, in the grid of stride 8."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: Floats) -> tuple[Floats, ...]:
        """Answer as YuNet does."""
        self.shapes.append(images.shape)
        count, _, height, width = images.shape
        outputs = {}
        for stride in STRIDES:
            cells = (height // stride) * (width // stride)
            for kind, numbers in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
                outputs[f"{kind}_{stride}"] = np.zeros((count, cells, numbers), dtype=np.float32)
        for number, image in enumerate(images):
            bright = image.min(axis=0).reshape(height // 8, 8, width // 8, 8).max(axis=(1, 3)) >= MARK
            for cell in np.flatnonzero(bright):
                outputs["cls_8"][number, cell] = outputs["obj_8"][number, cell] = 0.9
                outputs["bbox_8"][number, cell] = (0.5, 0.5, np.log(8), np.log(8))
                outputs["kps_8"][number, cell] = (-1.5, -1, 2.5, -1, 0.5, 0.5, -1, 2, 2, 2)
        return tuple(outputs[name] for name in YuNet.outputs)


def spotted(width: int, height: int, *spots: tuple[int, int]) -> NDArray[np.uint8]:
    """A dark picture with bright squares of 1/32 of its longer side around these points."""
    image = np.full((height, width, 3), 20, dtype=np.uint8)
    half = max(1, max(width, height) // 64)
    for x, y in spots:
        image[max(0, y - half) : y + half, max(0, x - half) : x + half] = 255
    return image


def detector(net: FakeNet) -> GridDetector:
    """A detector around it."""
    return GridDetector(net, YuNet(), threshold=0.6, overlap=0.3)


@pytest.mark.parametrize(
    ("width", "height", "min_face_pixels", "side"),
    [
        (64, 64, None, SMALL_SIDE),
        (100, 128, None, SMALL_SIDE),
        (250, 250, None, WHOLE_SIDE),
        (1200, 630, None, DETAIL_SIDE),
        (3000, 4000, None, DETAIL_SIDE),
        (3000, 4000, 20, 2016),
        (3000, 4000, 200, DETAIL_SIDE),
        (8000, 6000, 10, 3840),
        (250, 250, 5, 512),
    ],
)
def test_min_side_follows_the_picture_and_the_smallest_face(
    width: int, height: int, min_face_pixels: int | None, side: int
) -> None:
    """Thumbnails are enlarged, small photos shown once, large ones in the detail needed."""
    assert detector(FakeNet()).min_side(width, height, min_face_pixels) == side
    assert side % STRIDES[-1] == 0


def test_large_picture_is_shown_as_a_whole_and_in_detail() -> None:
    """On two canvases of its proportions, in whole cells."""
    net = FakeNet()
    detector(net).detect_batch([spotted(1280, 720)], [DETAIL_SIDE])
    assert sorted(net.shapes) == [(1, 3, 160, 256), (1, 3, 384, 640)]


def test_pictures_of_one_shape_share_a_batch() -> None:
    """Eight at a time, each with its own faces."""
    net = FakeNet()
    pictures = [spotted(250, 250, (60 + 10 * number, 120)) for number in range(5)]
    found = detector(net).detect_batch(pictures, [WHOLE_SIDE] * 5)
    assert net.shapes == [(5, 3, 256, 256)]
    centres = [[(face.box.x_min + face.box.x_max) / 2 for face in faces] for faces in found]
    assert [len(faces) for faces in found] == [1] * 5
    assert [centre for (centre,) in centres] == pytest.approx([60, 70, 80, 90, 100], abs=8)


@pytest.mark.parametrize("size", [(1000, 800), (700, 1100), (250, 250), (64, 50)])
def test_faces_are_in_pixels_of_the_picture(size: tuple[int, int]) -> None:
    """Whatever the size of the view."""
    width, height = size
    x, y = width // 2, height // 3
    side = detector(FakeNet()).min_side(width, height, None)
    (faces,) = detector(FakeNet()).detect_batch([spotted(width, height, (x, y))], [side])
    assert faces
    for face in faces:
        cell = 8 * max(width, height) / WHOLE_SIDE
        assert (face.box.x_min + face.box.x_max) / 2 == pytest.approx(x, abs=cell)
        assert (face.box.y_min + face.box.y_max) / 2 == pytest.approx(y, abs=cell)
        assert face.landmarks[0][0] < face.landmarks[2][0] < face.landmarks[1][0]
        assert face.probability == pytest.approx(0.9)


def test_face_found_in_both_views_is_reported_once() -> None:
    """The largest face comes first."""
    (faces,) = detector(FakeNet()).detect_batch([spotted(640, 640, (320, 320))], [DETAIL_SIDE])
    widths = [face.box.x_max - face.box.x_min for face in faces]
    assert widths == sorted(widths, reverse=True)
    (whole,) = [width for width in widths if width > 100]
    assert whole == pytest.approx(64 * 640 / WHOLE_SIDE)


def test_picture_without_a_face_has_none() -> None:
    """Also a picture of one pixel."""
    found = detector(FakeNet()).detect_batch(
        [spotted(250, 250), np.zeros((1, 1, 3), dtype=np.uint8), np.zeros((3, 900, 3), dtype=np.uint8)],
        [WHOLE_SIDE, SMALL_SIDE, DETAIL_SIDE],
    )
    assert found == [[], [], []]


class TurningNet(FakeNet):
    """Says of its first look that the head is turned by 45 degrees, and of a canvas of the second that it is level."""

    def __call__(self, images: Floats) -> tuple[Floats, ...]:
        """Turn the points of the first look."""
        outputs = dict(zip(YuNet.outputs, super().__call__(images), strict=True))
        if images.shape[2] != SMALL_SIDE:
            outputs["kps_8"][:] = (-1.0, -1.5, 2.0, 1.5, 0.5, 0.5, -1, 2, 2, 2)
        return tuple(outputs[name] for name in YuNet.outputs)


def test_points_of_a_turned_face_come_from_a_second_detection() -> None:
    """Box and probability stay those of the first."""
    net = TurningNet()
    turning = GridDetector(net, YuNet(), threshold=0.6, overlap=0.3, upright_degrees=10.0)
    image = spotted(250, 250, (124, 124))
    (faces,), (first,) = turning.detect_batch([image], [WHOLE_SIDE]), detector(net).detect_batch([image], [WHOLE_SIDE])
    assert net.shapes[:2] == [(1, 3, WHOLE_SIDE, WHOLE_SIDE), (1, 3, SMALL_SIDE, SMALL_SIDE)]
    (face,), (before,) = faces, first
    assert (face.box, face.probability) == (before.box, before.probability)
    assert face.landmarks != before.landmarks
    (left_x, left_y), (right_x, right_y) = face.landmarks[:2]
    assert np.degrees(np.arctan2(right_y - left_y, right_x - left_x)) == pytest.approx(45, abs=1)


class BlindNet(TurningNet):
    """Sees nothing in its second look."""

    def __call__(self, images: Floats) -> tuple[Floats, ...]:
        """Answer the first look alone."""
        return super().__call__(images * (images.shape[2] != SMALL_SIDE))


def test_first_points_stay_if_the_second_detection_finds_nothing() -> None:
    """No face is lost by it."""
    net = BlindNet()
    turning = GridDetector(net, YuNet(), threshold=0.6, overlap=0.3, upright_degrees=10.0)
    image = spotted(250, 250, (124, 124))
    assert turning.detect_batch([image], [WHOLE_SIDE]) == detector(net).detect_batch([image], [WHOLE_SIDE])


def answers(reading: GridReading, cell: int, values: Mapping[str, Sequence[float]]) -> GridDetector:
    """A detector whose network answers in one cell of stride 16 of a picture of 64 by 64."""
    outputs = {}
    for name in reading.outputs:
        kind, stride = name.split("_")
        count = (64 // int(stride)) ** 2 * reading.anchors
        outputs[name] = np.zeros((1, count, {"bbox": 4, "kps": 10}.get(kind, 1)), dtype=np.float32)
    for kind, answer in values.items():
        outputs[f"{kind}_16"][0, cell] = answer
    return GridDetector(lambda _: tuple(outputs[name] for name in reading.outputs), reading, threshold=0.5, overlap=0.4)


def test_yunet_is_read_as_centre_and_exponents() -> None:
    """The score is the root of class and objectness; centre, size and points are in cells of the stride."""
    values = {
        "cls": [0.81],
        "obj": [0.64],
        "bbox": [0.5, 0.25, np.log(2), np.log(1)],
        "kps": [0, 0, 1, 0, 0.5, 0.5, 0, 1, 1, 1],
    }
    ((face,),) = answers(YuNet(), 6, values).detect_batch([np.zeros((64, 64, 3), dtype=np.uint8)], [64])
    assert face.probability == pytest.approx(0.72)
    assert (face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max) == pytest.approx((24, 12, 56, 28))
    assert face.landmarks == ((32, 16), (48, 16), (40, 24), (32, 32), (48, 32))


def test_scrfd_is_read_as_distances_of_two_faces_per_cell() -> None:
    """In strides from the cell's corner."""
    values = {"score": [0.8], "bbox": [1, 0.5, 2, 1], "kps": [-1, 0, 1, 0, 0, 0.5, -1, 1, 1, 1]}
    ((face,),) = answers(Scrfd(), 13, values).detect_batch([np.zeros((64, 64, 3), dtype=np.uint8)], [64])
    assert face.probability == pytest.approx(0.8)
    assert (face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max) == pytest.approx((16, 8, 64, 32))
    assert face.landmarks == ((16, 16), (48, 16), (32, 24), (16, 32), (48, 32))


@pytest.mark.parametrize(
    ("reading", "expected"), [(YuNet(), (30.0, 20.0, 10.0)), (Scrfd(), tuple((x - 127.5) / 128 for x in (10, 20, 30)))]
)
def test_input_is_what_each_network_was_trained_on(reading: GridReading, expected: tuple[float, ...]) -> None:
    """BGR from 0 to 255 for YuNet, RGB from -1 to 1 for SCRFD."""
    canvases = np.full((2, 32, 64, 3), (10, 20, 30), dtype=np.uint8)
    pixels = reading.pixels(canvases)
    assert pixels.shape == (2, 3, 32, 64)
    assert pixels[1, :, 5, 7] == pytest.approx(expected)


def test_doubtful_face_needs_a_second_detection() -> None:
    """Otherwise it is dropped; a turned face that was not doubtful stays."""
    image = spotted(250, 250, (124, 124))
    options = {"threshold": 0.6, "overlap": 0.3, "upright_degrees": 10.0}
    for doubtful, seen, blind in ((0.95, 1, 0), (0.85, 1, 1)):
        strict = GridDetector(TurningNet(), YuNet(), doubtful=doubtful, **options)
        assert len(strict.detect_batch([image], [WHOLE_SIDE])[0]) == seen
        unseen = GridDetector(BlindNet(), YuNet(), doubtful=doubtful, **options)
        assert len(unseen.detect_batch([image], [WHOLE_SIDE])[0]) == blind
