"""Real files of every format, damaged at random: a picture or a sentence comes out, and nothing else.

Short, and in this process; `benchmarks.fuzz` feeds many more to the engine's own.
"""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.analysis import PictureLimits, analyse_batch
from model.faces import ImageAnalysis
from model.header import InvalidImage, read_header
from model.imaging import decode
from tests.fakes.model_engine import FakeEngine
from tests.support.mutations import mutated, seeds
from tests.support.processes import CHECKOUT

MEGAPIXELS = 0.05
POOL = [seed for seed in seeds(CHECKOUT / "examples") if read_header(seed).width <= 160]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of EXIF that is damaged, too

Outcome = tuple[int, int, list[float]] | str


def outcomes(pictures: list[bytes]) -> list[Outcome]:
    """What becomes of the pictures of one batch: size and faces, or the refusal's sentence."""
    found = analyse_batch(FakeEngine(), pictures, PictureLimits(max_megapixels=MEGAPIXELS))
    return [
        (outcome.width, outcome.height, [float(face.embedding[0]) for face in outcome.faces])
        if isinstance(outcome, ImageAnalysis)
        else str(outcome)
        for outcome in found
    ]


@settings(max_examples=500)
@given(st.randoms(use_true_random=False))
def test_damaged_file_is_a_picture_or_a_sentence(rng: Random) -> None:
    """A decoded picture is RGB within the limit and of the size in its header. A refusal says what to do."""
    data = mutated(rng, POOL)
    refusal = None
    try:
        pixels = decode(data, MEGAPIXELS)
    except InvalidImage as exc:
        refusal = str(exc)
    if refusal is not None:
        assert "send" in refusal
        return
    header = read_header(data, MEGAPIXELS)
    assert {header.width, header.height} == set(pixels.shape[:2])
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert pixels.shape[0] * pixels.shape[1] <= MEGAPIXELS * 1e6
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


@given(st.lists(st.randoms(use_true_random=False), min_size=2, max_size=8))
def test_damaged_neighbour_changes_nothing(rngs: list[Random]) -> None:
    """In a batch a picture gets the same answer as alone."""
    pictures = [rng.choice(POOL) if rng.random() < 0.3 else mutated(rng, POOL) for rng in rngs]
    assert outcomes(pictures) == [outcome for picture in pictures for outcome in outcomes([picture])]
