"""The embedding half of an engine over ONNX graphs that any runtime loads, and an engine of two halves."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Net
from model.embedding import Embeddings, normalised, preprocess
from model.engines import DetectionEngine, EmbeddingEngine, detect_one
from model.faces import DetectedFace


class GraphEmbedder:
    """The `EmbeddingEngine` of an artefact."""

    def __init__(self, name: str, precision: str, artefact: Artefact, embedder: Net) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self._spec = artefact.embedder
        self._embedder = embedder

    def prepare(self) -> Iterator[None]:
        """Do nothing: this network is ready once it is loaded."""
        yield from ()

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3)."""
        (outputs,) = self._embedder(preprocess(crops, self._spec))
        return normalised(outputs, self._spec)


class GraphEngine:
    """The `Engine` of two halves of one model."""

    def __init__(self, detection: DetectionEngine, embedding: EmbeddingEngine) -> None:
        self.name = embedding.name
        self.precision = embedding.precision
        self.model_id = embedding.model_id
        self.center_weight = detection.center_weight
        self.detector = detection.detector
        self.cropper = detection.cropper
        self._detection = detection
        self._embedding = embedding

    def prepare(self) -> Iterator[None]:
        """Prepare the detector, then the embedder."""
        yield from self._detection.prepare()
        yield from self._embedding.prepare()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        return detect_one(self.detector, image)

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings of crops (N, S, S, 3)."""
        return self._embedding.embed(crops)
