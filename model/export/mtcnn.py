"""MTCNN's three networks as ONNX graphs, written node by node from facenet-pytorch's published weights.

The graphs are composed by hand instead of traced: the files then depend on the weights alone, not on the
version of an exporter, so that a test can compare the committed ones byte for byte. Run
`python -m model.export.mtcnn` to write `model/graphs/{pnet,rnet,onet}.onnx` anew (needs torch and facenet-pytorch).
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

GRAPHS = Path(__file__).resolve().parent.parent / "graphs"
OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.10

Weights = Mapping[str, NDArray[np.float32]]


class _Chain:
    """A graph under construction: each call appends a layer that reads the one before it."""

    def __init__(self, name: str, weights: Weights, image_shape: list[str | int]) -> None:
        self._name = name
        self._weights = weights
        self._input = helper.make_tensor_value_info("image", TensorProto.FLOAT, image_shape)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self.last = "image"

    def _append(self, op: str, layer: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        self.last = output or f"{layer}.output"
        self._nodes.append(helper.make_node(op, inputs, [self.last], name=layer, **attributes))
        return self.last

    def _initializer(self, name: str, value: NDArray[np.float32]) -> str:
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def _parameters(self, layer: str) -> list[str]:
        return [self._initializer(key, self._weights[key]) for key in (f"{layer}.weight", f"{layer}.bias")]

    def conv(self, layer: str, *, source: str = "", output: str = "") -> str:
        kernel = self._weights[f"{layer}.weight"].shape[2:]
        inputs = [source or self.last, *self._parameters(layer)]
        return self._append("Conv", layer, inputs, output=output, kernel_shape=list(kernel))

    def dense(self, layer: str, *, source: str = "", output: str = "") -> str:
        inputs = [source or self.last, *self._parameters(layer)]
        return self._append("Gemm", layer, inputs, output=output, transB=1)

    def prelu(self, layer: str, *, spatial: bool) -> str:
        slope = self._weights[f"{layer}.weight"]
        name = self._initializer(f"{layer}.weight", slope.reshape(-1, 1, 1) if spatial else slope)
        return self._append("PRelu", layer, [self.last, name])

    def pool(self, layer: str, size: int) -> str:
        # Torch's ceil_mode: the last window may hang over the edge.
        return self._append("MaxPool", layer, [self.last], kernel_shape=[size, size], strides=[2, 2], ceil_mode=1)

    def flatten(self) -> str:
        # The dense weights were ported from a framework that stores pictures column by column.
        self._append("Transpose", "columns", [self.last], perm=[0, 3, 2, 1])
        return self._append("Flatten", "flatten", [self.last], axis=1)

    def softmax(self, layer: str, source: str, output: str) -> str:
        return self._append("Softmax", layer, [source], output=output, axis=1)

    def output(self, name: str, shape: list[str | int]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, self._name, [self._input], self._outputs, self._initializers)
        model = helper.make_model(
            graph, producer_name="facerec", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def proposal_network(weights: Weights) -> onnx.ModelProto:
    """Return P-Net: image float32 [N, 3, H, W] → regression [N, 4, h, w], probability [N, 2, h, w]; H, W ≥ 12."""
    chain = _Chain("pnet", weights, ["n", 3, "height", "width"])
    chain.conv("conv1")
    chain.prelu("prelu1", spatial=True)
    chain.pool("pool1", 2)
    for number in (2, 3):
        chain.conv(f"conv{number}")
        chain.prelu(f"prelu{number}", spatial=True)
    features = chain.last
    chain.softmax("softmax4_1", chain.conv("conv4_1", source=features), "probability")
    chain.conv("conv4_2", source=features, output="regression")
    chain.output("regression", ["n", 4, "rows", "columns"])
    chain.output("probability", ["n", 2, "rows", "columns"])
    return chain.model()


def refinement_network(weights: Weights) -> onnx.ModelProto:
    """Return R-Net: image float32 [N, 3, 24, 24] → regression [N, 4], probability [N, 2]."""
    chain = _Chain("rnet", weights, ["n", 3, 24, 24])
    for number in (1, 2):
        chain.conv(f"conv{number}")
        chain.prelu(f"prelu{number}", spatial=True)
        chain.pool(f"pool{number}", 3)
    chain.conv("conv3")
    chain.prelu("prelu3", spatial=True)
    chain.flatten()
    chain.dense("dense4")
    features = chain.prelu("prelu4", spatial=False)
    chain.softmax("softmax5_1", chain.dense("dense5_1", source=features), "probability")
    chain.dense("dense5_2", source=features, output="regression")
    chain.output("regression", ["n", 4])
    chain.output("probability", ["n", 2])
    return chain.model()


def output_network(weights: Weights) -> onnx.ModelProto:
    """Return O-Net: image float32 [N, 3, 48, 48] → regression [N, 4], landmarks [N, 10], probability [N, 2]."""
    chain = _Chain("onet", weights, ["n", 3, 48, 48])
    for number, pool in ((1, 3), (2, 3), (3, 2)):
        chain.conv(f"conv{number}")
        chain.prelu(f"prelu{number}", spatial=True)
        chain.pool(f"pool{number}", pool)
    chain.conv("conv4")
    chain.prelu("prelu4", spatial=True)
    chain.flatten()
    chain.dense("dense5")
    features = chain.prelu("prelu5", spatial=False)
    chain.softmax("softmax6_1", chain.dense("dense6_1", source=features), "probability")
    chain.dense("dense6_2", source=features, output="regression")
    chain.dense("dense6_3", source=features, output="landmarks")
    chain.output("regression", ["n", 4])
    chain.output("landmarks", ["n", 10])
    chain.output("probability", ["n", 2])
    return chain.model()


def published_weights(name: str) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of `pnet`, `rnet` or `onet` as the installed facenet-pytorch ships them.

    Raises ModuleNotFoundError without torch or facenet-pytorch (the `export` extra).
    """
    import torch  # noqa: PLC0415 - only regeneration needs it; reading this module must not

    package = importlib.util.find_spec("facenet_pytorch")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("facenet-pytorch is missing: install the `export` extra")
    state = torch.load(Path(package.origin).parent / "data" / f"{name}.pt", map_location="cpu", weights_only=True)
    return {key: tensor.numpy() for key, tensor in state.items()}


def build() -> dict[str, bytes]:
    """Return the three serialised graphs by file name; the same weights always give the same bytes."""
    networks = {"pnet": proposal_network, "rnet": refinement_network, "onet": output_network}
    return {
        f"{name}.onnx": network(published_weights(name)).SerializeToString(deterministic=True)
        for name, network in networks.items()
    }


if __name__ == "__main__":
    for file_name, content in build().items():
        (GRAPHS / file_name).write_bytes(content)
