"""The artefact on OpenVINO, the fastest embedder on a CPU; one-look detectors run on ONNX Runtime beside it."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection.mtcnn import BATCHES
from model.detection.proposals import Net
from model.engines import onnxruntime
from model.engines.graphs import GraphEngine
from model.engines.openvino_cache import CachingCore
from model.engines.openvino_shapes import BatchedCrops, PackedProposals
from model.engines.precision import choose, cpu_flags

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_USUAL_CROPS = (1, 2, 4, 8)  # at a time

_CACHED_KERNELS = "400"
"""Enough for pictures of a few sizes at a time; some 120 MB."""


class OpenVinoGraphs:
    """Graphs on OpenVINO, each in the shapes that its use takes; only the embedder computes in `precision`."""

    def __init__(self, core: openvino.Core, threads: int, precision: str) -> None:
        self._core = core
        self._threads = threads
        self._precision = precision
        self._exact = _config(threads, "fp32")
        self.shaped: list[PackedProposals | BatchedCrops] = []
        """The networks that compile as shapes are first asked for."""

    def embedder(self, path: Path) -> Net:
        """Return the graph with its number of crops open."""
        return load_graph(path, self._core, self._threads, self._precision)

    def looks(self, path: Path) -> Net:
        """Return the graph on ONNX Runtime, which was faster at every size (ADR 15) and takes any shape as it comes."""
        return onnxruntime.load_graph(path, onnxruntime.session_options(self._threads))

    def proposals(self, path: Path) -> PackedProposals:
        """Return P-Net over packed sheets."""
        net = PackedProposals(path, self._core, self._exact)
        self.shaped.append(net)
        return net

    def crops(self, path: Path, size: int) -> BatchedCrops:
        """Return the graph, compiled for each usual number of crops."""
        net = BatchedCrops(path, self._core, self._exact, BATCHES[size])
        self.shaped.append(net)
        return net


class OpenVinoEngine(GraphEngine):
    """The `Engine` that compiles as pictures ask for it, or beforehand."""

    def __init__(self, artefact: Artefact, core: openvino.Core, threads: int, precision: str) -> None:
        self._core = core
        self._image_size = artefact.image_size
        self._graphs = OpenVinoGraphs(core, threads, precision)
        super().__init__("openvino", precision, artefact, self._graphs)

    def prepare(self) -> Iterator[None]:
        """Compile every usual network of the detector, then let the embedder see every usual number of crops."""
        for net in self._graphs.shaped:
            yield from net.prepare()
        _release(self._core)
        for count in _USUAL_CROPS:
            self.embed(_blank(self._image_size, count))
            yield
        _release(self._core)


def open_engine(artefact: Artefact, threads: int, cache_directory: Path | None, precision: str) -> OpenVinoEngine:
    """Load the artefact, reading compiled networks from the cache directory where there are some."""
    core = _core(cache_directory)
    chosen = choose(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), cpu_flags())
    engine = OpenVinoEngine(artefact, core, threads, chosen)
    engine.embed(_blank(artefact.image_size, 1))  # the first inference packs the weights
    _release(core)
    return engine


def _blank(size: int, count: int) -> NDArray[np.uint8]:
    return np.zeros((count, size, size, 3), dtype=np.uint8)


def _release(core: openvino.Core) -> None:
    if isinstance(core, CachingCore):
        core.release()


@cache
def _core(cache_directory: Path | None) -> openvino.Core:
    """Return a core that lives as long as the process: with the last one goes the stack that signal handlers run on."""
    return openvino.Core() if cache_directory is None else CachingCore(cache_directory)


def load_graph(path: Path, core: openvino.Core, threads: int = 1, precision: str = "fp32") -> Net:
    """Return the graph as a callable on the CPU, float32 in and out, computing as `precision` says and not as it likes.

    The shapes stay open: each new one costs some 20 ms once, and none leads to another compilation.
    """
    compiled = core.compile_model(path, "CPU", _config(threads, precision))
    request = compiled.create_infer_request()

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        # The input is lent, the results are copied out: the next call overwrites the request's own.
        return tuple(request.infer([image], share_inputs=True).to_tuple())

    return run


def _config(threads: int, precision: str) -> dict[str, str | int | bool]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Engines run one process a core: pinned, they would all sit on the first.
        "ENABLE_CPU_PINNING": False,
        # The default of 5 000 compiled kernels lets a process grow past 1 GB as pictures of new shapes come in.
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_KERNELS,
    }
