"""MTCNN without torch: its arithmetic, its edge cases, and the reference's faces in the samples."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
import pytest
from numpy.typing import NDArray

import model.detection.integral_image
from model.detection import Net, suppress_by_smaller, suppress_by_union
from model.detection.integral_image import IntegralImage
from model.detection.mtcnn import Mtcnn
from model.detection.proposals import STRIDE, TILE, cells, cut, pack
from model.engines import detect_one
from model.engines.onnxruntime import load_graph as load_onnxruntime
from model.engines.openvino_shapes import BatchedCrops, PackedProposals
from model.faces import DetectedFace
from model.imaging import decode

ROOT = Path(__file__).resolve().parents[4]
GRAPHS = ROOT / "model" / "graphs"
# Recorded from facenet-pytorch by tests/parity/record_golden.py.
GOLDEN = json.loads(Path(__file__).with_name("golden_detection.json").read_text(encoding="utf-8"))


def plain(load: Callable[[Path], Net]) -> Mtcnn:
    """Return the real networks around the real glue, each tile a P-Net input of its own."""
    return Mtcnn(load(GRAPHS / "pnet.onnx"), load(GRAPHS / "rnet.onnx"), load(GRAPHS / "onet.onnx"))


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def real(request: pytest.FixtureRequest) -> Mtcnn:
    """A detector as each engine runs it."""
    if request.param == "onnxruntime":
        return plain(load_onnxruntime)
    core, config = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    return Mtcnn(
        PackedProposals(GRAPHS / "pnet.onnx", core, config),
        BatchedCrops(GRAPHS / "rnet.onnx", core, config),
        BatchedCrops(GRAPHS / "onet.onnx", core, config),
    )


@pytest.mark.parametrize("name", sorted(GOLDEN["pictures"]))
def test_faces_are_those_of_the_reference(real: Mtcnn, name: str) -> None:
    """Boxes and landmarks within half a pixel of facenet-pytorch's, the same faces in the same order."""
    data, golden = (ROOT / name).read_bytes(), GOLDEN["pictures"][name]
    assert hashlib.sha256(data).hexdigest() == golden["sha256"], (
        "the sample has changed: record the golden values again"
    )
    faces = detect_one(real, decode(data))
    assert len(faces) == len(golden["faces"])
    for face, expected in zip(faces, golden["faces"], strict=True):
        assert corners(face) == pytest.approx(expected["box"], abs=0.5)
        assert np.array(face.landmarks) == pytest.approx(np.array(expected["landmarks"]), abs=0.5)
        assert face.probability == pytest.approx(expected["probability"], abs=1e-3)


def corners(face: DetectedFace) -> list[float]:
    """Return a face's box as a list."""
    box = face.box
    return [box.x_min, box.y_min, box.x_max, box.y_max]


@pytest.mark.parametrize("shape", [(1, 1), (10, 10), (19, 300), (300, 1), (20, 20)])
def test_picture_too_small_for_a_face_has_none(real: Mtcnn, shape: tuple[int, int]) -> None:
    """A picture smaller than the smallest face is answered, not refused."""
    assert detect_one(real, np.full((*shape, 3), 120, dtype=np.uint8)) == []


def test_blank_picture_has_no_face(real: Mtcnn) -> None:
    """If a network finds nothing, the next one is not run."""
    assert detect_one(real, np.zeros((200, 301, 3), dtype=np.uint8)) == []


def busiest() -> NDArray[np.uint8]:
    """Return the sample with the most faces."""
    name = max(GOLDEN["pictures"], key=lambda key: len(GOLDEN["pictures"][key]["faces"]))
    return decode((ROOT / name).read_bytes())


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the picture in another size."""
    return np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)


def same(faces: list[DetectedFace], others: list[DetectedFace]) -> bool:
    """Say whether two lists of faces differ by less than a hundredth of a pixel."""
    return len(faces) == len(others) and all(
        corners(face) == pytest.approx(corners(other), abs=0.01) for face, other in zip(faces, others, strict=True)
    )


def test_tiles_do_not_change_the_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No face is lost or moved at a seam."""
    image, detector = busiest(), plain(load_onnxruntime)
    monkeypatch.setattr(model.detection.proposals, "TILE", (10**4, 10**4))
    whole = detect_one(detector, image)
    monkeypatch.setattr(model.detection.proposals, "TILE", (38, 50))
    assert whole
    assert same(whole, detect_one(detector, image))


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (90, 121), (250, 250), (251, 187), (40, 700), (333, 421)])
def test_packed_scales_give_the_same_faces(real: Mtcnn, shape: tuple[int, int]) -> None:
    """With even and odd sides, including the last half-filled cells."""
    image = resized(busiest(), *shape)
    assert same(detect_one(real, image), detect_one(plain(load_onnxruntime), image))


