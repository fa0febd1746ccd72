"""Engines run the networks of an artefact: one protocol, the same results. Importing this package imports no engine."""

import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Detector
from model.embedding import Embedder
from model.faces import DetectedFace

if TYPE_CHECKING:
    from model.cropping import Cropper  # which loads the libraries for pictures

PREFERENCE = ("openvino", "onnxruntime")  # the order in which `auto` tries the engines: the fastest first
_EXTRAS = {"openvino": "worker", "onnxruntime": "worker", "torch": "export"}
_NATIVE_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Linux's names of the bfloat16 instructions. Without them OpenVINO emulates bfloat16, three times slower."""
_CPU = Path("/proc/cpuinfo")


class EngineUnavailable(Exception):
    """The engine is unknown, not installed, or lacks the precision on this CPU; the text says what to do."""


class LoadedModel(Protocol):
    """A model whose networks are loaded, all or those of one half, for one thread at a time.

    `name` is `openvino`, `onnxruntime` or `torch`. `precision` is the embedder's, `fp32` or `bf16`; it is no part of
    `model_id`.
    """

    name: str
    precision: str
    model_id: str

    def prepare(self) -> Iterator[None]:
        """Compile and warm up ahead of the first picture, in steps of at most some 100 ms."""


class DetectionEngine(LoadedModel, Protocol):
    """Finds faces and cuts them out; the embedder is not needed.

    `center_weight` is the pack's rule for the primary face. Pictures are RGB, uint8 (H, W, 3).
    """

    center_weight: float

    @property
    def detector(self) -> Detector:
        """The pack's detector."""

    @property
    def cropper(self) -> "Cropper":
        """Cuts faces out for the embedder."""


class EmbeddingEngine(LoadedModel, Embedder, Protocol):
    """Embeds crops; the detector is not needed."""


class Engine(DetectionEngine, EmbeddingEngine, Protocol):
    """Both halves of a model."""

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first; none for a picture too small to hold one."""


def open_engine(
    artefact: Artefact,
    name: str = "auto",
    threads: int = 1,
    cache_directory: Path | None = None,
    precision: str = "auto",
) -> Engine:
    """Load the artefact into the named engine; `auto` is OpenVINO, or ONNX Runtime where OpenVINO is not installed.

    `threads` is how many cores it uses at a time. `cache_directory` keeps OpenVINO's compiled networks for a faster
    start; processes may share it. `precision` is `fp32`, `bf16`, or `auto`: bf16 where engine and CPU have it. Raises
    `EngineUnavailable`.
    """
    engine: Engine = _backend(name).open_engine(artefact, threads, cache_directory, precision)
    return engine


def open_detector(
    artefact: Artefact,
    name: str = "auto",
    threads: int = 1,
    cache_directory: Path | None = None,
    precision: str = "auto",
) -> DetectionEngine:
    """As `open_engine`, without reading the embedder; `torch` loads everything."""
    engine: DetectionEngine = _backend(name).open_detector(artefact, threads, cache_directory, precision)
    return engine


def open_embedder(
    artefact: Artefact,
    name: str = "auto",
    threads: int = 1,
    cache_directory: Path | None = None,
    precision: str = "auto",
) -> EmbeddingEngine:
    """As `open_engine`, without the detector and the libraries for pictures; `torch` loads everything."""
    engine: EmbeddingEngine = _backend(name).open_embedder(artefact, threads, cache_directory, precision)
    return engine


def _backend(name: str) -> Any:
    """Return the module of an engine, or of the first that `auto` finds."""
    if name not in {"auto", *_EXTRAS}:
        raise EngineUnavailable(f"there is no engine {name!r}: choose auto, {', '.join(_EXTRAS)}")
    # OpenVINO's package imports its model converter if it can: 0.1 s and 10 MB that nothing here uses.
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]  # `import` marks an absent module so
    candidates = PREFERENCE if name == "auto" else (name,)
    for candidate in candidates:
        try:
            return import_module(f"model.engines.{candidate}")
        except ImportError as exc:
            missing = exc
    extra = _EXTRAS[candidates[-1]]
    raise EngineUnavailable(
        f"the engine {' or '.join(candidates)} is not installed ({missing}): pip install '.[{extra}]'"
    ) from missing


def detect_one(detector: Detector, image: NDArray[np.uint8]) -> list[DetectedFace]:
    """Return the faces of one RGB picture, uint8 (H, W, 3), at the size that the detector asks for."""
    (faces,) = detector.detect_batch([image], [detector.min_side(image.shape[1], image.shape[0], None)])
    return faces


def choose_precision(wanted: str, capabilities: Collection[str], flags: Collection[str]) -> str:
    """Return `fp32` or `bf16` for `wanted`, which may also be `auto`; raises `EngineUnavailable`.

    `capabilities` is the runtime's report on this CPU, which contains `BF16` if it offers bfloat16. `flags` is the
    CPU's own list (`cpu_flags`).
    """
    if wanted not in {"auto", "fp32", "bf16"}:
        raise EngineUnavailable(f"there is no precision {wanted!r}: choose auto, fp32 or bf16")
    if wanted == "bf16" and "BF16" not in capabilities:
        raise EngineUnavailable(
            "this CPU does not compute in bf16, which takes AMX or AVX512-BF16: choose the precision auto or fp32"
        )
    native = "BF16" in capabilities and not _NATIVE_BF16.isdisjoint(flags)
    return "bf16" if wanted == "bf16" or (wanted == "auto" and native) else "fp32"


def cpu_flags(path: Path = _CPU) -> frozenset[str]:
    """Return the names of this CPU's instruction sets; empty if the file cannot be read or lists none."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def require_fp32(wanted: str, engine: str) -> None:
    """Raise `EngineUnavailable` if another precision is wanted of an engine that has only fp32."""
    if wanted not in {"auto", "fp32"}:
        raise EngineUnavailable(
            f"the engine {engine} computes in fp32 only, not in {wanted}: choose the precision auto or fp32, "
            "or the engine openvino"
        )
