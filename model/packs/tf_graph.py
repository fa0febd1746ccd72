"""Reads FaceNet's weights from its frozen TensorFlow graph, without TensorFlow.

A `.pb` file is one GraphDef message in protobuf's wire format. A frozen network needs little of it: nodes with name,
operation and inputs, and constants. Reading it directly depends on no importer's version. Field numbers are those of
TensorFlow's graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto.
"""

import re
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCH_NORM_EPSILON = 0.001
"""Of every batch norm of the network, in the paper's code and in facenet-pytorch."""
_DT_FLOAT = 1
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


class UnreadableGraph(ValueError):
    """The bytes are no GraphDef, use a form that frozen float networks do not have, or are another network's."""


def read_facenet(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a frozen FaceNet graph under facenet-pytorch's names.

    The graph's convolutions already contain their batch norms. The dense layer still has its own, `last_bn`. Raises
    OSError and `UnreadableGraph`.
    """
    graph = read_graph(path)
    convolutions = [node for node in graph.values() if node.operation == "Conv2D"]
    biases = {node.inputs[0]: graph[node.inputs[1]] for node in graph.values() if node.operation == "BiasAdd"}
    layers = layer_names([node.name for node in convolutions])
    tensors = _dense_layer(graph)
    for node in convolutions:
        layer = layers[node.name]
        kernel = graph[node.inputs[1]].constant()  # height, width, input, output
        tensors[f"{layer}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"{layer}.bias"] = biases[node.name].constant()
    return tensors


def layer_names(convolutions: list[str]) -> dict[str, str]:
    """Return facenet-pytorch's layer for each name of a `Conv2D` node.

    Several convolutions of one branch are numbered in the order of their names (`0a`, `0b`, `1a`). Raises
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


def _dense_layer(graph: "Mapping[str, Node]") -> dict[str, NDArray[np.float32]]:
    norms = [node for node in graph.values() if node.operation == "FusedBatchNorm"]
    products = [node for node in graph.values() if node.operation == "MatMul"]
    if len(norms) != 1 or len(products) != 1:
        raise UnreadableGraph("expected one dense layer with one batch norm")
    epsilon = norms[0].float_attribute("epsilon")
    if not np.isclose(epsilon, BATCH_NORM_EPSILON, rtol=1e-6):
        raise UnreadableGraph(f"the batch norm's epsilon is {epsilon}, not {BATCH_NORM_EPSILON}")
    parts = ("weight", "bias", "running_mean", "running_var")
    return {
        "last_linear.weight": graph[products[0].inputs[1]].constant().T,
        **{f"last_bn.{part}": graph[name].constant() for part, name in zip(parts, norms[0].inputs[1:5], strict=True)},
    }


@dataclass(frozen=True)
class Node:
    """One operation (`Conv2D`, `Const`, …) with the names of its inputs and its raw attributes."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: dict[str, memoryview]

    def constant(self) -> NDArray[np.float32]:
        """Return the value of a float `Const` in its own shape; raises `UnreadableGraph` for any other node."""
        if self.operation != "Const" or "value" not in self.attributes:
            raise UnreadableGraph(f"{self.name} is no constant")
        return _tensor(_only(self.attributes["value"], 8), self.name)

    def float_attribute(self, name: str) -> float:
        """Return a float attribute such as `epsilon`; raises `UnreadableGraph` if it is absent."""
        if name not in self.attributes:
            raise UnreadableGraph(f"{self.name} has no attribute {name}")
        return float(struct.unpack("<f", _only(self.attributes[name], 4))[0])


def read_graph(path: Path) -> dict[str, Node]:
    """Return the nodes of a GraphDef file by name, in file order; raises OSError and `UnreadableGraph`."""
    nodes = map(_node, _all(memoryview(path.read_bytes()), 1))
    return {node.name: node for node in nodes}


def _node(message: memoryview) -> Node:
    name = operation = ""
    inputs: list[str] = []
    attributes: dict[str, memoryview] = {}
    for number, value in _fields(message):
        match number:
            case 1:
                name = str(value, "utf-8")
            case 2:
                operation = str(value, "utf-8")
            case 3:
                inputs.append(str(value, "utf-8").split(":", 1)[0])  # the output number is always 0 here
            case 5:
                attributes[str(_only(value, 1), "utf-8")] = _only(value, 2)
    return Node(name, operation, tuple(inputs), attributes)


def _tensor(message: memoryview, name: str) -> NDArray[np.float32]:
    shape: list[int] = []
    content = memoryview(b"")
    values: list[memoryview] = []
    kind = 0
    for number, value in _fields(message):
        match number:
            case 1:
                kind = _integer(value)
            case 2:
                shape = [_dimension(dimension) for dimension in _all(value, 2)]
            case 4:
                content = value
            case 5:  # float_val, packed or one by one; a single value fills the whole tensor
                values.append(value)
    if kind != _DT_FLOAT:
        raise UnreadableGraph(f"{name} is not float32 (type {kind})")
    array = np.frombuffer(content or b"".join(values), dtype="<f4").astype(np.float32, copy=False)
    if array.size == 1:
        return np.full(shape, array[0], dtype=np.float32)
    if array.size != np.prod(shape):
        raise UnreadableGraph(f"{name} has {array.size} values for the shape {shape}")
    return array.reshape(shape)


def _dimension(message: memoryview) -> int:
    sizes = [_integer(value) for value in _all(message, 1)]
    return sizes[0] if sizes else 0


def _all(message: memoryview, number: int) -> list[memoryview]:
    return [value for field, value in _fields(message) if field == number]


def _only(message: memoryview, number: int) -> memoryview:
    found = _all(message, number)
    if len(found) != 1:
        raise UnreadableGraph(f"expected one field {number}, found {len(found)}")
    return found[0]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and raw bytes of every field; a varint's bytes are not decoded."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        match key & 7:
            case 0:
                _, stop = _varint(message, position)
            case 1:
                stop = position + 8
            case 2:
                length, position = _varint(message, position)
                stop = position + length
            case 5:
                stop = position + 4
            case kind:
                raise UnreadableGraph(f"wire type {kind} at byte {position}")
        if stop > end:
            raise UnreadableGraph("the file ends in the middle of a field")
        yield key >> 3, message[position:stop]
        position = stop


def _integer(value: memoryview) -> int:
    return _varint(value, 0)[0]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    result = shift = 0
    while position < len(message):
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the top bit says whether another byte follows
            return result, position
        shift += 7
    raise UnreadableGraph("the file ends in the middle of a number")
