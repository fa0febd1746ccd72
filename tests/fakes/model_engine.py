"""An engine without networks: its faces follow from the picture's size and colours."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from model.embedding import Embeddings
from model.faces import Box, DetectedFace


class FakeEngine:
    """Finds a face per 10 pixels of width, the largest first, and embeds a crop as its grey value."""

    name = "fake"
    precision = "fp32"
    model_id = "fake-1"

    def __init__(self, center_weight: float = 2.0, min_side: int | None = None, enlarged: float = 1.0) -> None:
        self.center_weight = center_weight
        self.detector = self
        self.cropper = self
        self.batches: list[int] = []
        self.seen: list[int] = []
        self.cut_from: list[tuple[int, int]] = []
        self._min_side = min_side
        self._enlarged = enlarged

    def prepare(self) -> Iterator[None]:
        """No steps."""
        yield from ()

    def min_side(self, width: int, height: int, min_face_pixels: int | None) -> int | None:
        """Return the test's value."""
        return self._min_side

    def scale(self, face: DetectedFace) -> float:
        """Return the test's value."""
        return self._enlarged

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """Return boxes that shrink from right to left."""
        return [
            DetectedFace(Box(10.0 * n, 0.0, 10.0 * n + 5 + n, 8.0), 0.9, ((10.0 * n, 4.0),) * 5)
            for n in reversed(range(image.shape[1] // 10))
        ]

    def detect_batch(
        self, images: Sequence[NDArray[np.uint8]], sides: Sequence[int | None] = ()
    ) -> list[list[DetectedFace]]:
        """Detect in each."""
        self.seen.append(len(images))
        return [self.detect(image) for image in images]

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return a crop that remembers the picture and the face."""
        self.cut_from.append((image.shape[1], int(face.box.x_min)))
        return np.full((160, 160, 3), (int(image[0, 0, 0]) + int(face.box.x_min // 10)) % 256, dtype=np.uint8)

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Return the crop's value in the first component."""
        self.batches.append(len(crops))
        embeddings = np.zeros((len(crops), 512), dtype=np.float32)
        embeddings[:, 0] = crops[:, 0, 0, 0]
        return Embeddings(embeddings, None)
