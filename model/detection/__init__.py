"""Detectors: where the faces of a picture are. One interface for all packs; each module is one way to do it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.faces import DetectedFace


class Detector(Protocol):
    """Finds faces; used by one thread at a time."""

    def least_side(self, width: int, height: int, min_face_pixels: int | None) -> int | None:
        """Return how long the longer side of a picture must at least be for `detect_batch`; None is its full size.

        `width` and `height` are the picture's own, `min_face_pixels` the smallest face to find in it.
        """

    def detect_batch(
        self, images: Sequence[NDArray[np.uint8]], sides: Sequence[int | None]
    ) -> list[list[DetectedFace]]:
        """Return the faces of each RGB picture (H, W, 3), in its pixels, the largest first.

        `sides` are what `least_side` returned for each picture; the picture itself may be larger.
        """
