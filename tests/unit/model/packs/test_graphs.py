"""Converting published graphs: 8-bit weights in blocks, fixed shapes, unused inputs."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artefact import BuildFailed
from model.packs.graphs import float_weights, fold_constants, min_agreement

SEEDED = np.random.default_rng(3)


def published(weights: NDArray[np.int8], scales: NDArray[np.float32], block: int) -> onnx.ModelProto:
    """A convolution from 3 to 4 channels with weights in 8 bits, reshaped to a batch of one, as OpenCV Zoo has it."""
    zero_points = np.full(scales.shape, 3, dtype=np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["flat"], axis=1, block_size=block),
        helper.make_node("Reshape", ["flat", "kernel"], ["weight"]),
        helper.make_node("Conv", ["image", "weight"], ["convolved"]),
        helper.make_node("Transpose", ["convolved"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "head"], ["out"]),
    ]
    initialisers = [
        numpy_helper.from_array(array, name)
        for name, array in (
            ("q", weights),
            ("s", scales),
            ("z", zero_points),
            ("kernel", np.array([4, 3, 1, 1])),
            ("head", np.array([1, -1, 4])),
        )
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8]),
        helper.make_tensor_value_info("leftover", TensorProto.FLOAT, [4, 3, 1, 1]),
    ]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 64, 4])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


WEIGHTS = SEEDED.integers(-127, 127, (4, 3), dtype=np.int8)
SCALES = SEEDED.uniform(0.01, 0.1, (4, 2)).astype(np.float32)  # blocks of two along three channels


def test_folded_constants_use_the_scale_of_their_block() -> None:
    """(value - zero point) times the scale; the last block is cut off."""
    graph = fold_constants(published(WEIGHTS, SCALES, 2), input_shape=("N", 3, "H", "W"))
    expected = (WEIGHTS.astype(np.float32) - 3) * SCALES[:, [0, 0, 1]]
    assert float_weights(graph)["weight"] == pytest.approx(expected.reshape(4, 3, 1, 1))
    assert [node.op_type for node in graph.graph.node] == ["Conv", "Transpose", "Reshape"]


def test_graph_of_folded_constants_takes_any_batch_and_size() -> None:
    """The published one takes a single picture of one size."""
    graph = fold_constants(published(WEIGHTS, SCALES, 2), input_shape=("N", 3, "H", "W"))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    images = SEEDED.uniform(size=(5, 3, 6, 10)).astype(np.float32)
    (together,) = session.run(None, {"image": images})
    assert together.shape == (5, 60, 4)
    (alone,) = session.run(None, {"image": images[3:4]})
    assert together[3] == pytest.approx(alone[0], abs=1e-5)


def test_agreement_is_measured_against_the_published_graph() -> None:
    """The right graph agrees; one with swapped weights is refused."""
    model = published(WEIGHTS, SCALES, 2)
    right = fold_constants(model, input_shape=("N", 3, "H", "W"))
    cosine, engine = min_agreement(model, right)
    assert cosine >= 0.99999
    assert engine.startswith("OpenCV")
    (weight,) = (tensor for tensor in right.graph.initializer if tensor.name == "weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), "weight"))
    with pytest.raises(BuildFailed, match="disagrees with the published one"):
        min_agreement(model, right)


def test_graph_of_two_inputs_is_refused() -> None:
    """It is not what the pack's description says."""
    model = published(WEIGHTS, SCALES, 2)
    model.graph.node[2].input[1] = "leftover"
    with pytest.raises(ValueError, match="2 inputs"):
        fold_constants(model, input_shape=("N", 3, "H", "W"))
