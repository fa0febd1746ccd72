"""The factors of a face's quality that its photo gives, before it is embedded: sharpness, light, size, pose.

`model.quality` says what a factor is, and turns them into the score. Occlusion (mask, hand, sunglasses) is not
measured.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from model.faces import Box, Landmarks, QualityFactor
from model.quality import Curve, value_at

_SIDE = 32  # the side of the square to which a face is reduced, in pixels; a smaller face keeps its size
_MIN_SIDE = 8
_ENOUGH_SIDE = 128
_BLUR = 5  # the length of the blurring filter (Crété-Roffet and others, "The blur effect", SPIE 6492, 2007)
_CLIPPED = 250  # the grey level from which on a camera's white has lost the detail of the face
_DARK, _BRIGHT = 70, 150
"""A narrow range below `_DARK` is too dark, above `_BRIGHT` too bright; between them it lacks contrast."""
_NOSE_DEPTH = 0.45
"""How far the tip of the nose is in front of the plane of eyes and mouth, in distances between the eyes."""
_NOSE_HEIGHT = 0.53
"""Its place between the eyes (0) and the mouth (1), seen from the front: the median of 500 photos of LFW."""

_EYE_DISTANCE: Curve = (3, 5.4, 7.2, 9, 10.8, 13.5, 18, 27), (0, 0.5, 0.7, 0.83, 0.9, 0.95, 0.98, 1)
_BLUR_EFFECT: Curve = (0.48, 0.55, 0.62, 0.675, 0.72, 0.8, 0.84), (1, 0.94, 0.82, 0.68, 0.5, 0.12, 0)
_RANGE: Curve = (3, 6.5, 13, 26, 52, 104), (0, 0.3, 0.68, 0.9, 0.97, 1)
_CLIPPED_SHARE: Curve = (0.1, 0.4, 0.7, 1), (1, 0.9, 0.7, 0.35)
_ROLL: Curve = (10, 15, 30, 45, 90), (1, 0.99, 0.92, 0.8, 0.2)
_YAW: Curve = (15, 30, 45, 60, 75, 90), (1, 0.95, 0.8, 0.5, 0.2, 0)
_PITCH: Curve = (12, 25, 40, 60, 80), (1, 0.93, 0.75, 0.3, 0)
_PROBABILITY: Curve = (0.3, 0.5, 0.7), (0.3, 0.6, 1)


def quality_factors(
    grey: NDArray[np.float32] | None, landmarks: Landmarks, probability: float
) -> tuple[QualityFactor, ...]:
    """Return the factors of one face, given its `grey_patch`, so that the picture need not be kept.

    The five landmarks are in pixels of the original photo; the patch may come from a reduced copy. Without a patch
    there are none.
    """
    if grey is None:
        return ()
    return (
        QualityFactor(value_at(_BLUR_EFFECT, _blur_effect(grey)), "blurred"),
        _exposure(grey),
        *_geometry(np.array(landmarks, dtype=np.float64)),
        QualityFactor(value_at(_PROBABILITY, probability), "hardly a face to the detector"),
    )


def grey_patch(image: NDArray[np.uint8], box: Box) -> NDArray[np.float32] | None:
    """Return the face in grey, float32 (S, S), or None if the box has no pixels in the picture."""
    height, width = image.shape[:2]
    left, right = max(0, math.floor(box.x_min)), min(width, math.ceil(box.x_max))
    top, bottom = max(0, math.floor(box.y_min)), min(height, math.ceil(box.y_max))
    if right - left < 1 or bottom - top < 1:
        return None
    side = min(max(min(right - left, bottom - top), _MIN_SIDE), _SIDE)
    face: cv2.typing.MatLike = image[top:bottom, left:right]
    if min(face.shape[:2]) > _ENOUGH_SIDE:
        # Some pixels of a large face are enough: the mean of all would take milliseconds.
        face = cv2.resize(face, (_ENOUGH_SIDE, _ENOUGH_SIDE), interpolation=cv2.INTER_NEAREST)
    # In fractions of grey levels, because whole levels look like sharp edges in a very blurred face.
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _blur_effect(grey: NDArray[np.float32]) -> float:
    """Return from 0 (sharp) to 1 how little the differences between neighbours change when the face is blurred.

    It compares the face with itself, so that light, contrast and skin have no influence.
    """
    worst = 0.0
    for picture in (grey, grey.T):
        differences = np.abs(np.diff(picture, axis=1))
        again = np.abs(np.diff(cv2.blur(picture, (_BLUR, 1)), axis=1))
        present = float(differences.sum())
        lost = float(np.maximum(differences - again, 0).sum())
        worst = max(worst, 1 - lost / present if present else 1.0)
    return worst


def _exposure(grey: NDArray[np.float32]) -> QualityFactor:
    """Return the factor for the range between the dark and the light parts of the face, and the reason for a low one.

    The mean would rate dark skin as a dark photo; the range of a face in good light is the same for every skin.
    """
    edge_y, edge_x = grey.shape[0] // 8, grey.shape[1] // 6
    inner = np.sort(grey[edge_y : grey.shape[0] - edge_y, edge_x : grey.shape[1] - edge_x], axis=None)
    dark, light = float(inner[len(inner) // 20]), float(inner[-1 - len(inner) // 20])
    clipped = 1 - float(np.searchsorted(inner, _CLIPPED)) / len(inner)
    narrow, white = value_at(_RANGE, light - dark), value_at(_CLIPPED_SHARE, clipped)
    if white < narrow or dark > _BRIGHT:
        return QualityFactor(narrow * white, "too bright")
    return QualityFactor(narrow * white, "too dark" if light < _DARK else "low contrast")


def _geometry(points: NDArray[np.float64]) -> list[QualityFactor]:
    """Return the factors of size and pose from the five points; angles by weak perspective, to some ten degrees."""
    left_eye, right_eye, nose, left_mouth, right_mouth = points
    across = right_eye - left_eye
    eye_distance = math.hypot(*across)
    size = QualityFactor(value_at(_EYE_DISTANCE, eye_distance), f"small: {eye_distance:.0f} pixels between the eyes")
    roll = math.degrees(math.atan2(across[1], across[0]))
    # Upright coordinates around the middle between the eyes.
    axis = across / eye_distance if eye_distance else np.array([1.0, 0.0])
    turn = np.array([axis, (-axis[1], axis[0])])
    middle = (left_eye + right_eye) / 2
    tip, mouth = turn @ (nose - middle), turn @ ((left_mouth + right_mouth) / 2 - middle)
    height = float(mouth[1])
    if height <= 0 or not eye_distance:
        return [size, QualityFactor(0.0, "no front of a face")]
    along = float(tip[1]) / height
    aside = float(tip[0]) - float(mouth[0]) * along
    yaw = math.degrees(math.atan2(abs(aside), _NOSE_DEPTH * eye_distance))
    pitch = math.degrees(math.atan2(abs(along - _NOSE_HEIGHT) * height, _NOSE_DEPTH * eye_distance))
    return [
        size,
        QualityFactor(value_at(_ROLL, abs(roll)), "tilted"),
        QualityFactor(value_at(_YAW, yaw), "turned to the side"),
        QualityFactor(value_at(_PITCH, pitch), "turned up or down"),
    ]
