"""From bytes to faces, with a fake engine: order, batches, errors, pickling."""

import pickle
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import model.analysis
from model.analysis import PictureLimits, analyse, analyse_batch, detect_batch
from model.embedding import EMBED_BATCH, Embeddings, embed_batch
from model.engines import Engine
from model.faces import Box, DetectedFace, ImageAnalysis, Landmarks, PictureFaces, QualityFactor
from model.header import InvalidImage
from tests.fakes.model_engine import FakeEngine

LIMITS = PictureLimits(max_megapixels=1.0)


def picture(width: int, value: int) -> bytes:
    """Return a PNG of one grey value."""
    stream = BytesIO()
    Image.new("RGB", (width, 10), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def test_primary_face_is_first_with_its_own_embedding() -> None:
    """Faces are reordered and keep what belongs to them."""
    analysis = analyse(FakeEngine(center_weight=0.0), picture(30, 100), LIMITS)
    assert (analysis.width, analysis.height) == (30, 10)
    assert [face.box.x_min for face in analysis.faces] == [20.0, 10.0, 0.0]
    assert [face.embedding[0] for face in analysis.faces] == [102, 101, 100]
    assert set(analysis.timings_ms) == {"decode", "detect", "embed"}
    assert all(value >= 0 for value in analysis.timings_ms.values())


def test_batch_keeps_pictures_apart() -> None:
    """An invalid picture has its own outcome; the others lose nothing."""
    engine: Engine = FakeEngine()
    first, broken, faceless, last = analyse_batch(
        engine,
        [picture(20, 50), b"no picture", picture(5, 80), picture(10, 200)],
        LIMITS,
    )
    assert isinstance(broken, InvalidImage)
    assert not isinstance(first, InvalidImage)
    assert not isinstance(faceless, InvalidImage)
    assert not isinstance(last, InvalidImage)
    assert sorted(face.embedding[0] for face in first.faces) == [50, 51]
    assert faceless.faces == ()
    assert [face.embedding[0] for face in last.faces] == [200]


def test_crops_of_many_pictures_share_bounded_batches() -> None:
    """A crowd is embedded a batch at a time, across pictures."""
    engine = FakeEngine()
    analyse_batch(engine, [picture(100, 0)] * 4, LIMITS)
    assert engine.batches == [EMBED_BATCH, EMBED_BATCH, 40 - 2 * EMBED_BATCH]


def test_small_pictures_are_detected_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit of decoded pixels; a larger one alone; invalid ones do not count."""
    monkeypatch.setattr(model.analysis, "DETECT_PIXELS", 700)
    engine = FakeEngine()
    pictures = [picture(20, 1), b"no picture", picture(30, 2), picture(20, 3), picture(200, 4), picture(5, 5)]
    outcomes = analyse_batch(engine, pictures, LIMITS)
    assert engine.seen == [3, 1, 1]
    widths = [None if isinstance(outcome, InvalidImage) else outcome.width for outcome in outcomes]
    assert widths == [20, None, 30, 20, 200, 5]


def test_picture_without_a_face_is_not_embedded() -> None:
    """Picture without a face is not embedded."""
    engine = FakeEngine()
    assert analyse(engine, picture(5, 0), LIMITS).faces == ()
    assert engine.batches == []


def test_invalid_picture_is_raised_for_a_single_picture() -> None:
    """Invalid picture is raised for a single picture."""
    with pytest.raises(InvalidImage, match="megapixels"):
        analyse(FakeEngine(), picture(200, 0), PictureLimits(max_megapixels=0.001))


def test_analysis_can_be_pickled() -> None:
    """Also an error with its sentence."""
    analysis = analyse(FakeEngine(), picture(20, 7), LIMITS)
    copy = pickle.loads(pickle.dumps(analysis))  # noqa: S301 - our own bytes
    assert copy.faces[0].box == analysis.faces[0].box
    assert np.array_equal(copy.faces[1].embedding, analysis.faces[1].embedding)
    assert str(pickle.loads(pickle.dumps(InvalidImage("why")))) == "why"  # noqa: S301 - same


def test_only_the_largest_faces_are_embedded() -> None:
    """The result has the number of the others."""
    analysis = analyse(FakeEngine(center_weight=0.0), picture(100, 0), PictureLimits(max_faces=3))
    assert [face.box.x_min for face in analysis.faces] == [90.0, 80.0, 70.0]
    assert analysis.more_faces == 7


def test_primary_face_is_kept_at_any_size() -> None:
    """It replaces the smallest of the limit."""
    engine = FakeEngine(center_weight=1000.0)
    everyone = analyse(engine, picture(100, 0), LIMITS).faces
    analysis = analyse(engine, picture(100, 0), PictureLimits(max_faces=3))
    assert analysis.faces[0].box == everyone[0].box
    assert {face.box.x_min for face in analysis.faces} == {everyone[0].box.x_min, 90.0, 80.0}
    assert analysis.more_faces == 7


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """Return a grey JPEG with an EXIF orientation."""
    stream, exif = BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (60, 60, 60)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_faces_of_a_reduced_picture_are_in_original_pixels() -> None:
    """Faces of a reduced picture are in original pixels."""
    analysis = analyse(FakeEngine(min_side=100), jpeg(400, 200), LIMITS)
    assert (analysis.width, analysis.height) == (400, 200)
    assert sorted(face.box.x_min for face in analysis.faces) == [40.0 * n for n in range(10)]
    assert analysis.faces[0].landmarks[0][1] == 16.0


def test_small_faces_are_cropped_from_a_larger_decoding() -> None:
    """Up to the pixels of the picture."""
    engine = FakeEngine(min_side=100, enlarged=2.0)
    analysis = analyse(engine, jpeg(400, 200), LIMITS)
    assert {width for width, _ in engine.cut_from} == {200}
    assert sorted(x for _, x in engine.cut_from) == [20 * n for n in range(10)]
    assert sorted(face.box.x_min for face in analysis.faces) == [40.0 * n for n in range(10)]


@pytest.mark.parametrize(("orientation", "size"), [(1, (400, 200)), (3, (400, 200)), (6, (200, 400)), (8, (200, 400))])
def test_size_of_a_reduced_picture_is_upright(orientation: int, size: tuple[int, int]) -> None:
    """Phones store portraits on their side."""
    analysis = analyse(FakeEngine(min_side=100), jpeg(400, 200, orientation), LIMITS)
    assert (analysis.width, analysis.height) == size


class CutOffEngine(FakeEngine):
    """Finds faces that the picture's edges cut, and one that lies outside."""

    def __init__(self, min_side: int | None = None) -> None:
        super().__init__(center_weight=0.0, min_side=min_side)
        self.cropped: list[Box] = []

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return a face over each corner, a small one inside, and one outside."""
        height, width = image.shape[:2]
        boxes = [(-90, -90, 20, 20), (width - 20, height - 20, width + 60, height + 60), (30, 5, 35, 9), (-9, 5, -1, 9)]
        return [DetectedFace(Box(*map(float, box)), 0.9, ((box[0], box[1]),) * 5) for box in boxes]

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Remember the box."""
        self.cropped.append(face.box)
        return super().crop(image, face)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("min_side", [None, 100])
def test_faces_at_the_edges_are_reported_within_the_picture(min_side: int | None, orientation: int) -> None:
    """Of a reduced or turned picture, too; the crop is that of the whole face, and the primary face is the same."""
    engine = CutOffEngine(min_side)
    analysis = analyse(engine, jpeg(400, 200, orientation), LIMITS)
    assert len(analysis.faces) == 3
    assert engine.cropped[0].x_min == -90
    assert analysis.faces[0].box.x_min == 0
    for face in analysis.faces:
        assert 0 <= face.box.x_min < face.box.x_max <= analysis.width
        assert 0 <= face.box.y_min < face.box.y_max <= analysis.height
        assert all(0 <= x <= analysis.width and 0 <= y <= analysis.height for x, y in face.landmarks)
        assert face.quality is not None


def test_quality_is_that_of_the_whole_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipped landmarks would look like a turned head."""
    seen: list[Landmarks] = []

    def noted(_patch: object, landmarks: Landmarks, _probability: float) -> tuple[QualityFactor, ...]:
        seen.append(landmarks)
        return ()

    monkeypatch.setattr(model.analysis, "quality_factors", noted)
    analyse(CutOffEngine(), jpeg(400, 200), LIMITS)
    assert ((-90, -90),) * 5 in seen


class NormedEngine(FakeEngine):
    """Gives the lengths of its embeddings, too."""

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """A length from the crop's value, from 0.2 to 1."""
        vectors, _ = super().embed(crops)
        return Embeddings(vectors, vectors[:, 0] / np.float32(300) + np.float32(0.2))


@pytest.mark.parametrize("engine", [FakeEngine(), NormedEngine(), FakeEngine(min_side=100, enlarged=2.0)])
def test_halves_give_the_whole_analysis(engine: FakeEngine) -> None:
    """Also if the second one is another process: bit by bit, with the quality, for every kind of picture."""
    pictures = [picture(30, 100), b"no picture", picture(5, 80), jpeg(400, 200), jpeg(400, 200, 6), picture(100, 1)]
    whole = analyse_batch(engine, pictures, LIMITS)
    detected = pickle.loads(pickle.dumps(detect_batch(engine, pictures, LIMITS)))  # noqa: S301 - our own bytes
    embedded = embed_batch(engine, [each for each in detected if isinstance(each, PictureFaces)])
    assert [plain(each) for each in embedded] == [plain(each) for each in whole if not isinstance(each, InvalidImage)]
    assert str(detected[1]) == str(whole[1])


def plain(analysis: ImageAnalysis) -> object:
    """Return what can be compared, without the times."""
    faces = [(face.box, face.landmarks, face.quality, face.embedding.tobytes()) for face in analysis.faces]
    return analysis.width, analysis.height, analysis.more_faces, faces, sorted(analysis.timings_ms)


def test_faces_before_the_embedding_have_their_crops_in_order() -> None:
    """Primary face first, with the number of those left out."""
    (faces,) = detect_batch(FakeEngine(center_weight=0.0), [picture(100, 0)], PictureLimits(max_faces=3))
    assert isinstance(faces, PictureFaces)
    assert [face.box.x_min for face in faces.faces] == [90.0, 80.0, 70.0]
    assert (faces.crops.shape, faces.crops[:, 0, 0, 0].tolist()) == ((3, 160, 160, 3), [9, 8, 7])
    assert faces.more_faces == 7
    assert set(faces.timings_ms) == {"decode", "detect"}
