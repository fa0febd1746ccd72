"""Engines: what runs the networks, all behind one protocol and all with the same results.

Importing this package imports no engine.
"""

import sys
from collections.abc import Iterator, Sequence
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
