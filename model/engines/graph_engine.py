"""The engine over ONNX graphs that any runtime loads, and the detector of a pack."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Detector, Net
from model.detection.grid import READINGS, GridDetector
from model.detection.mtcnn import Mtcnn
from model.detection.proposals import ProposalNet
from model.embedding import Embeddings, cropper, normalised, preprocess
from model.engines import detect_one
from model.faces import DetectedFace


class GraphEngine:
    """The `Engine` whose networks are ONNX graphs, loaded by any runtime."""

    def __init__(self, name: str, precision: str, artefact: Artefact, embedder: Net, detector: Detector) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self.center_weight = artefact.center_weight
        self.detector = detector
        self.cropper = cropper(artefact.crop)
        self._spec = artefact.embedder
        self._embedder = embedder

    def prepare(self) -> Iterator[None]:
        """Do nothing: these networks are ready once they are loaded."""
        yield from ()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        return detect_one(self.detector, image)

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3)."""
        (outputs,) = self._embedder(preprocess(crops, self._spec))
        return normalised(outputs, self._spec)


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
