"""Turns the published graphs into the ones that run: weights in float32, any batch and size, unused parts removed.

OpenCV Zoo's `int8bq` files keep each weight as 8-bit integers with one scale for a block of values. They save space on
the disk and nothing when they run, and not every engine loads them.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artefact import BuildFailed

Array = NDArray[np.generic]

LEAST_COSINE = 0.99999
"""Agreement that a converted graph must reach; float32 noise alone leaves 1 - 1e-6."""

_FREE_SIDE = 256  # pixels that the check takes where a graph leaves a length open

_DEFAULT_AXIS = 1  # of DequantizeLinear (ONNX operators, since version 13)


def unfolded(graph: onnx.ModelProto, *, input_shape: Sequence[int | str]) -> onnx.ModelProto:
    """Return a copy whose constant weights are float32 initialisers and whose input has `input_shape`.

    A name in the shape stands for any length. What depends on nothing but initialisers is computed here:
    `DequantizeLinear` as (value - zero point) * scale, where each scale counts for a block along the axis, and
    `Reshape`. Heads that are reshaped to a batch of one keep the batch instead. Raises ValueError for a graph that has
    several inputs once its weights are known.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if not _computed(node, values)]
    for node in nodes:
        if node.op_type == "Reshape":
            _keep_batch(node, values)
    used = {name for node in nodes for name in node.input}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items() if name in used
    )
    inputs = [value for value in model.graph.input if value.name in used - values.keys()]
    if len(inputs) != 1:
        raise ValueError(f"the graph has {len(inputs)} inputs and not one")
    del model.graph.input[:], model.graph.value_info[:]
    model.graph.input.append(helper.make_tensor_value_info(inputs[0].name, TensorProto.FLOAT, list(input_shape)))
    for output in model.graph.output:
        for place, length in enumerate(output.type.tensor_type.shape.dim):
            length.dim_param = f"{output.name}_{place}"  # any length: it follows from the input's
    onnx.checker.check_model(model)
    return model


def float_weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return the float32 weights of a graph by name: what its model id is made of."""
    tensors = ((tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    return {name: value for name, value in tensors if value.dtype == np.float32}


def _computed(node: onnx.NodeProto, values: dict[str, Array]) -> bool:
    """Compute the node's output if all its inputs are known; returns whether it did."""
    if node.op_type not in {"DequantizeLinear", "Reshape"} or not all(name in values for name in node.input):
        return False
    inputs = [values[name] for name in node.input]
    if node.op_type == "Reshape":
        values[node.output[0]] = inputs[0].reshape(inputs[1].tolist())
    else:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        values[node.output[0]] = _dequantised(attributes, *inputs)
    return True


def _dequantised(
    attributes: Mapping[str, int], quantised: Array, scales: Array, zero_points: Array
) -> NDArray[np.float32]:
    axis, block = attributes.get("axis", _DEFAULT_AXIS), attributes.get("block_size", 0)

    def spread(each: Array) -> Array:
        if each.ndim == 0:
            return each
        if not block:
            return each.reshape([-1 if place == axis else 1 for place in range(quantised.ndim)])
        return np.repeat(each, block, axis=axis).take(range(quantised.shape[axis]), axis=axis)

    shifted = quantised.astype(np.float32) - spread(zero_points).astype(np.float32)
    return (shifted * spread(scales).astype(np.float32)).astype(np.float32)


def _keep_batch(node: onnx.NodeProto, values: dict[str, Array]) -> None:
    shape = values.get(node.input[1])
    if shape is not None and shape.size > 1 and shape[0] == 1:
        values[node.input[1]] = np.array([0, *shape[1:]], dtype=np.int64)


def least_agreement(published: onnx.ModelProto, converted: onnx.ModelProto) -> tuple[float, str]:
    """Return the least cosine between the outputs of both graphs for fixed inputs, and what ran the published one.

    OpenCV runs the published graph, by an importer that shares nothing with `unfolded`, and ONNX Runtime the converted
    one. Raises `BuildFailed` when they disagree.
    """
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    (source,), outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
    lengths = next(value for value in published.graph.input if value.name == source.name).type.tensor_type.shape.dim
    height, width = (length.dim_value or _FREE_SIDE for length in list(lengths)[2:])
    random = np.random.RandomState(2023)  # the legacy generator's stream never changes
    least, engine = 1.0, f"OpenCV {cv2.__version__}"
    try:
        network = cv2.dnn.readNetFromONNX(np.frombuffer(_with_one_input(published, source.name), dtype=np.uint8))
        for cells in (4, 16, 56):
            coarse = random.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
            image = cv2.resize(coarse, (width, height)).transpose(2, 0, 1)[np.newaxis]
            network.setInput(image)
            # All outputs as one vector: the scores of a picture without a face are nothing but noise.
            known, ours = (
                np.concatenate([np.ravel(output) for output in results]).astype(np.float64)
                for results in (network.forward(outputs), session.run(outputs, {source.name: image}))
            )
            least = min(least, float(known @ ours / (np.linalg.norm(known) * np.linalg.norm(ours))))
    except cv2.error as exc:
        raise BuildFailed(f"{engine} cannot run the published graph, so that it cannot be checked: {exc}") from exc
    if not least >= LEAST_COSINE:  # also when it is no number
        raise BuildFailed(f"the converted graph disagrees with the published one run by {engine}: cosine {least:.7f}")
    return least, engine


def _with_one_input(published: onnx.ModelProto, name: str) -> bytes:
    """Return the graph without the inputs that it declares and does not use, which OpenCV wants to be given."""
    model = onnx.ModelProto()
    model.CopyFrom(published)
    kept = [value for value in model.graph.input if value.name == name]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return bytes(model.SerializeToString())
