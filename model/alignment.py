"""Aligned crops: a face turned, scaled and moved so that its five points lie where the embedder was trained on them.

The warp is OpenCV's if it is installed, else the same arithmetic in numpy (edge device, Lambda).
"""

from math import ceil, floor, hypot

import numpy as np
from numpy.typing import NDArray

from model.faces import Landmarks

try:
    import cv2
except ImportError:  # then `warp_numpy` is used
    cv2 = None  # type: ignore[assignment]

TEMPLATE_SIDE = 112
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Left eye, right eye, nose, left and right corner of the mouth in a crop of 112 px: ArcFace's (arXiv:1801.07698)."""

_MIN_DIVISOR = 1e-6

Matrix = NDArray[np.float64]


def similarity(points: Landmarks, side: int = TEMPLATE_SIDE) -> Matrix:
    """Return the (2, 3) matrix that turns, scales and moves five points as near to the template as possible.

    Least squares without reflection: S. Umeyama, "Least-squares estimation of transformation parameters", PAMI 13
    (1991), which in two dimensions has this closed form. `side` scales the template. Points that all coincide are
    moved, not scaled.
    """
    source = np.asarray(points, dtype=np.float64)
    target = TEMPLATE * (side / TEMPLATE_SIDE)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    from_, to = source - source_mean, target - target_mean
    spread = max(float((from_**2).sum()), _MIN_DIVISOR)
    along = float((from_ * to).sum()) / spread
    across = float((from_[:, 0] * to[:, 1] - from_[:, 1] * to[:, 0]).sum()) / spread
    if hypot(along, across) < _MIN_DIVISOR:
        along, across = 1.0, 0.0
    turn = np.array([[along, -across], [across, along]])
    return np.concatenate([turn, (target_mean - turn @ source_mean)[:, np.newaxis]], axis=1)


def scale_of(matrix: Matrix) -> float:
    """Return the length in the crop of one pixel of the picture."""
    return hypot(matrix[0, 0], matrix[1, 0])


def aligned(image: NDArray[np.uint8], points: Landmarks, side: int = TEMPLATE_SIDE) -> NDArray[np.uint8]:
    """Return the aligned face of an RGB picture, uint8 (side, side, 3); the area outside the picture is black.

    A face that shrinks to less than half is averaged first, by a whole number of pixels, because interpolation alone
    would skip most of them.
    """
    matrix = similarity(points, side)
    shrink = floor(1 / scale_of(matrix))
    if shrink >= 2:  # noqa: PLR2004 - whole pixels
        image, matrix = _averaged(image, matrix, side, shrink)
    return warp(image, matrix, side)


def warp(image: NDArray[np.uint8], matrix: Matrix, side: int) -> NDArray[np.uint8]:
    """Return the picture under an affine map, uint8 (side, side, 3), interpolated between four pixels."""
    if cv2 is None:
        return warp_numpy(image, matrix, side)
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def warp_numpy(image: NDArray[np.uint8], matrix: Matrix, side: int) -> NDArray[np.uint8]:
    """Return the result of `warp` without OpenCV, to within one level."""
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    x, y = (row[0] * columns + row[1] * rows + row[2] for row in inverse)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right_part, lower_part = x - left, y - top
    height, width = image.shape[:2]
    mixed = np.zeros((side, side, 3))
    for down, row_part in ((0, 1 - lower_part), (1, lower_part)):
        for across, column_part in ((0, 1 - right_part), (1, right_part)):
            row, column = top + down, left + across
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            values = image[row.clip(0, height - 1), column.clip(0, width - 1)]
            mixed += values * (row_part * column_part * inside)[..., np.newaxis]
    return np.rint(mixed).astype(np.uint8)


def region(matrix: Matrix, width: int, height: int, side: int = TEMPLATE_SIDE) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the part of a picture that a crop shows, with a few pixels around it.

    That part can be aligned elsewhere, with the points moved by left and top: the crop is the same.
    """
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]
    corners = inverse @ np.array([(0, 0, 1), (side, 0, 1), (0, side, 1), (side, side, 1)], dtype=np.float64).T
    spare = ceil(1 / scale_of(matrix)) + 1  # pixels of the picture per pixel of the crop
    left, top = (max(0, floor(low) - spare) for low in corners.min(axis=1))
    right, bottom = (
        min(length, ceil(high) + spare) for high, length in zip(corners.max(axis=1), (width, height), strict=True)
    )
    return left, top, right, bottom


def _averaged(image: NDArray[np.uint8], matrix: Matrix, side: int, shrink: int) -> tuple[NDArray[np.uint8], Matrix]:
    """Return the part of the picture that the crop shows, `shrink` times smaller, and the matrix for that part."""
    left, top, right, bottom = region(matrix, image.shape[1], image.shape[0], side)
    rows, columns = (bottom - top) // shrink, (right - left) // shrink
    if rows <= 0 or columns <= 0:
        return image, matrix  # the face lies outside the picture
    blocks = image[top : top + rows * shrink, left : left + columns * shrink]
    if cv2 is not None:
        small = np.asarray(cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    else:
        sums = blocks.reshape(rows, shrink, columns, shrink, 3).sum(axis=(1, 3), dtype=np.uint32)
        small = np.rint(sums / shrink**2).astype(np.uint8)
    # The centre of the first small pixel lies in the middle of its block.
    origin = np.array([left, top]) + (shrink - 1) / 2
    moved = np.concatenate([matrix[:, :2] * shrink, (matrix[:, :2] @ origin + matrix[:, 2])[:, np.newaxis]], axis=1)
    return small, moved
