"""The model id: which embeddings may be compared with which."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from model.weights import Tensors

_DIGITS = 16


def model_id(networks: Mapping[str, Tensors], preprocessing: Mapping[str, Any], detector: Mapping[str, Any]) -> str:
    """Return `facenet-<image size>-<16 hexadecimal digits>` for the weights by network and tensor name.

    Hashed is what decides an embedding's value: every tensor (name, shape, float32 little-endian bytes, in the order of
    the names), how a box becomes a crop, and how boxes are found. Engine, precision, the layout of files, the name of
    the weights, the threshold and the rule for the primary face do not count. Weights are the folded ones.
    """
    digest = hashlib.sha256()
    rules = {"preprocessing": dict(preprocessing), "detector": dict(detector)}
    digest.update(json.dumps(rules, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
    for network in sorted(networks):
        for name in sorted(networks[network]):
            tensor = np.ascontiguousarray(networks[network][name], dtype="<f4")
            digest.update(f"\n{network}/{name} float32 {list(tensor.shape)}\n".encode())
            digest.update(tensor.tobytes())
    return f"facenet-{preprocessing['image_size']}-{digest.hexdigest()[:_DIGITS]}"
