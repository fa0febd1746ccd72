"""The norm of a template: the one rule for every reader and writer of templates."""

import numpy as np
from numpy.typing import NDArray

NORM_TOLERANCE = 1e-3
"""How far the norm of a template may be from 1; exports of other programs are less exact than float32."""
ROUNDED_TOLERANCE = 2 * NORM_TOLERANCE
"""The same after the rounding to float16, which changes a norm by a 2 048th at most."""


def normalised(embeddings: NDArray[np.float32], tolerance: float = NORM_TOLERANCE) -> NDArray[np.bool_]:
    """Return which of the rows (N, D) have a norm of 1 within the tolerance; not those with NaN or infinity.

    In float64, so that the answer does not depend on neighbouring rows or on the order of the sum.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    return np.asarray(np.abs(norms - 1) <= tolerance)
