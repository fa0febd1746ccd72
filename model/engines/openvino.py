"""The artefact on OpenVINO, the fastest embedder on a CPU; one-look detectors run on ONNX Runtime beside it."""

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

from model.artefact import Artefact
from model.detection.mtcnn import BATCHES
from model.detection.proposals import Net
from model.engines import choose, cpu_flags, onnxruntime
from model.engines.onnxruntime import GraphEngine
from model.engines.openvino_shapes import BatchedCrops, PackedProposals

_LONGEST_WAIT_SECONDS = 5.0
"""A turn takes a second at most; the first batch of an engine, which may have to wait for one, has a time limit."""


class CachingCore(openvino.Core):  # type: ignore[misc]  # it has no stubs
    """A core with a cache directory; of the processes that use it one at a time compiles, or reads what is there."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._patience_seconds = _LONGEST_WAIT_SECONDS
        self.set_property({"CACHE_DIR": str(directory)})

    def compile_model(
        self, model: Path | openvino.Model, device: str, config: Mapping[str, Any]
    ) -> openvino.CompiledModel:
        """Compile as `Core` does; a network that was compiled now is then read back, which takes half the memory."""
        with self._turn() as ours:
            if not ours:
                self._patience_seconds = 0.0  # for the networks that follow
                return super().compile_model(model, device, {**config, "CACHE_DIR": ""})
            compiled = super().compile_model(model, device, config)
            # What could not be saved cannot be read back, either.
            if not compiled.get_property("LOADED_FROM_CACHE") and os.access(self.directory, os.W_OK):
                del compiled
                compiled = super().compile_model(model, device, config)
            return compiled

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Wait for this process's turn; whether it came."""
        # The lock is on the directory itself: one that came ready-made may not be writable.
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            yield _locked(directory, time.monotonic() + self._patience_seconds)
        finally:
            os.close(directory)  # and with it the lock

    def release(self) -> None:
        """Give back the pages of the files that are mapped; whatever is read again comes from the file.

        Only mappings that cannot be written are touched: nothing but what is in the file can be lost.
        """
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        prefix = f"{self.directory.resolve()}/"
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, *_, path = line.split(maxsplit=5)
            if permissions.startswith("r--") and path.startswith(prefix):
                start, end = (int(address, 16) for address in addresses.split("-"))
                madvise(start, end - start, mmap.MADV_DONTNEED)


def _locked(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


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
