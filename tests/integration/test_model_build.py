"""The real model: built once from the packaged weights, then found, verified and used."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from facerec.settings import Settings
from model.artefact import Artefact, BuildFailed, silent
from model.packs.build import build
from model.packs.catalogue import CASIA, PACKS
from model.packs.facenet import Original, convert, original, probe_crops, read_weights, run_onnx

CLASSIC = PACKS["classic"]


@pytest.fixture(scope="module")
def cache() -> Path:
    """The cache of downloaded weights, shared with the user's builds."""
    return Settings().model.cache_dir


@pytest.fixture(scope="module")
def built(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The classic artefact, built by this version."""
    return build(CLASSIC, output=tmp_path_factory.mktemp("built") / "model", cache=cache)


@pytest.mark.parametrize(
    ("pack", "model_id"),
    [
        ("open", "open-128-3426150903e12d6e"),
        ("accurate", "accurate-512-82f66b4a11fda3ba"),
        (
            "classic",
            "facenet-160-4fec5286dab0312a",
        ),  # the id from before packs existed, so that old templates stay valid
    ],
)
def test_build_agrees_with_the_published_weights_and_has_a_stable_id(
    pack: str, model_id: str, cache: Path, tmp_path: Path
) -> None:
    """The id is on every template in every gallery: a change of it makes them all useless."""
    artefact = build(PACKS[pack], output=tmp_path / "model", cache=cache)
    assert artefact.model_id == model_id
    assert artefact.min_cosine >= 0.99999
    assert artefact.tail_calibrated
    artefact.verify()


def test_embeddings_have_length_one_for_any_number_of_crops(built: Artefact) -> None:
    """The graph's batch dimension is free."""
    embed = run_onnx(onnx.load(built.path("embedder.onnx")))
    crops = probe_crops()
    alone, together = embed(crops[:1]), embed(crops)
    assert together.shape == (len(crops), 512)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)


def test_probes_of_the_check_have_different_embeddings(built: Artefact) -> None:
    """Inputs that all give one embedding would check nothing."""
    embeddings = run_onnx(onnx.load(built.path("embedder.onnx")))(probe_crops())
    similarities = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), k=1)]
    assert np.max(similarities) < 0.9


def test_check_refuses_a_wrong_conversion(built: Artefact, cache: Path) -> None:
    """Two layers of one shape, swapped: everything fits but the result."""
    published = original(CASIA, cache, silent)
    tensors = dict(published.tensors)
    one, two = "repeat_3.0.branch1.0", "repeat_3.1.branch1.0"
    for kind in ("weight", "bias"):
        tensors[f"{one}.{kind}"], tensors[f"{two}.{kind}"] = tensors[f"{two}.{kind}"], tensors[f"{one}.{kind}"]
    swapped = Original(**{**vars(published), "tensors": tensors})
    with pytest.raises(BuildFailed, match="disagrees with the original"):
        convert(swapped)
    assert read_weights(onnx.load(built.path("embedder.onnx"))).keys() == published.tensors.keys()


def test_second_build_keeps_the_first(built: Artefact, cache: Path) -> None:
    """It writes nothing and says so."""
    said: list[str] = []
    again = build(CLASSIC, output=built.directory, cache=cache, on_progress=lambda text, _: said.append(text))
    assert again == built
    assert said[-1] == "the model is there already, intact and built from the same inputs"


def test_damaged_artefact_is_built_again(built: Artefact, cache: Path, tmp_path: Path) -> None:
    """To the same id, from the cached weights."""
    here = tmp_path / "model"
    here.mkdir()
    for name in (*built.files, "model.json"):
        (here / name).write_bytes((built.directory / name).read_bytes())
    content = bytearray((here / "embedder.onnx").read_bytes())
    content[-1] ^= 1
    (here / "embedder.onnx").write_bytes(content)
    again = build(CLASSIC, output=here, cache=cache)
    again.verify()
    assert again.model_id == built.model_id


@pytest.mark.parametrize(
    ("pack", "weights", "words"),
    [
        ("classic", "casia", "choose casia-webface, vggface2, or the path"),
        ("open", "vggface2", "add `--pack classic`"),
    ],
)
def test_unknown_weights_are_refused_before_a_download(tmp_path: Path, pack: str, weights: str, words: str) -> None:
    """The error names the choice."""
    with pytest.raises(BuildFailed, match=words):
        build(PACKS[pack], weights=weights, output=tmp_path / "model", cache=tmp_path / "cache")
    assert not list(tmp_path.iterdir())
