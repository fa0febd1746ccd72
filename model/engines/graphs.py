"""What OpenVINO and ONNX Runtime share: the artefact's graphs as callables, our detector and crops around them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Detector, Net
from model.embedding import crop_face, preprocess
from model.faces import DetectedFace


class GraphEngine:
    """The `Engine` whose networks are ONNX graphs; `load` turns a graph's file and a precision into a callable."""

    def __init__(
        self, name: str, artefact: Artefact, load: Callable[[Path, str], Net], precision: str = "fp32"
    ) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self._image_size = artefact.image_size
        self._margin = artefact.margin
        self._embedder = load(artefact.path("embedder.onnx"), precision)
        self._detector = Detector(
            load(artefact.path("pnet.onnx"), "fp32"),
            load(artefact.path("rnet.onnx"), "fp32"),
            load(artefact.path("onet.onnx"), "fp32"),
            artefact.min_face_size,
            artefact.thresholds,
            artefact.factor,
        )

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        return self._detector.detect(image)

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return what the embedder sees of a face, uint8 (S, S, 3)."""
        return crop_face(image, face.box, self._image_size, self._margin)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings, float32 (N, 512); the graph itself normalises them."""
        (embeddings,) = self._embedder(preprocess(crops))
        return embeddings
