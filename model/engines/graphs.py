"""What OpenVINO and ONNX Runtime share: the artefact's graphs as callables, our detector and crops around them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.artefact import Artefact
from model.detection import Detector
from model.embedding import crop_face, preprocess
from model.faces import DetectedFace
from model.proposals import Net, ProposalNet


class GraphEngine:
    """The `Engine` whose networks are ONNX graphs; `load` turns a graph's file and a precision into a callable.

    `load_proposals` and `load_crops` do so for P-Net, and for R- and O-Net with the side of their crops, where these
    are run another way than in float32 by `load`.
    """

    def __init__(
        self,
        name: str,
        artefact: Artefact,
        load: Callable[[Path, str], Net],
        precision: str = "fp32",
        load_proposals: Callable[[Path], Net | ProposalNet] | None = None,
        load_crops: Callable[[Path, int], Net] | None = None,
    ) -> None:
        self.name = name
        self.precision = precision
        self.model_id = artefact.model_id
        self._image_size = artefact.image_size
        self._margin = artefact.margin

        def load_exact(path: Path) -> Net:
            return load(path, "fp32")

        load_proposals = load_proposals or load_exact
        load_crops = load_crops or (lambda path, _: load_exact(path))
        self._embedder = load(artefact.path("embedder.onnx"), precision)
        self._detector = Detector(
            load_proposals(artefact.path("pnet.onnx")),
            load_crops(artefact.path("rnet.onnx"), 24),
            load_crops(artefact.path("onet.onnx"), 48),
            artefact.min_face_size,
            artefact.thresholds,
            artefact.factor,
        )

    def prepare(self) -> Iterator[None]:
        """Nothing is made when it is first asked for."""
        yield from ()

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        return self._detector.detect(image)

    def detect_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[list[DetectedFace]]:
        """Return the faces of each picture, the largest first."""
        return self._detector.detect_batch(images)

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return what the embedder sees of a face, uint8 (S, S, 3)."""
        return crop_face(image, face.box, self._image_size, self._margin)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings, float32 (N, 512); the graph itself normalises them."""
        (embeddings,) = self._embedder(preprocess(crops))
        return embeddings