def test_batch_gives_the_faces_of_each_picture(real: Mtcnn) -> None:
    """Pictures of several sizes, without a face, and too small for one."""
    image = busiest()
    images = [image, np.zeros((80, 80, 3), np.uint8), image[:, ::-1], image[:10, :10], resized(image, 64, 64)]
    batch = real.detect_batch(images, [None] * len(images))
    assert len(batch) == len(images)
    assert batch[0]
    assert all(same(faces, detect_one(real, each)) for faces, each in zip(batch, images, strict=True))
    assert real.detect_batch([], []) == []


@pytest.mark.parametrize("sizes", [((39, 39), (28, 28), (20, 20), (14, 14)), ((1201, 640), (852, 454)), ((11, 300),)])
def test_sheets_show_every_cell_once(sizes: tuple[tuple[int, int], ...]) -> None:
    """Tiles begin at even pixels, do not overlap, and stay inside."""
    shapes = ((40, 88), (64, 112), TILE)
    seen = [np.zeros((cells(height), cells(width)), dtype=int) for height, width in sizes]
    for sheet in pack(sizes, shapes):
        assert sheet.size in shapes
        taken = np.zeros(sheet.size, dtype=int)
        for placed in sheet.tiles:
            tile = placed.tile
            assert (placed.top % STRIDE, placed.left % STRIDE) == (0, 0)
            area = np.s_[placed.top : placed.top + tile.height, placed.left : placed.left + tile.width]
            assert taken[area].shape == (tile.height, tile.width)
            taken[area] += 1
            rows, columns = tile.cells
            seen[tile.scale][tile.row : tile.row + rows, tile.column : tile.column + columns] += 1
        assert taken.max() == 1
    assert all((scale == 1).all() for scale in seen)
    assert {tile.scale for tile in cut(sizes, TILE)} == set(range(len(sizes)))


