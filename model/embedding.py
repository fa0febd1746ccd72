"""What the embedding network is shown of a face, and how its output becomes an embedding."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.alignment import aligned, scale_of, similarity
from model.faces import Box, DetectedFace
from model.packs import CropSpec, EmbedderSpec


class Embeddings(NamedTuple):
    """Embeddings and what is known of them."""

    vectors: NDArray[np.float32]
    """(N, D), L2-normalised."""
    norms: NDArray[np.float32] | None
    """(N,) lengths before they were normalised, in those of ordinary photos; None where the network does not tell.

    Small for faces that the network makes little of.
    """


class Cropper(Protocol):
    """Cuts what the embedder is shown of a face."""

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return a face of an RGB picture (H, W, 3), uint8 (S, S, 3)."""

    def scale(self, face: DetectedFace) -> float:
        """Return how many pixels of the crop one pixel of the picture becomes."""


class AlignedCropper:
    """A `Cropper` by the face's five points."""

    def __init__(self, image_size: int) -> None:
        self._image_size = image_size

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return the face turned and scaled onto the template."""
        return aligned(image, face.landmarks, self._image_size)

    def scale(self, face: DetectedFace) -> float:
        """Return the scale of the alignment."""
        return scale_of(similarity(face.landmarks, self._image_size))


class BoxCropper:
    """A `Cropper` of the detector's box with a margin, exactly as facenet-pytorch's `extract_face` cuts it."""

    def __init__(self, image_size: int, margin: int) -> None:
        self._image_size = image_size
        self._margin = margin

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return the box with its margin, stretched to the square."""
        return crop_face(image, face.box, self._image_size, self._margin)

    def scale(self, face: DetectedFace) -> float:
        """Return the scale of the box's longer side."""
        side = max(face.box.x_max - face.box.x_min, face.box.y_max - face.box.y_min)
        return (self._image_size - self._margin) / max(side, 1.0)


def cropper(crop: CropSpec) -> Cropper:
    """Return the cropper of a pack."""
    if crop.kind == "aligned":
        return AlignedCropper(crop.image_size)
    return BoxCropper(crop.image_size, crop.margin)


def crop_face(image: NDArray[np.uint8], box: Box, image_size: int, margin: int) -> NDArray[np.uint8]:
    """Return the face with its surroundings, uint8 (image_size, image_size, 3).

    `margin` is in pixels of the crop and is shared by two opposite sides. What lies outside the picture is left
    out, and the rest is stretched to the square, as FaceNet's weights were trained. A box wholly outside gives the
    nearest pixel.
    """
    height, width = image.shape[:2]
    margin_x = margin * (box.x_max - box.x_min) / (image_size - margin)
    margin_y = margin * (box.y_max - box.y_min) / (image_size - margin)
    left = min(int(max(box.x_min - margin_x / 2, 0)), width - 1)
    top = min(int(max(box.y_min - margin_y / 2, 0)), height - 1)
    right = max(int(min(box.x_max + margin_x / 2, width)), left + 1)
    bottom = max(int(min(box.y_max + margin_y / 2, height)), top + 1)
    face = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.asarray(face.resize((image_size, image_size), Image.Resampling.BILINEAR))


def preprocess(crops: NDArray[np.uint8], embedder: EmbedderSpec) -> NDArray[np.float32]:
    """Return crops (N, S, S, 3) as network input, float32 (N, 3, S, S): (x - mean) / scale."""
    planes = crops.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    if embedder.mean:
        planes -= embedder.mean
    if embedder.scale != 1:
        planes /= embedder.scale
    return planes


def normalised(outputs: NDArray[np.float32], embedder: EmbedderSpec) -> Embeddings:
    """Return a network's outputs (N, D) as embeddings."""
    if embedder.typical_norm is None:
        return Embeddings(outputs, None)
    norms = np.linalg.norm(outputs, axis=1)
    return Embeddings(outputs / np.maximum(norms, 1e-12)[:, np.newaxis], norms / np.float32(embedder.typical_norm))
