"""The embedder's weights: read from a frozen graph, folded, filled into the structure, hashed into the model id."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from model.packs.catalogue import PACKS, STRUCTURE
from model.packs.facenet import Array, WrongWeights, fill, fold_batch_norms, read_weights, restore_batch_norms
from model.packs.graphs import model_id
from model.packs.tf_graph import BATCH_NORM_EPSILON, UnreadableGraph, layer_names, read_facenet, read_graph

RANDOM = np.random.default_rng(7)


def varint(number: int) -> bytes:
    """A number in protobuf's wire format."""
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


def field(number: int, value: bytes | int) -> bytes:
    """A length-delimited or varint field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(name: str, operation: str, *inputs: str, **attributes: bytes) -> bytes:
    """A NodeDef as a field of a GraphDef."""
    parts = [field(1, name.encode()), field(2, operation.encode()), *(field(3, item.encode()) for item in inputs)]
    parts += [field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items()]
    return field(1, b"".join(parts))


def constant(name: str, value: Array, *, kind: int = 1) -> bytes:
    """A Const with its values as raw content."""
    shape = b"".join(field(2, field(1, size)) for size in value.shape)
    return node(name, "Const", value=field(8, field(1, kind) + field(2, shape) + field(4, value.tobytes())))


def random(*shape: int) -> Array:
    """Weights of some shape."""
    return RANDOM.normal(size=shape).astype(np.float32)


def state_dict() -> dict[str, Array]:
    """A state dict with one layer of every kind that the network has."""
    norm = ("weight", "bias", "running_mean", "running_var")
    return {
        "conv2d_1a.conv.weight": random(4, 3, 3, 3),
        **{f"conv2d_1a.bn.{part}": np.abs(random(4)) for part in norm},
        "block8.conv2d.weight": random(5, 4, 1, 1),
        "block8.conv2d.bias": random(5),
        "last_linear.weight": random(6, 5),
        **{f"last_bn.{part}": np.abs(random(6)) for part in norm},
        "logits.weight": random(9, 6),
        "logits.bias": random(9),
    }


def test_fold_equals_layer_and_batch_norm() -> None:
    """For the dense layer, one matrix product; the classifier is left out."""
    state = state_dict()
    folded = fold_batch_norms(state)
    features = random(2, 5)
    raw = features @ state["last_linear.weight"].T
    scale = state["last_bn.weight"] / np.sqrt(state["last_bn.running_var"] + BATCH_NORM_EPSILON)
    expected = (raw - state["last_bn.running_mean"]) * scale + state["last_bn.bias"]
    np.testing.assert_allclose(
        features @ folded["last_linear.weight"].T + folded["last_linear.bias"], expected, rtol=1e-4, atol=1e-5
    )
    assert sorted(folded) == [
        *("block8.conv2d.bias", "block8.conv2d.weight", "conv2d_1a.bias", "conv2d_1a.weight"),
        *("last_linear.bias", "last_linear.weight"),
    ]


def test_fold_batch_norms_inverts_restore_batch_norms_to_the_bit() -> None:
    """So the model id does not depend on the source of the weights."""
    folded = fold_batch_norms(state_dict())
    again = fold_batch_norms(restore_batch_norms(folded))
    assert {name: value.tobytes() for name, value in again.items()} == {
        name: value.tobytes() for name, value in folded.items()
    }


def test_layer_names_of_the_frozen_graph() -> None:
    """Stem, repeated blocks from 0, single and several convolutions of a branch, the last block."""
    prefix = "InceptionResnetV1"
    names = layer_names(
        [
            f"{prefix}/{name}/Conv2D"
            for name in (
                "Conv2d_4b_3x3",
                "Repeat_1/block17_10/Branch_0/Conv2d_1x1",
                "Repeat_1/block17_10/Branch_1/Conv2d_0c_7x1",
                "Repeat_1/block17_10/Branch_1/Conv2d_0a_1x1",
                "Repeat_1/block17_10/Branch_1/Conv2d_0b_1x7",
                "Repeat_1/block17_10/Conv2d_1x1",
                "Mixed_7a/Branch_2/Conv2d_1a_3x3",
                "Mixed_7a/Branch_2/Conv2d_0a_1x1",
                "Mixed_7a/Branch_2/Conv2d_0b_3x3",
                "Block8/Conv2d_1x1",
            )
        ]
    )
    assert {name.removeprefix(f"{prefix}/").removesuffix("/Conv2D"): layer for name, layer in names.items()} == {
        "Conv2d_4b_3x3": "conv2d_4b",
        "Repeat_1/block17_10/Branch_0/Conv2d_1x1": "repeat_2.9.branch0",
        "Repeat_1/block17_10/Branch_1/Conv2d_0a_1x1": "repeat_2.9.branch1.0",
        "Repeat_1/block17_10/Branch_1/Conv2d_0b_1x7": "repeat_2.9.branch1.1",
        "Repeat_1/block17_10/Branch_1/Conv2d_0c_7x1": "repeat_2.9.branch1.2",
        "Repeat_1/block17_10/Conv2d_1x1": "repeat_2.9.conv2d",
        "Mixed_7a/Branch_2/Conv2d_0a_1x1": "mixed_7a.branch2.0",
        "Mixed_7a/Branch_2/Conv2d_0b_3x3": "mixed_7a.branch2.1",
        "Mixed_7a/Branch_2/Conv2d_1a_3x3": "mixed_7a.branch2.2",
        "Block8/Conv2d_1x1": "block8.conv2d",
    }
    with pytest.raises(UnreadableGraph, match="no layer"):
        layer_names(["MobileNet/Conv2d_0/Conv2D"])


def test_frozen_graph_is_read_layer_by_layer(tmp_path: Path) -> None:
    """Kernels are transposed; the dense layer is folded with its batch norm."""
    kernel, offset, dense, mean = random(3, 3, 2, 4), random(4), random(4, 5), random(5)
    variance = np.abs(random(5))
    ones = field(8, field(1, 1) + field(2, field(2, field(1, 5))) + varint(5 << 3 | 5) + struct.pack("<f", 1))
    layer = "InceptionResnetV1/Conv2d_1a_3x3"
    graph = tmp_path / "graph.pb"
    graph.write_bytes(
        b"".join(
            [
                constant(f"{layer}/weights", kernel),
                node(f"{layer}/Conv2D", "Conv2D", "input:0", f"{layer}/weights"),
                constant(f"{layer}/offset", offset),
                node(f"{layer}/bias", "BiasAdd", f"{layer}/Conv2D", f"{layer}/offset"),
                constant("dense", dense),
                node("product", "MatMul", f"{layer}/bias", "dense"),
                node("gamma", "Const", value=ones),
                constant("beta", np.zeros(5, np.float32)),
                constant("mean", mean),
                constant("variance", variance),
                node(
                    "norm",
                    "FusedBatchNorm",
                    *("product", "gamma", "beta", "mean", "variance"),
                    epsilon=varint(4 << 3 | 5) + struct.pack("<f", BATCH_NORM_EPSILON),
                ),
            ]
        )
    )
    tensors = fold_batch_norms(read_facenet(graph))
    np.testing.assert_array_equal(tensors["conv2d_1a.weight"], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(tensors["conv2d_1a.bias"], offset)
    scale = 1 / np.sqrt(variance + BATCH_NORM_EPSILON)
    np.testing.assert_allclose(tensors["last_linear.weight"], dense.T * scale[:, np.newaxis], rtol=1e-5)
    np.testing.assert_allclose(tensors["last_linear.bias"], -mean * scale, rtol=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        b"\x0a\xff",  # a node that is longer than the file
        b"\x0a",  # a number that is cut off
        b"<html>not found</html>",
        constant("weights", np.zeros(2, np.float32), kind=3),
    ],
)
def test_unreadable_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    """Unreadable graph is refused."""
    (tmp_path / "graph.pb").write_bytes(content)
    with pytest.raises(UnreadableGraph):
        [item.constant() for item in read_graph(tmp_path / "graph.pb").values()]


@pytest.fixture(scope="module")
def structure() -> onnx.ModelProto:
    """The committed structure."""
    return onnx.load(STRUCTURE)


@pytest.fixture(scope="module")
def tensors(structure: onnx.ModelProto) -> dict[str, Array]:
    """Zeros of every shape that the structure wants."""
    return {
        item.name: np.zeros(item.dims, np.float32)
        for item in structure.graph.initializer
        if item.name.endswith((".weight", ".bias"))
    }


def test_structure_is_small_and_has_every_layer(structure: onnx.ModelProto, tensors: dict[str, Array]) -> None:
    """132 convolutions and the dense layer; 94 MB of values are not in the repository."""
    assert STRUCTURE.stat().st_size < 300_000
    assert len(tensors) == 2 * 133
    filled = read_weights(fill(structure, tensors))
    assert sum(value.nbytes for value in filled.values()) > 93_000_000
    assert not structure.graph.initializer[0].raw_data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv2d_1a.weight": np.zeros((32, 3, 5, 5), np.float32)}, "shape"),
        ({"conv2d_1a.bias": np.full(32, np.nan, np.float32)}, "finite"),
        ({"conv2d_9z.bias": np.zeros(32, np.float32)}, "missing or unknown: conv2d_9z.bias"),
    ],
)
def test_weights_of_another_network_are_refused(
    structure: onnx.ModelProto, tensors: dict[str, Array], change: dict[str, Array], reason: str
) -> None:
    """By name, shape and value."""
    with pytest.raises(WrongWeights, match=reason):
        fill(structure, tensors | change)


def test_missing_layer_is_named(structure: onnx.ModelProto, tensors: dict[str, Array]) -> None:
    """Missing layer is named."""
    del tensors["block8.conv2d.bias"]
    with pytest.raises(WrongWeights, match=r"block8\.conv2d\.bias"):
        fill(structure, tensors)


def test_model_id_depends_on_weights_and_crop() -> None:
    """And on nothing else."""
    one, two = random(2, 3), random(4)
    pack = PACKS["open"]
    known = model_id(pack, {"embedder": {"a": one, "b": two}})
    assert known.startswith("open-128-")
    assert known == model_id(pack, {"embedder": {"b": two, "a": np.asfortranarray(one)}})
    lenient = replace(pack, detector=replace(pack.detector, options={**pack.detector.options, "threshold": 0.5}))
    assert known == model_id(replace(lenient, center_weight=0.0), {"embedder": {"a": one, "b": two}})
    unturned = replace(pack, detector=replace(pack.detector, options={"threshold": 0.6, "overlap": 0.3}))
    others = [
        model_id(pack, {"embedder": {"a": one, "b": -two}}),
        model_id(pack, {"embedder": {"a": one.reshape(3, 2), "b": two}}),
        model_id(pack, {"detector": {"a": one, "b": two}}),
        model_id(replace(pack, crop=replace(pack.crop, image_size=96)), {"embedder": {"a": one, "b": two}}),
        model_id(replace(pack, embedder=replace(pack.embedder, mean=1.0)), {"embedder": {"a": one, "b": two}}),
        model_id(unturned, {"embedder": {"a": one, "b": two}}),
    ]
    assert len({known, *others}) == 7
