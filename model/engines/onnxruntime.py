"""The artefact on ONNX Runtime: small to install and quick to start, for machines without OpenVINO."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection.proposals import Net
from model.engines.graphs import GraphEngine
from model.engines.precision import require_fp32


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
