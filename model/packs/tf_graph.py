"""Reads FaceNet's weights from its frozen TensorFlow graph, without TensorFlow.

A `.pb` file is one GraphDef message of protobuf. A frozen network needs little of it: nodes with name, operation and
inputs, and constants. Field numbers are those of TensorFlow's graph.proto, node_def.proto, attr_value.proto,
tensor.proto and tensor_shape.proto.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

BATCH_NORM_EPSILON = 0.001  # of every batch norm of the network, in the paper's code and in facenet-pytorch
_DT_FLOAT = 1
_MESSAGES = {
    "Graph": ((1, "node", "Node*"),),
    "Node": ((1, "name", "string"), (2, "op", "string"), (3, "input", "string*"), (5, "attr", "Attribute*")),
    "Attribute": ((1, "key", "string"), (2, "value", "Value")),
    "Value": ((4, "f", "float"), (8, "tensor", "Tensor")),
    "Tensor": ((1, "dtype", "int32"), (2, "shape", "Shape"), (4, "content", "bytes"), (5, "float_val", "float*")),
    "Shape": ((2, "dim", "Dimension*"),),
    "Dimension": ((1, "size", "int64"),),
}
"""The fields of each message: number, name and type; `*` marks a repeated field."""
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
    """One operation (`Conv2D`, `Const`, …) with the names of its inputs and its attributes."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def constant(self) -> NDArray[np.float32]:
        """Return the value of a float `Const` in its own shape; raises `UnreadableGraph` for any other node."""
        value = self.attributes.get("value")
        if self.operation != "Const" or value is None or not value.HasField("tensor"):
            raise UnreadableGraph(f"{self.name} is no constant")
        tensor = value.tensor
        if tensor.dtype != _DT_FLOAT:
            raise UnreadableGraph(f"{self.name} is not float32 (type {tensor.dtype})")
        shape = [dimension.size for dimension in tensor.shape.dim]
        content = tensor.content or np.array(tensor.float_val, dtype="<f4").tobytes()
        array = np.frombuffer(content, dtype="<f4").astype(np.float32, copy=False)
        if array.size == 1:  # a single value fills the whole tensor
            return np.full(shape, array[0], dtype=np.float32)
        if array.size != np.prod(shape):
            raise UnreadableGraph(f"{self.name} has {array.size} values for the shape {shape}")
        return array.reshape(shape)

    def float_attribute(self, name: str) -> float:
        """Return a float attribute such as `epsilon`; raises `UnreadableGraph` if it is absent."""
        value = self.attributes.get(name)
        if value is None or not value.HasField("f"):
            raise UnreadableGraph(f"{self.name} has no attribute {name}")
        return float(value.f)


def read_graph(path: Path) -> dict[str, Node]:
    """Return the nodes of a GraphDef file by name, in file order; raises OSError and `UnreadableGraph`."""
    graph = _graph_message()()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as exc:
        raise UnreadableGraph(f"the file is no GraphDef ({exc})") from exc
    return {
        node.name: Node(
            node.name,
            node.op,
            tuple(source.split(":", 1)[0] for source in node.input),  # the output number is always 0 here
            {attribute.key: attribute.value for attribute in node.attr},
        )
        for node in graph.node
    }


@cache
def _graph_message() -> Any:
    """Return protobuf's class for `_MESSAGES["Graph"]`."""
    file = descriptor_pb2.FileDescriptorProto(name="model/packs/tf_graph.proto", package="tf_graph", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field_name, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if (plain := kind.removesuffix("*")) in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".tf_graph.{plain}"
            else:
                field.type = getattr(field, f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf_graph.Graph"))
