"""Engines: what runs the networks, all behind one protocol and all with the same results.

Importing this package imports no engine.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Detector
from model.embedding import Cropper, Embeddings
from model.faces import DetectedFace

PREFERENCE = ("openvino", "onnxruntime")  # of `auto`: the fastest first
_EXTRAS = {"openvino": "worker", "onnxruntime": "worker", "torch": "export"}


class EngineUnavailable(Exception):
    """The engine is not installed, is none of ours, or cannot compute so on this CPU; the text says what to do."""


class Engine(Protocol):
    """A loaded model; one thread at a time may use it.

    `name` is `openvino`, `onnxruntime` or `torch`, `precision` what the embedder's numbers are (`fp32` or `bf16`),
    `model_id` whose embeddings these are, whatever the precision, `center_weight` the pack's rule for the primary face.
    Pictures are RGB, uint8 (H, W, 3).
    """

    name: str
    precision: str
    model_id: str
    center_weight: float

    @property
    def detector(self) -> Detector:
        """What finds faces."""

    @property
    def cropper(self) -> Cropper:
        """What cuts them out for the embedder."""

    def prepare(self) -> Iterator[None]:
        """Make, one step after another of some 100 ms at most, what would else be made when it is first asked for."""

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first; an empty list for none or for a picture too small to hold one."""

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """Return what `detect` returns for each picture, for less than one by one where they are small."""

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return what `embed` wants to see of a face: uint8 (S, S, 3), S being the artefact's image size."""

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3), N >= 1."""


def open_engine(
    artefact: Artefact,
    name: str = "auto",
    threads: int = 1,
    cache_directory: Path | None = None,
    precision: str = "auto",
) -> Engine:
    """Load the artefact into the engine of that name; `auto` takes OpenVINO where installed, else ONNX Runtime.

    `threads` are the cores it may use at a time. `cache_directory` keeps OpenVINO's compiled networks, for a
    quicker next start; it may be shared by processes. `precision` is `fp32`, `bf16` or `auto`, which takes bf16 where
    engine and CPU have it. Raises `EngineUnavailable`.
    """
    if name not in {"auto", *_EXTRAS}:
        raise EngineUnavailable(f"there is no engine {name!r}: choose auto, {', '.join(_EXTRAS)}")
    # OpenVINO's package imports its model converter where it can: 0.1 s and 10 MB for what nothing here uses.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # as `import` itself marks an absent one
    candidates = PREFERENCE if name == "auto" else (name,)
    for candidate in candidates:
        try:
            module = import_module(f"model.engines.{candidate}")
        except ImportError as exc:
            missing = exc
            continue
        engine: Engine = module.open_engine(artefact, threads, cache_directory, precision)
        return engine
    extra = _EXTRAS[candidates[-1]]
    raise EngineUnavailable(
        f"the engine {' or '.join(candidates)} is not installed ({missing}): pip install '.[{extra}]'"
    ) from missing


_NATIVE = frozenset({"amx_bf16", "avx512_bf16"})
"""The instructions for bfloat16, as Linux names them. Without them OpenVINO emulates it, three times slower."""
_CPU = Path("/proc/cpuinfo")


def choose(wanted: str, capabilities: Collection[str], flags: Collection[str]) -> str:
    """Return `fp32` or `bf16` for what is wanted: one of these or `auto`.

    `capabilities` are the runtime's own report on this CPU, with `BF16` where it offers bfloat16, `flags` the CPU's.
    Every engine of a machine chooses alike. Raises `EngineUnavailable`.
    """
    if wanted not in {"auto", "fp32", "bf16"}:
        raise EngineUnavailable(f"there is no precision {wanted!r}: choose auto, fp32 or bf16")
    if wanted == "fp32":
        return "fp32"
    if "BF16" not in capabilities:
        if wanted == "auto":
            return "fp32"
        raise EngineUnavailable(
            "this CPU does not compute in bf16, which takes AMX or AVX512-BF16: choose the precision auto or fp32"
        )
    return "bf16" if wanted == "bf16" or not _NATIVE.isdisjoint(flags) else "fp32"


def cpu_flags(path: Path = _CPU) -> frozenset[str]:
    """Return the instructions that this CPU has, by Linux's names; none where Linux does not say."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def require_fp32(wanted: str, engine: str) -> None:
    """Raise `EngineUnavailable` where another precision is demanded of an engine that has float32 alone."""
    if wanted not in {"auto", "fp32"}:
        raise EngineUnavailable(
            f"the engine {engine} computes in fp32 only, not in {wanted}: choose the precision auto or fp32, "
            "or the engine openvino"
        )
