"""What the supervisor and its children say to each other: plain values, pickled over a pipe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from model.header import InvalidImage

if TYPE_CHECKING:
    from model.faces import ImageAnalysis

REAL_ANALYSER = "facerec.engine.analyser:open_analyser"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a child loads, once, at its start.

    `factory` is `module:function`; the function takes this very value and returns an `Analyser`.
    """

    artefact_dir: Path
    engine: str
    max_megapixels: float
    cache_dir: Path
    precision: str = "auto"
    max_faces: int = 100
    min_face_pixels: int | None = None
    factory: str = REAL_ANALYSER


@dataclass(frozen=True, slots=True)
class Ready:
    """The child's first word: the engine is loaded and warm."""

    name: str
    precision: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The child's first and last word where it cannot load; `reason` is one sentence."""

    reason: str
    traceback: str


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The whole batch raised in the child, which lives on; `reason` ends the sentence "the engine …"."""

    reason: str
    traceback: str


class Analyser(Protocol):
    """What a factory returns: a loaded and warm engine, used by one thread."""

    @property
    def name(self) -> str:
        """`openvino`, `onnxruntime` or `torch`."""

    @property
    def precision(self) -> str:
        """What its numbers are: `fp32`, `bf16`."""

    @property
    def model_id(self) -> str:
        """Which model its embeddings belong to."""

    def prepare(self) -> Iterator[None]:
        """Steps that make later batches quicker, to be taken one by one while there is nothing else to do."""

    def analyse_batch(self, images: Sequence[bytes]) -> "list[ImageAnalysis | InvalidImage]":
        """One answer per image, in their order; a picture that cannot be read is an answer, not an exception."""
