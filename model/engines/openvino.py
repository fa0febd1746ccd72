"""The artefact on OpenVINO, the fastest embedder on a CPU; grid detectors run on ONNX Runtime beside it."""

import ctypes
import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from model.artefact import EMBEDDER, Artefact
from model.detection import Net
from model.detection.mtcnn import BATCHES
from model.engines import choose_precision, cpu_flags, onnxruntime
from model.engines.graph_detector import GraphDetector, build_detector
from model.engines.graph_engine import GraphEmbedder, GraphEngine
from model.engines.openvino_shapes import BatchedCrops, PackedProposals

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_USUAL_CROPS = (1, 2, 4, 8)  # the batch sizes for which the embedder is warmed up
_CACHED_KERNELS = "400"  # enough for pictures of a few sizes at a time; some 120 MB
_LOCK_SECONDS = 5.0
"""How long a process waits to compile. A turn takes a second at most, and an engine's first batch has a deadline."""


def open_engine(artefact: Artefact, threads: int, cache_directory: Path | None, precision: str) -> GraphEngine:
    """Load the artefact, with the compiled networks that are in the cache directory."""
    options = (artefact, threads, cache_directory, precision)
    return GraphEngine(open_detector(*options), open_embedder(*options))


def open_detector(artefact: Artefact, threads: int, cache_directory: Path | None, precision: str) -> "OpenVinoDetector":
    """Load the detector's networks."""
    core = _core(cache_directory)
    return OpenVinoDetector(artefact, core, threads, _chosen_precision(core, precision))


def open_embedder(artefact: Artefact, threads: int, cache_directory: Path | None, precision: str) -> "OpenVinoEmbedder":
    """Load the embedder and run it once."""
    core = _core(cache_directory)
    embedder = OpenVinoEmbedder(artefact, core, threads, _chosen_precision(core, precision))
    embedder.embed_blank(1)  # the first inference packs the weights
    _release(core)
    return embedder


class OpenVinoDetector(GraphDetector):
    """The `DetectionEngine` that compiles a network for a shape at its first use, or in `prepare`."""

    def __init__(self, artefact: Artefact, core: openvino.Core, threads: int, precision: str) -> None:
        exact = _config(threads, "fp32")
        self._core = core
        self._shaped: list[PackedProposals | BatchedCrops] = []

        def shaped(net: Any) -> Any:
            self._shaped.append(net)
            return net

        detector = build_detector(
            artefact,
            # ONNX Runtime is faster for these at every size (ADR 15), and takes any shape.
            grid=lambda path: onnxruntime.load_graph(path, threads),
            proposals=lambda path: shaped(PackedProposals(path, core, exact)),
            crops=lambda path, side: shaped(BatchedCrops(path, core, exact, BATCHES[side])),
        )
        super().__init__("openvino", precision, artefact, detector)

    def prepare(self) -> Iterator[None]:
        """Compile the networks for every usual shape."""
        for net in self._shaped:
            yield from net.prepare()
        _release(self._core)


class OpenVinoEmbedder(GraphEmbedder):
    """The `EmbeddingEngine` that is slower with the first batch of each size, or warmed up in `prepare`."""

    def __init__(self, artefact: Artefact, core: openvino.Core, threads: int, precision: str) -> None:
        super().__init__("openvino", precision, artefact, load_graph(artefact.path(EMBEDDER), core, threads, precision))
        self._core = core
        self._crop_side = artefact.crop.image_size

    def prepare(self) -> Iterator[None]:
        """Warm up for every usual batch."""
        for count in _USUAL_CROPS:
            self.embed_blank(count)
            yield
        _release(self._core)

    def embed_blank(self, count: int) -> None:
        """Embed so many black crops."""
        self.embed(np.zeros((count, self._crop_side, self._crop_side, 3), dtype=np.uint8))


def load_graph(path: Path, core: openvino.Core, threads: int = 1, precision: str = "fp32") -> Net:
    """Return the graph as a callable on the CPU, float32 in and out, computing in exactly this precision.

    It takes inputs of any shape: each new one costs some 20 ms once, and no compilation.
    """
    compiled = core.compile_model(path, "CPU", _config(threads, precision))
    request = compiled.create_infer_request()

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        # The input is shared and the outputs are copied, because the next call overwrites the request's own.
        return tuple(request.infer([image], share_inputs=True).to_tuple())

    return run


def _config(threads: int, precision: str) -> dict[str, str | int | bool]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # One engine process runs per core: pinned, all of them would run on the first core.
        "ENABLE_CPU_PINNING": False,
        # The default of 5 000 compiled kernels lets a process grow past 1 GB with pictures of many shapes.
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_KERNELS,
    }


class CachingCore(openvino.Core):  # type: ignore[misc]  # it has no stubs
    """A core with a cache directory; of the processes that share it, one at a time compiles or reads."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._lock_seconds = _LOCK_SECONDS
        self.set_property({"CACHE_DIR": str(directory)})

    def compile_model(
        self, model: Path | openvino.Model, device: str, config: Mapping[str, Any]
    ) -> openvino.CompiledModel:
        """Compile as `Core` does; then read a newly compiled network back, which takes half the memory."""
        with self._locked() as ours:
            if not ours:
                self._lock_seconds = 0.0  # the following networks do not wait either
                return super().compile_model(model, device, {**config, "CACHE_DIR": ""})
            compiled = super().compile_model(model, device, config)
            # What could not be saved cannot be read back.
            if not compiled.get_property("LOADED_FROM_CACHE") and os.access(self.directory, os.W_OK):
                del compiled
                compiled = super().compile_model(model, device, config)
            return compiled

    def release(self) -> None:
        """Give back the pages of the mapped cache files; they are read from the file when they are needed again.

        Only read-only mappings are touched, so nothing can be lost.
        """
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        prefix = f"{self.directory.resolve()}/"
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, *_, path = line.split(maxsplit=5)
            if permissions.startswith("r--") and path.startswith(prefix):
                start, end = (int(address, 16) for address in addresses.split("-"))
                madvise(start, end - start, mmap.MADV_DONTNEED)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the cache's lock, if it is free in time; yields whether it is held."""
        # The lock is on the directory itself, because a file in it may not be writable.
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            yield _flock(directory, time.monotonic() + self._lock_seconds)
        finally:
            os.close(directory)  # this also releases the lock


def _flock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _chosen_precision(core: openvino.Core, wanted: str) -> str:
    return choose_precision(wanted, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), cpu_flags())


def _release(core: openvino.Core) -> None:
    if isinstance(core, CachingCore):
        core.release()


@cache
def _core(cache_directory: Path | None) -> openvino.Core:
    """Return a core that lives as long as the process: the last one to go unmaps the stack of signal handlers."""
    return openvino.Core() if cache_directory is None else CachingCore(cache_directory)
