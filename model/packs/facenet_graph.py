"""Puts weights into the embedder's structure, and reads them out again.

`model/graphs/embedder.onnx` is the whole graph with every weight named, typed and shaped but without its 94 MB of
values.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from model.packs.facenet_weights import Array, Tensors

STRUCTURE = Path(__file__).resolve().parent.parent / "graphs" / "embedder.onnx"


class WrongWeights(ValueError):
    """The weights are not those of this graph: a tensor is missing, unknown, or of another shape."""


def fill(structure: onnx.ModelProto, tensors: Tensors) -> onnx.ModelProto:
    """Return a copy of the structure with the values of a folded set, checked by ONNX.

    Raises `WrongWeights` unless the set has exactly the structure's tensors, each of its shape and finite.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(structure)
    wanted = {initializer.name: initializer for initializer in _weights(graph)}
    if differing := sorted(wanted.keys() ^ tensors.keys()):
        raise WrongWeights(f"these tensors are missing or unknown: {', '.join(differing[:5])}")
    for name, initializer in wanted.items():
        value = np.ascontiguousarray(tensors[name], dtype="<f4")
        if value.shape != tuple(initializer.dims):
            raise WrongWeights(f"{name} has the shape {value.shape} instead of {tuple(initializer.dims)}")
        if not np.isfinite(value).all():
            raise WrongWeights(f"{name} holds values that are no finite numbers")
        initializer.raw_data = value.tobytes()
    onnx.checker.check_model(graph)
    return graph


def read_weights(graph: onnx.ModelProto) -> dict[str, Array]:
    """Return the layers' weights of a filled embedder, or of a detection network, by name."""
    return {initializer.name: numpy_helper.to_array(initializer) for initializer in _weights(graph)}


def _weights(graph: onnx.ModelProto) -> list[TensorProto]:
    return [initializer for initializer in graph.graph.initializer if initializer.name.endswith((".weight", ".bias"))]
