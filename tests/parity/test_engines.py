"""Every engine finds the reference's faces, and gives the reference's embeddings."""

from collections.abc import Callable

import numpy as np
import pytest
from facenet_pytorch.models.utils.detect_face import extract_face
from PIL import Image

from model.artefact import Artefact
from model.engines import Engine
from tests.parity.pictures import PICTURES, Expected

BOX_TOLERANCE_PIXELS = 0.5
MIN_COSINE = 0.9995
LABELLED = ("as it is", "at 250 pixels", "at 64 by 64")


def test_engine_finds_the_faces_of_the_reference(engine: Engine, expected: Expected) -> None:
    """The same number in the same order, with boxes and landmarks within half a pixel."""
    faces = engine.detect(expected.image)
    assert len(faces) == len(expected.faces)
    for face, known in zip(faces, expected.faces, strict=True):
        box, known_box = face.box, known.box
        assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx(
            (known_box.x_min, known_box.y_min, known_box.x_max, known_box.y_max), abs=BOX_TOLERANCE_PIXELS
        )
        assert np.array(face.landmarks) == pytest.approx(np.array(known.landmarks), abs=BOX_TOLERANCE_PIXELS)
        assert face.probability == pytest.approx(known.probability, abs=1e-3)


def test_engine_gives_the_embeddings_of_the_reference(engine: Engine, expected: Expected) -> None:
    """From picture to embedding, with the engine's own boxes and crops."""
    faces = engine.detect(expected.image)
    if faces:
        embeddings = engine.embed(np.stack([engine.cropper.crop(expected.image, face) for face in faces])).vectors
        assert embeddings.dtype == np.float32
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1.0, abs=1e-5)
        assert (embeddings * expected.embeddings).sum(axis=1).min() >= MIN_COSINE


def test_engine_decides_as_the_reference(
    engine: Engine, examined: Callable[[str], Expected], artefact: Artefact
) -> None:
    """At the model's threshold, every pair of faces in the samples has the same answer."""
    samples = [examined(name) for name in PICTURES if name.endswith(LABELLED)]
    known = np.concatenate([sample.embeddings for sample in samples])
    ours = np.concatenate([engine.embed(np.stack(sample.crops)).vectors for sample in samples if sample.crops])
    matches = known @ known.T >= artefact.threshold
    assert 0 < matches.sum() - len(matches) < matches.size - len(matches)  # both verdicts occur
    assert np.array_equal(ours @ ours.T >= artefact.threshold, matches)


def test_embedding_does_not_depend_on_the_batch(engine: Engine, examined: Callable[[str], Expected]) -> None:
    """A face has the same embedding alone and in a batch."""
    crops = examined("a group").crops
    together = engine.embed(np.stack(crops)).vectors
    alone = np.concatenate([engine.embed(crop[np.newaxis]).vectors for crop in crops])
    assert (together * alone).sum(axis=1).min() >= 1 - 1e-5


def test_crops_are_those_of_the_reference(reference: Engine, expected: Expected) -> None:
    """Margin, clipping and resampling are those of facenet-pytorch, to the last bit."""
    for face, crop in zip(expected.faces, expected.crops, strict=True):
        box = [face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max]
        published = extract_face(Image.fromarray(expected.image), box, image_size=160, margin=32)
        assert np.array_equal(crop, published.permute(1, 2, 0).numpy())
    assert reference.name == "torch"


def test_comparison_pictures_contain_faces(examined: Callable[[str], Expected]) -> None:
    """The pictures have several faces, one, and none, as intended."""
    assert len(examined("a group").faces) >= 4
    assert examined("10 by 10").faces == []
