"""Crops: what the embedding network is shown of a face, exactly as facenet-pytorch's `extract_face` cuts it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.faces import Box


def crop_face(image: NDArray[np.uint8], box: Box, image_size: int, margin: int) -> NDArray[np.uint8]:
    """Return the face with its surroundings, uint8 (image_size, image_size, 3).

    `margin` is in pixels of the crop and is shared by two opposite sides. What lies outside the picture is left
    out, and the rest is stretched to the square, as these weights were trained. A box wholly outside gives the
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


def preprocess(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return crops (N, S, S, 3) as network input, float32 (N, 3, S, S): (x - 127.5) / 128."""
    planes = crops.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    planes -= 127.5
    planes /= 128.0
    return planes
