"""The artefact on ONNX Runtime: small to install and quick to start, for machines without OpenVINO."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import EMBEDDER, Artefact
from model.detection import Detector
from model.detection.grid import OUTPUTS, GridDetector, Scrfd, YuNet
from model.detection.mtcnn import Mtcnn
from model.detection.proposals import Net, ProposalNet
from model.embedding import Embeddings, cropper, normalised, preprocess
from model.engines import require_fp32
from model.faces import DetectedFace


class Graphs(Protocol):
    """Loads graphs as callables from float32 (N, C, H, W) to their outputs, in the way that suits their use."""

    def embedder(self, path: Path) -> Net:
        """Return a network of crops of one size, any number at a time."""

    def looks(self, path: Path) -> Net:
        """Return a network of pictures of a few sizes, up to eight at a time; its outputs hold until the next call."""

    def proposals(self, path: Path) -> Net | ProposalNet:
        """Return MTCNN's first network."""

    def crops(self, path: Path, size: int) -> Net:
        """Return MTCNN's second or third network, of crops of this side, any number at a time."""


class GraphEngine:
    """The `Engine` whose networks are ONNX graphs."""

    def __init__(self, name: str, precision: str, artefact: Artefact, graphs: Graphs) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self.center_weight = artefact.center_weight
        self.detector = detector(artefact, graphs)
        self.cropper = cropper(artefact.crop)
        self._spec = artefact.embedder
        self._embedder = graphs.embedder(artefact.path(EMBEDDER))

    def prepare(self) -> Iterator[None]:
        """Nothing is made when it is first asked for."""
        yield from ()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        (faces,) = self.detect_batch([image])
        return faces

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """Return the faces of each picture, the largest first."""
        sides = [self.detector.least_side(image.shape[1], image.shape[0], None) for image in images]
        return self.detector.detect_batch(images, sides)

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return what the embedder sees of a face, uint8 (S, S, 3)."""
        return self.cropper.crop(image, face)

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3)."""
        (outputs,) = self._embedder(preprocess(crops, self._spec))
        return normalised(outputs, self._spec)


def detector(artefact: Artefact, graphs: Graphs) -> Detector:
    """Return the pack's detector over its graphs."""
    options = artefact.detector.options
    if artefact.detector.kind == "mtcnn":
        return Mtcnn(
            graphs.proposals(artefact.path("pnet.onnx")),
            graphs.crops(artefact.path("rnet.onnx"), 24),
            graphs.crops(artefact.path("onet.onnx"), 48),
            options["min_face_size"],
            tuple(options["thresholds"]),
            options["factor"],
        )
    reading = YuNet() if artefact.detector.kind == "yunet" else Scrfd()
    net = graphs.looks(artefact.path("detector.onnx"))
    return GridDetector(net, OUTPUTS[artefact.detector.kind], reading, **options)


def open_engine(artefact: Artefact, threads: int, _cache_directory: Path | None, precision: str) -> GraphEngine:
    """Load the artefact; ONNX Runtime keeps no cache of its own and has no bfloat16 on the CPUs that we run on."""
    require_fp32(precision, "onnxruntime")
    return GraphEngine("onnxruntime", "fp32", artefact, OnnxRuntimeGraphs(session_options(threads)))


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return options for so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A waiting thread sleeps instead of spinning: the cores are shared with the process that feeds the engine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxRuntimeGraphs:
    """Graphs on ONNX Runtime, which takes every shape for the same price."""

    def __init__(self, options: onnxruntime.SessionOptions | None = None) -> None:
        self._options = options

    def embedder(self, path: Path) -> Net:
        """Return the graph."""
        return load_graph(path, self._options)

    def looks(self, path: Path) -> Net:
        """Return the graph."""
        return load_graph(path, self._options)

    def proposals(self, path: Path) -> Net:
        """Return the graph."""
        return load_graph(path, self._options)

    def crops(self, path: Path, _size: int) -> Net:
        """Return the graph."""
        return load_graph(path, self._options)


def load_graph(path: Path, options: onnxruntime.SessionOptions | None = None) -> Net:
    """Return the graph as a callable on the CPU."""
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        return tuple(session.run(None, {source.name: image}))

    return run
