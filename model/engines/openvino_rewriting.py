"""Graphs rewritten before OpenVINO compiles them, so that less is computed for the same results."""

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

_IMAGE_RANK = 4


def channels_last(model: openvino.Model) -> openvino.Model:
    """Give every image that goes in or out its channels last, as OpenVINO computes anyway: nothing is reordered."""
    layouts = openvino.preprocess.PrePostProcessor(model)
    for side, ports in ((layouts.input, model.inputs), (layouts.output, model.outputs)):
        for index, port in enumerate(ports):
            if port.partial_shape.rank.get_length() == _IMAGE_RANK:
                side(index).model().set_layout(openvino.Layout("NCHW"))
                side(index).tensor().set_layout(openvino.Layout("NHWC"))
    return layouts.build()


def add_limit(model: openvino.Model, before: str) -> None:
    """Give the graph a second input, an upper limit for what goes into its only layer of the type `before`."""
    (layer,) = (node for node in model.get_ops() if node.get_type_name() == before)
    # Of full size: a limit without channels, spread over them, costs ten times as much.
    limit = opset13.parameter(layer.input_value(0).get_shape(), np.float32, name="limit")
    layer.input(0).replace_source_output(opset13.minimum(layer.input_value(0), limit).output(0))
    model.add_parameters([limit])


def join_heads(model: openvino.Model, plain: str, softmax: str) -> None:
    """Make one convolution, and one output, of the two that give the outputs `plain` and `softmax`.

    The channels are those of `plain`, then by how much the second input of the softmax exceeds its first.
    """
    plain_sum, softmax_sum = (model.output(name).get_node().input_value(0).get_node() for name in (plain, softmax))
    softmax_sum = softmax_sum.input_value(0).get_node()
    (kernel, bias), (pair, pair_bias) = (_weights(node) for node in (plain_sum, softmax_sum))
    features = plain_sum.input_value(0).get_node().input_value(0)
    kernels = np.concatenate([kernel, pair[1:] - pair[:1]])
    biases = np.concatenate([bias, pair_bias[:, 1:] - pair_bias[:, :1]], axis=1)
    joined = opset13.add(opset13.convolution(features, kernels, [1, 1], [0, 0], [0, 0], [1, 1]), biases)
    for result in model.get_results():
        model.remove_result(result)
    model.add_results([opset13.result(joined)])


def _weights(node: openvino.Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel (outputs, inputs, 1, 1) and bias (1, outputs, 1, 1) of a convolution followed by an addition."""
    return _constant(node.input_value(0).get_node().input_value(1)), _constant(node.input_value(1)).reshape(1, -1, 1, 1)


def _constant(port: openvino.Output) -> NDArray[np.float32]:
    node = port.get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    values: NDArray[np.float32] = node.data
    return values
