"""The artefact on ONNX Runtime: small to install and quick to start."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import EMBEDDER, Artefact
from model.detection import Net
from model.engines import require_fp32
from model.engines.graph_engine import GraphEmbedder, GraphEngine

if TYPE_CHECKING:
    from model.engines.graph_detector import GraphDetector


def open_engine(artefact: Artefact, threads: int, cache_directory: Path | None, precision: str) -> GraphEngine:
    """Load the artefact; ONNX Runtime has no cache, and no bfloat16 on the CPUs that we run on."""
    options = (artefact, threads, cache_directory, precision)
    return GraphEngine(open_detector(*options), open_embedder(*options))


def open_detector(artefact: Artefact, threads: int, _cache_directory: Path | None, precision: str) -> "GraphDetector":
    """Load the detector's networks."""
    # Imported here because an embedder alone needs neither OpenCV nor Pillow.
    from model.engines.graph_detector import GraphDetector, build_detector  # noqa: PLC0415

    require_fp32(precision, "onnxruntime")

    def load(path: Path, _crop_side: int = 0) -> Net:
        return load_graph(path, threads)

    return GraphDetector("onnxruntime", "fp32", artefact, build_detector(artefact, load, load, load))


def open_embedder(artefact: Artefact, threads: int, _cache_directory: Path | None, precision: str) -> GraphEmbedder:
    """Load the embedder."""
    require_fp32(precision, "onnxruntime")
    return GraphEmbedder("onnxruntime", "fp32", artefact, load_graph(artefact.path(EMBEDDER), threads))


def load_graph(path: Path, threads: int = 1) -> Net:
    """Return the graph as a callable on the CPU: float32 input in any shape that the graph allows, float32 outputs.

    Several threads may call it. onnxruntime's own errors pass through: the file belongs to a verified artefact.
    """
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
