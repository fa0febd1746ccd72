"""The reference engine: facenet-pytorch as published, for the pack `classic`; for comparison, not for speed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from facenet_pytorch import MTCNN, InceptionResnetV1
from numpy.typing import NDArray
from PIL import Image

from model.artefact import EMBEDDER, Artefact
from model.cropping import cropper
from model.detection.mtcnn import pyramid_scales
from model.embedding import Embeddings, normalised, preprocess
from model.engines import EngineUnavailable, require_fp32
from model.faces import Box, DetectedFace
from model.packs.facenet import read_weights, restore_batch_norms


def open_engine(artefact: Artefact, threads: int, _cache_directory: Path | None, precision: str) -> "TorchEngine":
    """Load the artefact; the number of threads applies to torch in the whole process."""
    require_fp32(precision, "torch")
    if artefact.detector.kind != "mtcnn":
        raise EngineUnavailable(
            f"the engine torch runs only the pack classic, not {artefact.pack}: choose openvino or onnxruntime, or "
            "build the model with `--pack classic`"
        )
    torch.set_num_threads(threads)
    return TorchEngine(artefact)


open_detector = open_embedder = open_engine  # it is for comparison, where both halves are needed


class TorchEngine:
    """The `Engine` made of `MTCNN` and `InceptionResnetV1`, in eager float32; it is its own detector.

    MTCNN's weights are those of the installed package; the embedder's come from the artefact.
    """

    name = "torch"
    precision = "fp32"

    def __init__(self, artefact: Artefact) -> None:
        self.model_id = artefact.model_id
        self.center_weight = artefact.center_weight
        self.detector = self
        self.cropper = cropper(artefact.crop)
        self._spec = artefact.embedder
        options = artefact.detector.options
        self._min_face_size = options["min_face_size"]
        self._factor = options["factor"]
        self._mtcnn = MTCNN(
            image_size=artefact.crop.image_size,
            margin=artefact.crop.margin,
            min_face_size=options["min_face_size"],
            thresholds=list(options["thresholds"]),
            factor=options["factor"],
            keep_all=True,
        )
        self._embedder = load_embedder(artefact)

    def prepare(self) -> Iterator[None]:
        """Do nothing: the networks are ready once they are loaded."""
        yield from ()

    def min_side(self, width: int, height: int, min_face_pixels: int | None) -> None:
        """Return None: a picture is always searched in full size."""

    def detect_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        sides: Sequence[int | None],  # noqa: ARG002 - as `Detector`
    ) -> list[list[DetectedFace]]:
        """Return the faces of each picture, one after the other."""
        return [self.detect(image) for image in images]

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return the faces, the largest first."""
        if not pyramid_scales(image.shape[0], image.shape[1], self._min_face_size, self._factor):
            return []  # MTCNN raises for a picture that is too small for every scale
        boxes, probabilities, landmarks = self._mtcnn.detect(Image.fromarray(image), landmarks=True)
        if boxes is None:
            return []
        return [
            DetectedFace(
                Box(*(float(edge) for edge in box)),
                float(probability),
                tuple((float(x), float(y)) for x, y in points),
            )
            for box, probability, points in zip(boxes, probabilities, landmarks, strict=True)
        ]

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the embeddings (N, 512); the network itself normalises them."""
        with torch.inference_mode():
            outputs: NDArray[np.float32] = self._embedder(torch.from_numpy(preprocess(crops, self._spec))).numpy()
        return normalised(outputs, self._spec)


def load_embedder(artefact: Artefact) -> InceptionResnetV1:
    """Return facenet-pytorch's network with the artefact's weights, ready for inference."""
    weights = restore_batch_norms(read_weights(onnx.load(artefact.path(EMBEDDER))))
    network = InceptionResnetV1(classify=False).eval()
    # The artefact leaves out only the counters of batches seen in training.
    loaded = network.load_state_dict(
        {key: torch.from_numpy(value.copy()) for key, value in weights.items()}, strict=False
    )
    if missing := [key for key in loaded.missing_keys if not key.endswith("num_batches_tracked")]:
        raise ValueError(f"the artefact's embedder lacks {', '.join(missing)}")
    return network
