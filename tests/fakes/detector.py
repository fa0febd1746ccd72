"""A detector without an engine: a picture's text says what it finds."""

import threading

import numpy as np

from facerec.errors import ConfigurationError, EngineFailure, Transient
from facerec.faces_message import packed_faces
from model.faces import Box, MeasuredFace, PackedFaces, PictureFaces
from model.header import InvalidImage

SIDE = 112
INVALID = b"invalid"
CULPRIT = b"culprit"
"""Makes the engine fail."""
DEADLY = b"deadly"
"""Ends the engine for good."""
NOISY = b"noisy"
"""Has one face, whose crop JPEG does not make small."""
HELD = b"held"
"""Waits for `release`."""


class FakeDetector:
    """Finds as many faces as a picture says, side by side; started and closed as `SupervisedDetector`."""

    name = "fake"
    precision = "fp32"
    model_id = "fake-model"

    def __init__(self) -> None:
        self.release = threading.Event()
        self.seen: list[bytes] = []
        self.started = False
        self.closed = False
        self.refuses_to_start: ConfigurationError | None = None

    def start(self) -> None:
        """Load, unless the test forbids it."""
        if self.refuses_to_start is not None:
            raise self.refuses_to_start
        self.started = True

    def close(self, *, finish: bool = True) -> None:
        """End what waits."""
        self.closed = True
        self.release.set()

    def detect(self, image: bytes) -> PackedFaces:
        """Find faces, or fail as the picture says."""
        self.seen.append(image)
        if image == INVALID:
            raise InvalidImage("to the fake this is no picture")
        if image == CULPRIT:
            raise EngineFailure("the engine crashed on this picture")
        if image == DEADLY:
            raise ConfigurationError("the engine does not start again")
        if image == HELD:
            self.release.wait()
            if self.closed:
                raise Transient("the engine is shutting down")
            return found(1)
        if image == NOISY:
            return found(1, noise=255)
        return found(int(image))


def found(faces: int, noise: int = 0) -> PackedFaces:
    """So many faces, with black crops if there is no noise."""
    measured = tuple(
        MeasuredFace(Box(100.0 * index, 0, 100.0 * index + 80, 80), 0.9, ((100.0 * index, 4.0),) * 5, ())
        for index in range(faces)
    )
    crops = np.random.default_rng(0).integers(0, noise, (faces, SIDE, SIDE, 3), dtype=np.uint8, endpoint=True)
    return packed_faces(PictureFaces(640, 480, measured, crops, {"decode": 1.0, "detect": 2.0}))
