"""The artefact on OpenVINO: the fastest on a server's CPU."""

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from model.artefact import Artefact
from model.engines.graphs import GraphEngine
from model.engines.openvino_shapes import PackedProposals, load_batched
from model.proposals import Net

_CACHED_KERNELS = "400"
"""Enough for pictures of a few sizes at a time; some 120 MB."""


def open_engine(artefact: Artefact, threads: int, cache_directory: Path | None) -> GraphEngine:
    """Load the artefact, reading compiled networks from the cache directory where there are some."""
    core = openvino.Core()
    if cache_directory is not None:
        core.set_property({"CACHE_DIR": str(cache_directory)})
    config = _config(threads)
    return GraphEngine(
        "openvino",
        artefact,
        load=lambda path: load_graph(path, core, threads),
        load_proposals=lambda path: PackedProposals(path, core, config),
        load_crops=lambda path: load_batched(path, core, config),
    )


def load_graph(path: Path, core: openvino.Core, threads: int = 1) -> Net:
    """Return the graph as a callable on the CPU, computing in float32 whatever the CPU offers."""
    compiled = core.compile_model(path, "CPU", _config(threads))
    request = compiled.create_infer_request()

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        # The input is lent, the results are copied out: the next call overwrites the request's own.
        return tuple(request.infer([image], share_inputs=True).to_tuple())

    return run


def _config(threads: int) -> dict[str, str | int | bool]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Engines run one process a core: pinned, they would all sit on the first.
        "ENABLE_CPU_PINNING": False,
        # The default of 5 000 compiled kernels lets a process grow past 1 GB as pictures of new shapes come in.
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_KERNELS,
    }
