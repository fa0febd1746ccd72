"""From bytes to faces, with an engine that only pretends: order, batches, errors, pickling."""

import pickle
from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import model.analysis
from model.analysis import EMBED_BATCH, analyse, analyse_batch
from model.engines import Engine
from model.faces import Box, DetectedFace
from model.header import InvalidImage


class PretendEngine:
    """Finds a face per 10 pixels of width, and embeds a crop as its grey value."""

    name = "pretend"
    precision = "fp32"
    model_id = "pretend-1"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: list[int] = []

    def prepare(self) -> Iterator[None]:
        """Nothing to be done."""
        yield from ()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return growing boxes from left to right."""
        return [
            DetectedFace(Box(10.0 * n, 0.0, 10.0 * n + 5 + n, 8.0), 0.9, ((10.0 * n, 4.0),) * 5)
            for n in range(image.shape[1] // 10)
        ]

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """Detect in each."""
        self.seen.append(len(images))
        return [self.detect(image) for image in images]

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return a crop that remembers the picture and the face."""
        return np.full((160, 160, 3), (int(image[0, 0, 0]) + int(face.box.x_min // 10)) % 256, dtype=np.uint8)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the crop's value in the first component."""
        self.batches.append(len(crops))
        embeddings = np.zeros((len(crops), 512), dtype=np.float32)
        embeddings[:, 0] = crops[:, 0, 0, 0]
        return embeddings


def picture(width: int, value: int) -> bytes:
    """Return a PNG of one grey value."""
    stream = BytesIO()
    Image.new("RGB", (width, 10), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def test_primary_face_is_first_with_its_own_embedding() -> None:
    """Faces are reordered and keep what belongs to them."""
    analysis = analyse(PretendEngine(), picture(30, 100), max_megapixels=1.0, center_weight=0.0)
    assert (analysis.width, analysis.height) == (30, 10)
    assert [face.box.x_min for face in analysis.faces] == [20.0, 10.0, 0.0]
    assert [face.embedding[0] for face in analysis.faces] == [102, 101, 100]
    assert set(analysis.timings_ms) == {"decode", "detect", "embed"}
    assert all(value >= 0 for value in analysis.timings_ms.values())


def test_batch_keeps_each_pictures_faces_and_refusals_apart() -> None:
    """One bad picture is its own outcome; its neighbours lose nothing."""
    engine: Engine = PretendEngine()
    first, broken, faceless, last = analyse_batch(
        engine,
        [picture(20, 50), b"no picture", picture(5, 80), picture(10, 200)],
        max_megapixels=1.0,
        center_weight=2.0,
    )
    assert isinstance(broken, InvalidImage)
    assert not isinstance(first, InvalidImage)
    assert not isinstance(faceless, InvalidImage)
    assert not isinstance(last, InvalidImage)
    assert sorted(face.embedding[0] for face in first.faces) == [50, 51]
    assert faceless.faces == ()
    assert [face.embedding[0] for face in last.faces] == [200]


def test_crops_of_many_pictures_share_bounded_batches() -> None:
    """A crowd is embedded a batch at a time, whatever pictures it comes from."""
    engine = PretendEngine()
    analyse_batch(engine, [picture(100, 0)] * 4, max_megapixels=1.0, center_weight=2.0)
    assert engine.batches == [EMBED_BATCH, EMBED_BATCH, 40 - 2 * EMBED_BATCH]


def test_small_pictures_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the bound on decoded pixels allows; a larger one alone; refusals take no part."""
    monkeypatch.setattr(model.analysis, "DETECT_PIXELS", 700)
    engine = PretendEngine()
    pictures = [picture(20, 1), b"no picture", picture(30, 2), picture(20, 3), picture(200, 4), picture(5, 5)]
    outcomes = analyse_batch(engine, pictures, max_megapixels=1.0, center_weight=2.0)
    assert engine.seen == [3, 1, 1]
    widths = [None if isinstance(outcome, InvalidImage) else outcome.width for outcome in outcomes]
    assert widths == [20, None, 30, 20, 200, 5]


def test_nothing_is_embedded_where_there_is_no_face() -> None:
    """The engine is not asked about nothing."""
    engine = PretendEngine()
    assert analyse(engine, picture(5, 0), max_megapixels=1.0, center_weight=2.0).faces == ()
    assert engine.batches == []


def test_refusal_is_raised_for_a_single_picture() -> None:
    """The limit given is the limit applied."""
    with pytest.raises(InvalidImage, match="megapixels"):
        analyse(PretendEngine(), picture(200, 0), max_megapixels=0.001, center_weight=2.0)


def test_analysis_crosses_a_process_boundary() -> None:
    """The engine's process hands its results over by pickle, an error's sentence included."""
    analysis = analyse(PretendEngine(), picture(20, 7), max_megapixels=1.0, center_weight=2.0)
    copy = pickle.loads(pickle.dumps(analysis))  # noqa: S301 - our own bytes
    assert copy.faces[0].box == analysis.faces[0].box
    assert np.array_equal(copy.faces[1].embedding, analysis.faces[1].embedding)
    assert str(pickle.loads(pickle.dumps(InvalidImage("why")))) == "why"  # noqa: S301 - same