def test_large_picture_has_bounded_inputs() -> None:
    """P-Net's inputs do not grow with the picture."""
    seen: list[int] = []

    def pnet(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        seen.append(image.shape[2] * image.shape[3])
        rows, columns = ((side - 9) // 2 for side in image.shape[2:])
        return np.zeros((1, 4, rows, columns), np.float32), np.zeros((1, 2, rows, columns), np.float32)

    assert detect_one(Mtcnn(pnet, unasked, unasked), np.zeros((3000, 4000, 3), dtype=np.uint8)) == []
    assert sum(seen) > 10 * TILE[0] * TILE[1]
    assert max(seen) == TILE[0] * TILE[1]


def unasked(_image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Stand for a network that must not be run."""
    raise AssertionError("a network was asked about nothing")


def test_proposal_outside_the_picture_is_dropped() -> None:
    """Also if its regression moves it there."""

    def pnet(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        rows, columns = ((side - 9) // 2 for side in image.shape[2:])
        probability = np.zeros((1, 2, rows, columns), np.float32)
        probability[0, 1, 0, 0] = 0.99
        return np.full((1, 4, rows, columns), -50, np.float32), probability

    assert detect_one(Mtcnn(pnet, unasked, unasked), np.zeros((40, 40, 3), dtype=np.uint8)) == []


def pooled(image: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """Return the plain definition of area pooling, normalised, channels first."""
    rows, columns = image.shape[:2]
    means = np.empty((3, height, width))
    for y in range(height):
        for x in range(width):
            top, bottom = y * rows // height, -(-(y + 1) * rows // height)
            left, right = x * columns // width, -(-(x + 1) * columns // width)
            means[:, y, x] = image[top:bottom, left:right].mean(axis=(0, 1))
    return (means - 127.5) / 128


@pytest.mark.parametrize(("shape", "target"), [((40, 50), (25, 31)), ((101, 77), (12, 40)), ((13, 17), (24, 24))])
def test_scaling_is_area_pooling(shape: tuple[int, int], target: tuple[int, int]) -> None:
    """The mean over every window, also if windows overlap or repeat."""
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    integral = IntegralImage(image)
    whole, part = np.empty((3, *target), np.float32), np.empty((3, 4, 9), np.float32)
    integral.scaled(*target, np.s_[:, :], out=whole)
    assert whole == pytest.approx(pooled(image, *target), abs=1e-5)
    integral.scaled(*target, np.s_[5:9, 2:11], out=part)
    assert np.array_equal(part, whole[:, 5:9, 2:11])


def test_crops_are_area_pooled() -> None:
    """Larger or smaller than the network's input."""
    image = np.random.default_rng(4).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = np.array([(0, 0, 120, 90), (3, 5, 4, 6), (100, 2, 120, 60), (10, 20, 47, 31)], dtype=np.intp)
    crops = IntegralImage(image).crops(boxes, 24)
    for crop, (left, top, right, bottom) in zip(crops, boxes, strict=True):
        assert crop == pytest.approx(pooled(image[top:bottom, left:right], 24, 24), abs=1e-5)


def test_picture_summed_in_parts_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, for windows larger and smaller than a part."""
    image = np.random.default_rng(8).integers(0, 256, (140, 90, 3), dtype=np.uint8)
    boxes = np.array([(0, 0, 90, 140), (3, 5, 4, 6), (10, 20, 47, 31)], dtype=np.intp)

    def read() -> list[NDArray[np.float32]]:
        integral = IntegralImage(image)
        scaled, tiny = np.empty((3, 40, 30), np.float32), np.empty((3, 1, 2), np.float32)
        integral.scaled(61, 44, np.s_[8:48, 3:33], out=scaled)
        integral.scaled(1, 2, np.s_[:, :], out=tiny)
        return [scaled, tiny, integral.crops(boxes, 24)]

    whole = read()
    monkeypatch.setattr(model.detection.integral_image, "WHOLE_PIXELS", 0)
    for part_pixels in (1, 700, 10**6):
        monkeypatch.setattr(model.detection.integral_image, "PART_PIXELS", part_pixels)
        assert all(np.array_equal(one, other) for one, other in zip(whole, read(), strict=True))


def test_sums_may_overflow() -> None:
    """A white picture of 18 megapixels overflows 32 bits in its sums, but not in their differences."""
    image = np.full((3000, 6000, 3), 255, dtype=np.uint8)
    scaled = np.empty((3, 12, 24), np.float32)
    IntegralImage(image).scaled(12, 24, np.s_[:, :], out=scaled)
    assert (scaled == np.float32((255 - 127.5) / 128)).all()


def overlap(box: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return float(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))


def test_union_suppression_keeps_the_best_boxes() -> None:
    """No two kept boxes overlap too much; each dropped one overlaps a better kept one."""
    rng = np.random.default_rng(5)
    corner, sides = rng.integers(0, 60, (200, 2)), rng.integers(10, 40, (200, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    scores = rng.integers(0, 20, 200).astype(np.float32)  # many ties
    kept = suppress_by_union(boxes, scores, 0.5).tolist()
    assert [scores[index] for index in kept] == sorted((scores[index] for index in kept), reverse=True)
    assert all(overlap(boxes[a], boxes[b]) <= 0.5 for a in kept for b in kept if a != b)
    for index in set(range(200)) - set(kept):
        assert any(overlap(boxes[index], boxes[a]) > 0.5 and scores[a] >= scores[index] for a in kept)


def test_suppression_in_blocks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppression in blocks gives the same."""
    rng = np.random.default_rng(6)
    corner, sides = rng.integers(0, 90, (300, 2)), rng.integers(0, 40, (300, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1).astype(np.float32)
    scores = rng.permutation(300).astype(np.float32)
    results = []
    for block, others in ((300, 300), (7, 11), (1, 1)):
        monkeypatch.setattr(model.detection, "_BLOCK", block)
        monkeypatch.setattr(model.detection, "_OTHERS", others)
        results.append([suppress(boxes, scores, 0.5).tolist() for suppress in (suppress_by_union, suppress_by_smaller)])
    assert results[0] == results[1] == results[2]


def test_face_inside_a_face_is_dropped() -> None:
    """The last step compares with the smaller area; the union would keep it."""
    boxes = np.array([(0, 0, 100, 100), (20, 20, 50, 50), (200, 0, 300, 100)], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.95], dtype=np.float32)
    assert suppress_by_smaller(boxes, scores, 0.7).tolist() == [2, 0]
    assert suppress_by_union(boxes, scores, 0.7).tolist() == [2, 0, 1]


def test_suppression_of_no_boxes_is_empty() -> None:
    """Suppression of no boxes is empty."""
    none, no_scores = np.empty((0, 4), dtype=np.float32), np.empty(0, dtype=np.float32)
    assert suppress_by_union(none, no_scores, 0.5).size == 0
    assert suppress_by_smaller(none, no_scores, 0.5).size == 0
