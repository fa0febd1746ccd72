"""The model id: which embeddings may be compared with which."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.packs import Pack

_DIGITS = 16
_MOVES_POINTS = {"upright_degrees", "turn_factor"}  # a detector's options that decide where the points of a face lie

_CLASSIC_RULES = {
    "preprocessing": {
        "colour": "RGB",
        "image_size": 160,
        "margin": 32,
        "crop": "facenet-pytorch's extract_face: box and margin, cut at the picture's edge, stretched to a square",
        "resampling": "Pillow bilinear",
        "normalisation": "(value - 127.5) / 128",
    },
    "detector": {"name": "MTCNN", "min_face_size": 20, "thresholds": [0.6, 0.7, 0.7], "factor": 0.709},
}
"""Kept as they were before there were packs, so that templates of then keep their model id."""


def model_id(pack: Pack, networks: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> str:
    """Return `<pack>-<dimension>-<16 hexadecimal digits>` (of `classic`: `facenet-160-…`) for weights by network.

    Hashed is what decides an embedding's value: every tensor (name, shape, float32 little-endian bytes, in the order of
    the names), how a face becomes a crop, and how boxes and points are found. Engine, precision, the layout of files,
    the impostor tail and the rule for the primary face do not count.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_rules(pack), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
    for network in sorted(networks):
        for name in sorted(networks[network]):
            tensor = np.ascontiguousarray(networks[network][name], dtype="<f4")
            digest.update(f"\n{network}/{name} float32 {list(tensor.shape)}\n".encode())
            digest.update(tensor.tobytes())
    prefix = "facenet-160" if pack.name == "classic" else f"{pack.name}-{pack.embedder.dimension}"
    return f"{prefix}-{digest.hexdigest()[:_DIGITS]}"


def _rules(pack: Pack) -> Mapping[str, Any]:
    if pack.name == "classic":
        return _CLASSIC_RULES
    embedder = {name: value for name, value in asdict(pack.embedder).items() if name != "typical_norm"}
    options = {name: value for name, value in pack.detector.options.items() if name in _MOVES_POINTS}
    return {
        "detector": {"kind": pack.detector.kind} | options,
        "crop": asdict(pack.crop),
        "embedder": embedder,
    }
