"""Reads constants and layers out of a frozen TensorFlow graph without TensorFlow.

A `.pb` file is one GraphDef message in protobuf's wire format, of which a frozen network needs very little: nodes with
name, operation, inputs, and constants. Reading that directly depends on no version of any importer. Field numbers are
those of TensorFlow's graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DT_FLOAT = 1


class UnreadableGraph(ValueError):
    """The bytes are no GraphDef, or use a form that frozen float networks do not have."""


@dataclass(frozen=True)
class Node:
    """One operation: its name, its kind (`Conv2D`, `Const`, …), the names of its inputs, its raw attributes."""

    name: str
    operation: str
    inputs: tuple[str, ...]
    attributes: dict[str, memoryview]

    def constant(self) -> NDArray[np.float32]:
        """Return the value of a float `Const`, in its own shape; raises `UnreadableGraph` for anything else."""
        if self.operation != "Const" or "value" not in self.attributes:
            raise UnreadableGraph(f"{self.name} is no constant")
        return _tensor(_only(self.attributes["value"], 8), self.name)

    def float_attribute(self, name: str) -> float:
        """Return a float attribute such as `epsilon`; raises `UnreadableGraph` when it is absent."""
        if name not in self.attributes:
            raise UnreadableGraph(f"{self.name} has no attribute {name}")
        return float(struct.unpack("<f", _only(self.attributes[name], 4))[0])


def read_graph(path: Path) -> dict[str, Node]:
    """Return the nodes of a GraphDef file by name, in its order; raises OSError and `UnreadableGraph`."""
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
    """Yield number and raw bytes of every field; a varint's bytes are yielded undecoded."""
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
