"""The embedder's weights: batch norms folded in, by tensor name, from and to the forms they are published in.

A *folded* set holds one float32 `<layer>.weight` and `<layer>.bias` per convolution plus `last_linear.*`; layers carry
facenet-pytorch's names (`repeat_1.0.branch1.2`), which are also the names of the ONNX graph's initialisers.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from model.packs.tf_graph import Node, UnreadableGraph, read_graph

Array = NDArray[np.float32]
Tensors = Mapping[str, Array]
BATCH_NORM_EPSILON = 0.001  # of every batch norm of the network, in the paper's code and in facenet-pytorch
_STEM = {
    "Conv2d_1a_3x3": "conv2d_1a",
    "Conv2d_2a_3x3": "conv2d_2a",
    "Conv2d_2b_3x3": "conv2d_2b",
    "Conv2d_3b_1x1": "conv2d_3b",
    "Conv2d_4a_3x3": "conv2d_4a",
    "Conv2d_4b_3x3": "conv2d_4b",
}
_BLOCKS = {"Repeat": "repeat_1", "Repeat_1": "repeat_2", "Repeat_2": "repeat_3"}
_CONVOLUTION = re.compile(
    r"InceptionResnetV1/(?:(?P<repeat>Repeat(?:_\d)?)/block\d+_(?P<number>\d+)|(?P<block>Mixed_6a|Mixed_7a|Block8))"
    r"/(?:(?P<branch>Branch_\d)/)?(?P<layer>Conv2d_\w+)/Conv2D"
)


def fold(state: Tensors) -> dict[str, Array]:
    """Return the folded set of a facenet-pytorch `InceptionResnetV1` state dict, given as float32 arrays.

    The classifier (`logits.*`) and counters are left out. Raises KeyError naming a tensor that is missing.
    """
    folded = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        if key.startswith("logits.") or layer.endswith(".bn") or layer == "last_bn":
            continue
        if layer.endswith(".conv") or layer == "last_linear":
            norm = "last_bn" if layer == "last_linear" else f"{layer.removesuffix('.conv')}.bn"
            parts = [state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
            layer = layer.removesuffix(".conv")
            folded[f"{layer}.weight"], folded[f"{layer}.bias"] = _fold_norm(value, *parts)
        else:
            folded[f"{layer}.{kind}"] = np.ascontiguousarray(value, dtype=np.float32)
    return folded


def unfold(tensors: Tensors) -> dict[str, Array]:
    """Return a state dict for `InceptionResnetV1` that computes what the folded set computes.

    Its batch norms only add the bias: weight 1, mean 0, variance 1 - epsilon. `fold(unfold(tensors))` gives the same
    bits again. Integer counters are not included: load it with `strict=False`, or add them.
    """
    state: dict[str, Array] = {}
    for key, value in tensors.items():
        layer, _, kind = key.rpartition(".")
        if layer.endswith(".conv2d"):  # these have a bias and no batch norm
            state[key] = value
        elif kind == "weight":
            state["last_linear.weight" if layer == "last_linear" else f"{layer}.conv.weight"] = value
        else:
            norm = "last_bn" if layer == "last_linear" else f"{layer}.bn"
            state[f"{norm}.weight"] = np.ones_like(value)
            state[f"{norm}.bias"] = value
            state[f"{norm}.running_mean"] = np.zeros_like(value)
            state[f"{norm}.running_var"] = np.full_like(value, 1 - BATCH_NORM_EPSILON)
    return state


def from_tf_graph(path: Path) -> dict[str, Array]:
    """Return the folded set of a frozen FaceNet graph whose convolutions are already folded.

    Raises OSError and `UnreadableGraph` (also for a graph of another network).
    """
    graph = read_graph(path)
    convolutions = [node for node in graph.values() if node.operation == "Conv2D"]
    biases = {node.inputs[0]: graph[node.inputs[1]] for node in graph.values() if node.operation == "BiasAdd"}
    layers = layer_names([node.name for node in convolutions])
    tensors: dict[str, Array] = {}
    for node in convolutions:
        layer = layers[node.name]
        kernel = graph[node.inputs[1]].constant()  # height, width, input, output
        tensors[f"{layer}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"{layer}.bias"] = biases[node.name].constant()
    tensors["last_linear.weight"], tensors["last_linear.bias"] = _bottleneck(graph)
    return tensors


def layer_names(convolutions: list[str]) -> dict[str, str]:
    """Return facenet-pytorch's layer for each `Conv2D` node's name of the TensorFlow graph.

    Several convolutions of one branch are numbered in the order of their names (`0a`, `0b`, `1a`); raises
    `UnreadableGraph` for a name that the network does not have.
    """
    names: dict[str, str] = {}
    branches: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(convolutions):
        stem = _STEM.get(name.removeprefix("InceptionResnetV1/").removesuffix("/Conv2D"))
        parts = _CONVOLUTION.fullmatch(name)
        if stem:
            names[name] = stem
        elif parts is None:
            raise UnreadableGraph(f"{name} is no layer of InceptionResnetV1")
        else:
            block = (
                f"{_BLOCKS[parts['repeat']]}.{int(parts['number']) - 1}" if parts["repeat"] else parts["block"].lower()
            )
            if parts["branch"]:
                branches[f"{block}.{parts['branch'].lower().replace('_', '')}"].append(name)
            else:
                names[name] = f"{block}.conv2d"
    for branch, members in branches.items():
        single = len(members) == 1
        names.update({name: branch if single else f"{branch}.{index}" for index, name in enumerate(members)})
    return names


def _bottleneck(graph: Mapping[str, Node]) -> tuple[Array, Array]:
    norms = [node for node in graph.values() if node.operation == "FusedBatchNorm"]
    products = [node for node in graph.values() if node.operation == "MatMul"]
    if len(norms) != 1 or len(products) != 1:
        raise UnreadableGraph("expected one dense layer with one batch norm")
    epsilon = norms[0].float_attribute("epsilon")
    if not np.isclose(epsilon, BATCH_NORM_EPSILON, rtol=1e-6):
        raise UnreadableGraph(f"the batch norm's epsilon is {epsilon}, not {BATCH_NORM_EPSILON}")
    weight = graph[products[0].inputs[1]].constant().T
    gamma, beta, mean, variance = (graph[name].constant() for name in norms[0].inputs[1:5])
    return _fold_norm(weight, gamma, beta, mean, variance)


def _fold_norm(weight: Array, gamma: Array, beta: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    # In float64 and rounded once, so that every route and machine arrives at the same bits.
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    folded = weight.astype(np.float64) * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = beta.astype(np.float64) - mean.astype(np.float64) * scale
    return np.ascontiguousarray(folded, dtype=np.float32), bias.astype(np.float32)


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
