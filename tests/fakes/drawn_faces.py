"""Photos whose faces are written into them, and an engine that reads them: for tests of the APIs without a network.

`photo("Ada Lovelace", "Grace Hopper")` is a real JPEG that any server accepts. Behind its pixels stands who is on it.
The engine finds these faces, in this order, 10 pixels apart in the upright picture; a photo of other origin has no
face. Two photos of one person have a similarity near 0.9 if their `take` differs, and 1 otherwise; two people are
strangers (below 0.25).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.faces import Box, EmbeddedFace, ImageAnalysis, PictureToEnrol, Quality
from model.header import InvalidImage, read_header
from model.imaging import decode
from model.metadata import without_metadata
from model.thumbnails import thumbnail
from tests.fakes.templates import MODEL

DIMENSION = 512
_MARK = b"\n#faces:"
_GAP = 10
_FIRST_TURNED = 5
"""From this orientation of EXIF on, an upright picture's sides are exchanged."""
_LANDMARKS = ((0.33, 0.41), (0.67, 0.41), (0.5, 0.6), (0.39, 0.77), (0.61, 0.77))
"""Eyes, nose and corners of the mouth, in shares of the box."""


@dataclass(frozen=True)
class DrawnFace:
    """A face of a photo."""

    name: str
    side: int = 100
    probability: float = 0.99
    quality: float = 0.95
    take: int = 0
    """Another one changes the embedding a little."""


def photo(*faces: str | DrawnFace, take: int = 0, form: str = "JPEG", size: tuple[int, int] = (640, 480)) -> bytes:
    """A photo of these people; `take` is that of faces given by their names."""
    buffer = BytesIO()
    Image.new("RGB", size, (90, 120, 30)).save(buffer, form)
    return with_faces(
        buffer.getvalue(), [face if isinstance(face, DrawnFace) else DrawnFace(face, take=take) for face in faces]
    )


def with_faces(picture: bytes, faces: Sequence[DrawnFace]) -> bytes:
    """Write faces into a picture."""
    return picture + _MARK + json.dumps([asdict(face) for face in faces]).encode()


def boxes_of(faces: Sequence[DrawnFace]) -> list[Box]:
    """Return where the faces of a photo are."""
    boxes, x = [], float(_GAP)
    for face in faces:
        boxes.append(Box(x, _GAP, x + face.side, _GAP + face.side))
        x += face.side + _GAP
    return boxes


def is_drawn(image: bytes) -> bool:
    """Whether it is such a photo."""
    return _MARK in image


def embedding(name: str, take: int = 0) -> NDArray[np.float32]:
    """The embedding of a person's face."""
    vector = _direction(name) + (0.33 * _direction(f"{name} {take}") if take else 0)
    unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


class DrawnFacesEngine:
    """`FaceEngine` for these photos, with the model id of `tests.fakes.templates`."""

    name = "drawn"
    precision = "fp32"
    model_id = MODEL

    def __init__(self) -> None:
        self.calls = 0

    def analyse(self, image: bytes) -> ImageAnalysis:
        """Return the faces that are written into the photo; raises `InvalidImage` for what is no picture."""
        self.calls += 1
        header = read_header(image)
        width, height = header.width, header.height
        if without_metadata(image, header.format).orientation >= _FIRST_TURNED:
            width, height = height, width
        _, mark, written = image.rpartition(_MARK)
        drawn = [DrawnFace(**face) for face in json.loads(written)] if mark else []
        faces = []
        for face, box in zip(drawn, boxes_of(drawn), strict=True):
            if box.x_max > width or box.y_max > height:
                raise InvalidImage("the faces do not fit into the picture of this test")
            landmarks = tuple((box.x_min + face.side * x, box.y_min + face.side * y) for x, y in _LANDMARKS)
            quality = Quality(face.quality, ("blurred",) if face.quality < 0.85 else ())
            small = thumbnail(decode(image), box) if isinstance(image, PictureToEnrol) else None
            vector = embedding(face.name, face.take)
            faces.append(EmbeddedFace(box, face.probability, landmarks, vector, quality, small))
        return ImageAnalysis(width, height, tuple(faces), {"detect": 1.0, "embed": 1.0})


def _direction(text: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(DIMENSION)
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
