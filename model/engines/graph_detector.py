"""The detecting half of an engine over ONNX graphs that any runtime loads. Importing it loads OpenCV and Pillow."""

from collections.abc import Callable, Iterator
from pathlib import Path

from model.artefact import Artefact
from model.cropping import cropper
from model.detection import Detector, Net
from model.detection.grid import READINGS, GridDetector
from model.detection.mtcnn import Mtcnn
from model.detection.proposals import ProposalNet


class GraphDetector:
    """The `DetectionEngine` of an artefact; `precision` is what the embedder has."""

    def __init__(self, name: str, precision: str, artefact: Artefact, detector: Detector) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self.center_weight = artefact.center_weight
        self.detector = detector
        self.cropper = cropper(artefact.crop)

    def prepare(self) -> Iterator[None]:
        """Do nothing: these networks are ready once they are loaded."""
        yield from ()


def build_detector(
    artefact: Artefact,
    grid: Callable[[Path], Net],
    proposals: Callable[[Path], Net | ProposalNet],
    crops: Callable[[Path, int], Net],
) -> Detector:
    """Return the pack's detector.

    `grid` loads the network of a `GridDetector`, `proposals` MTCNN's first network, and `crops` its second and third,
    given the side of their crops in pixels.
    """
    options = artefact.detector.options
    if artefact.detector.kind == "mtcnn":
        return Mtcnn(
            proposals(artefact.path("pnet.onnx")),
            crops(artefact.path("rnet.onnx"), 24),
            crops(artefact.path("onet.onnx"), 48),
            options["min_face_size"],
            tuple(options["thresholds"]),
            options["factor"],
        )
    reading = READINGS[artefact.detector.kind]()
    return GridDetector(grid(artefact.path("detector.onnx")), reading, **options)
