"""The artefact on ONNX Runtime: small to install and quick to start; and the engine over ONNX graphs in general."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import EMBEDDER, Artefact
from model.detection import Detector, Net
from model.detection.grid import READINGS, GridDetector
from model.detection.mtcnn import Mtcnn
from model.detection.proposals import ProposalNet
from model.embedding import Embeddings, cropper, normalised, preprocess
from model.engines import detect_one, require_fp32
from model.faces import DetectedFace


class GraphEngine:
    """The `Engine` whose networks are ONNX graphs, loaded by any runtime."""

    def __init__(self, name: str, precision: str, artefact: Artefact, embedder: Net, detector: Detector) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self.center_weight = artefact.center_weight
        self.detector = detector
        self.cropper = cropper(artefact.crop)
        self._spec = artefact.embedder
        self._embedder = embedder

    def prepare(self) -> Iterator[None]:
        """Do nothing: these networks are ready once they are loaded."""
        yield from ()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        return detect_one(self.detector, image)

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3)."""
        (outputs,) = self._embedder(preprocess(crops, self._spec))
        return normalised(outputs, self._spec)


def build_detector(
    artefact: Artefact,
    grid: Callable[[Path], Net],
    proposals: Callable[[Path], Net | ProposalNet],
    crops: Callable[[Path, int], Net],
) -> Detector:
    """Return the pack's detector.

    `grid` loads the network of a `GridDetector`, `proposals` MTCNN's first network, and `crops` its second and third,
    given the side of their crops in pixels.
    """
    options = artefact.detector.options
    if artefact.detector.kind == "mtcnn":
        return Mtcnn(
            proposals(artefact.path("pnet.onnx")),
            crops(artefact.path("rnet.onnx"), 24),
            crops(artefact.path("onet.onnx"), 48),
            options["min_face_size"],
            tuple(options["thresholds"]),
            options["factor"],
        )
    reading = READINGS[artefact.detector.kind]()
    return GridDetector(grid(artefact.path("detector.onnx")), reading, **options)


def open_engine(artefact: Artefact, threads: int, _cache_directory: Path | None, precision: str) -> GraphEngine:
    """Load the artefact; ONNX Runtime has no cache, and no bfloat16 on the CPUs that we run on."""
    require_fp32(precision, "onnxruntime")

    def load(path: Path, _crop_side: int = 0) -> Net:
        return load_graph(path, threads)

    detector = build_detector(artefact, load, load, load)
    return GraphEngine("onnxruntime", "fp32", artefact, load(artefact.path(EMBEDDER)), detector)


def load_graph(path: Path, threads: int = 1) -> Net:
    """Return the graph as a callable on the CPU; it takes inputs of any shape."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A waiting thread sleeps instead of spinning: the engine shares its cores with the process that feeds it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        return tuple(session.run(None, {source.name: image}))

    return run
