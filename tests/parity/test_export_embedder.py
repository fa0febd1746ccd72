"""Builds with and without torch give the same embedder."""

import urllib.error
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the `export` extra is not installed: make install-reference")
pytest.importorskip("facenet_pytorch", reason="the `export` extra is not installed: make install-reference")

from facenet_pytorch import InceptionResnetV1  # noqa: E402 - after the import check
from facenet_pytorch.models import inception_resnet_v1 as reference  # noqa: E402 - same

from model.artefact import Artefact, BuildFailed  # noqa: E402 - same
from model.export import arrays, embed, embedder_structure  # noqa: E402 - same
from model.packs.build import build  # noqa: E402 - same
from model.packs.catalogue import PACKS, STRUCTURE  # noqa: E402 - same
from model.packs.facenet import (  # noqa: E402 - same
    MIN_COSINE,
    fill,
    fold_batch_norms,
    min_cosine,
    probe_crops,
    read_weights,
    restore_batch_norms,
    run_onnx,
)


@pytest.fixture(scope="module")
def default(classic_dir: Path) -> Artefact:
    """The artefact as it is built without torch."""
    return Artefact.load(classic_dir)


@pytest.fixture(scope="module")
def state_file(default: Artefact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default weights as a state dict for facenet-pytorch, with a classifier as published files have one."""
    network = InceptionResnetV1(classify=False)
    weights = restore_batch_norms(read_weights(onnx.load(default.path("embedder.onnx"))))
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    path: Path = tmp_path_factory.mktemp("weights") / "state.pt"
    torch.save(network.state_dict() | {"logits.weight": torch.zeros(3, 512), "logits.bias": torch.zeros(3)}, path)
    return path


def test_committed_embedder_is_what_the_exporter_writes() -> None:
    """Byte for byte; `python -m model.export` writes it again."""
    assert embedder_structure().SerializeToString(deterministic=True) == STRUCTURE.read_bytes()


def test_build_with_torch_gives_the_same_model(default: Artefact, state_file: Path, tmp_path: Path) -> None:
    """The same id and embedder bytes, and torch agrees with them."""
    through_torch = build(
        PACKS["classic"], weights=str(state_file), output=tmp_path / "model", cache=tmp_path / "cache"
    )
    assert through_torch.model_id == default.model_id
    assert through_torch.files == default.files
    assert through_torch.min_cosine >= MIN_COSINE
    assert through_torch.checked_with.startswith("torch")


def test_build_from_a_file_is_not_calibrated(state_file: Path, tmp_path: Path) -> None:
    """The builder cannot know the threshold of such weights."""
    named = state_file.with_name("casia-webface")
    named.write_bytes(state_file.read_bytes())
    artefact = build(PACKS["classic"], weights=str(named), output=tmp_path / "model", cache=tmp_path / "cache")
    assert artefact.weights_name == "file:casia-webface"
    assert not artefact.tail_calibrated
    assert "of your own" in artefact.header["weights"]["licence"]


def test_fold_keeps_the_network_with_real_batch_norms() -> None:
    """The default weights have trivial batch norms; published state dicts do not."""
    torch.manual_seed(3)
    network = InceptionResnetV1(classify=False).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    graph = fill(onnx.load(STRUCTURE), fold_batch_norms(arrays(network)))
    crops = probe_crops()
    assert min_cosine(run_onnx(graph)(crops), embed(network, crops)) >= MIN_COSINE


def test_build_refuses_a_file_of_something_else(tmp_path: Path) -> None:
    """No torch file, more than tensors, another network: each gives one sentence."""
    contents = {
        "text.pt": b"these are no weights",
        "empty.pt": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"path": Path("x")}, tmp_path / "code.pt")
    for name in (*contents, "code.pt"):
        with pytest.raises(BuildFailed, match=f"{name} is damaged, or holds more than a state dict"):
            build(PACKS["classic"], weights=str(tmp_path / name), output=tmp_path / "model", cache=tmp_path / "cache")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(BuildFailed, match=r"other\.pt holds no state dict"):
        build(PACKS["classic"], weights=str(tmp_path / "other.pt"), output=tmp_path / "model", cache=tmp_path / "cache")
    assert not (tmp_path / "model").exists()


def test_build_of_vggface2_without_internet_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """facenet-pytorch downloads these weights itself; a file works without internet."""

    def refuse(*_: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(reference, "load_weights", refuse)
    with pytest.raises(BuildFailed, match=r"machine with internet.*--weights FILE"):
        build(PACKS["classic"], weights="vggface2", output=tmp_path / "model", cache=tmp_path / "cache")
