"""The crop of a face for the embedding network."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.alignment import aligned, scale_of, similarity
from model.faces import DetectedFace
from model.packs import CropSpec


class Cropper(Protocol):
    """Cuts faces out of pictures for the embedder."""

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return a face of an RGB picture (H, W, 3) as uint8 (S, S, 3), S being the artefact's image size."""

    def scale(self, face: DetectedFace) -> float:
        """Return the length in the crop of one pixel of the picture."""


class AlignedCropper:
    """A `Cropper` by the face's five points."""

    def __init__(self, crop_side: int) -> None:
        self._crop_side = crop_side

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return the face turned and scaled onto the template."""
        return aligned(image, face.landmarks, self._crop_side)

    def scale(self, face: DetectedFace) -> float:
        """Return the scale of the alignment."""
        return scale_of(similarity(face.landmarks, self._crop_side))


class BoxCropper:
    """A `Cropper` of the detector's box, exactly as facenet-pytorch's `extract_face`; `margin` is in crop pixels."""

    def __init__(self, crop_side: int, margin: int) -> None:
        self._crop_side = crop_side
        self._margin = margin

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """Return the box of the face with the margin, half of it on each side, stretched to the square.

        The part outside the picture is cut off first, as FaceNet's weights were trained. A box wholly outside gives the
        nearest pixel.
        """
        height, width = image.shape[:2]
        box, size = face.box, self._crop_side
        margin_x = self._margin * (box.x_max - box.x_min) / (size - self._margin)
        margin_y = self._margin * (box.y_max - box.y_min) / (size - self._margin)
        left = min(int(max(box.x_min - margin_x / 2, 0)), width - 1)
        top = min(int(max(box.y_min - margin_y / 2, 0)), height - 1)
        right = max(int(min(box.x_max + margin_x / 2, width)), left + 1)
        bottom = max(int(min(box.y_max + margin_y / 2, height)), top + 1)
        cut = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
        return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR))

    def scale(self, face: DetectedFace) -> float:
        """Return the scale of the box's longer side."""
        side = max(face.box.x_max - face.box.x_min, face.box.y_max - face.box.y_min)
        return (self._crop_side - self._margin) / max(side, 1.0)


def cropper(crop: CropSpec) -> Cropper:
    """Return the cropper of a pack."""
    if crop.kind == "aligned":
        return AlignedCropper(crop.image_size)
    return BoxCropper(crop.image_size, crop.margin)
