"""facenet-pytorch's networks as ONNX graphs, and its published weights; needs the `export` extra (torch).

The graphs are composed node by node instead of traced: the files then depend only on the networks, not on an
exporter's version, and tests compare the committed files byte for byte. `python -m model.export` writes
`model/graphs/*.onnx`: MTCNN's three networks with their weights, and the embedder's structure without.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import facenet_pytorch
import numpy as np
import onnx
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models import inception_resnet_v1 as reference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artefact import BuildFailed
from model.packs.catalogue import OWN_GRAPHS, STRUCTURE

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.10
IMAGE_SIZE = 160
SMALLEST_NORM = 1e-12  # of torch.nn.functional.normalize
ENGINE = f"torch {torch.__version__}"

Array = NDArray[np.float32]
Shape = list[str | int]


class _Graph:
    """A graph under construction; each method that adds a node returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def operation(self, kind: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{name}.output"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **attributes))
        return output

    def constant(self, name: str, value: Array | float) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32, order="C"), name))
        return name

    def model(self, name: str, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> onnx.ModelProto:
        takes, gives = (
            [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape) for value, shape in side.items()]
            for side in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, takes, gives, self.initializers)
        return helper.make_model(
            graph, producer_name="facerec", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )


class _ExportedDetection(_Graph):
    """One of MTCNN's networks; a layer reads the layer before it unless `source` names another."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__()
        self._weights = weights
        self.last = "image"

    def operation(self, kind: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        self.last = super().operation(kind, name, *inputs, output=output, **attributes)
        return self.last

    def _parameters(self, layer: str) -> list[str]:
        return [self.constant(key, self._weights[key]) for key in (f"{layer}.weight", f"{layer}.bias")]

    def conv(self, layer: str, *, source: str = "", output: str = "") -> str:
        kernel = list(self._weights[f"{layer}.weight"].shape[2:])
        inputs = [source or self.last, *self._parameters(layer)]
        return self.operation("Conv", layer, *inputs, output=output, kernel_shape=kernel)

    def dense(self, layer: str, *, source: str = "", output: str = "") -> str:
        inputs = [source or self.last, *self._parameters(layer)]
        return self.operation("Gemm", layer, *inputs, output=output, transB=1)

    def prelu(self, layer: str, *, spatial: bool) -> str:
        slope = self._weights[f"{layer}.weight"]
        name = self.constant(f"{layer}.weight", slope.reshape(-1, 1, 1) if spatial else slope)
        return self.operation("PRelu", layer, self.last, name)

    def pool(self, layer: str, size: int) -> None:
        # Torch's ceil_mode: the last window may reach over the edge.
        self.operation("MaxPool", layer, self.last, kernel_shape=[size, size], strides=[2, 2], ceil_mode=1)

    def flatten(self) -> None:
        # The dense weights were ported from a framework that stores pictures column by column.
        self.operation("Transpose", "columns", self.last, perm=[0, 3, 2, 1])
        self.operation("Flatten", "flatten", self.last, axis=1)

    def softmax(self, layer: str, source: str, output: str) -> None:
        self.operation("Softmax", layer, source, output=output, axis=1)


def proposal_network(weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Return P-Net: image float32 [N, 3, H, W] → regression [N, 4, h, w], probability [N, 2, h, w]; H, W ≥ 12."""
    graph = _ExportedDetection(weights)
    graph.conv("conv1")
    graph.prelu("prelu1", spatial=True)
    graph.pool("pool1", 2)
    for number in (2, 3):
        graph.conv(f"conv{number}")
        graph.prelu(f"prelu{number}", spatial=True)
    features = graph.last
    graph.softmax("softmax4_1", graph.conv("conv4_1", source=features), "probability")
    graph.conv("conv4_2", source=features, output="regression")
    cells: Shape = ["rows", "columns"]
    outputs: dict[str, Shape] = {"regression": ["n", 4, *cells], "probability": ["n", 2, *cells]}
    return graph.model("pnet", {"image": ["n", 3, "height", "width"]}, outputs)


def refinement_network(weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Return R-Net: image float32 [N, 3, 24, 24] → regression [N, 4], probability [N, 2]."""
    graph = _ExportedDetection(weights)
    for number in (1, 2):
        graph.conv(f"conv{number}")
        graph.prelu(f"prelu{number}", spatial=True)
        graph.pool(f"pool{number}", 3)
    graph.conv("conv3")
    graph.prelu("prelu3", spatial=True)
    graph.flatten()
    graph.dense("dense4")
    features = graph.prelu("prelu4", spatial=False)
    graph.softmax("softmax5_1", graph.dense("dense5_1", source=features), "probability")
    graph.dense("dense5_2", source=features, output="regression")
    return graph.model("rnet", {"image": ["n", 3, 24, 24]}, {"regression": ["n", 4], "probability": ["n", 2]})


def output_network(weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Return O-Net: image float32 [N, 3, 48, 48] → regression [N, 4], landmarks [N, 10], probability [N, 2]."""
    graph = _ExportedDetection(weights)
    for number, pool in ((1, 3), (2, 3), (3, 2)):
        graph.conv(f"conv{number}")
        graph.prelu(f"prelu{number}", spatial=True)
        graph.pool(f"pool{number}", pool)
    graph.conv("conv4")
    graph.prelu("prelu4", spatial=True)
    graph.flatten()
    graph.dense("dense5")
    features = graph.prelu("prelu5", spatial=False)
    graph.softmax("softmax6_1", graph.dense("dense6_1", source=features), "probability")
    graph.dense("dense6_2", source=features, output="regression")
    graph.dense("dense6_3", source=features, output="landmarks")
    outputs: dict[str, Shape] = {"regression": ["n", 4], "landmarks": ["n", 10], "probability": ["n", 2]}
    return graph.model("onet", {"image": ["n", 3, 48, 48]}, outputs)


def detection_graphs() -> dict[str, bytes]:
    """Return MTCNN's three serialised graphs by file name, with the weights of the installed facenet-pytorch."""
    networks = {"pnet": proposal_network, "rnet": refinement_network, "onet": output_network}
    graphs = {}
    for name, network in networks.items():
        path = Path(facenet_pytorch.__file__).parent / "data" / f"{name}.pt"
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = network({key: tensor.numpy() for key, tensor in state.items()})
        onnx.checker.check_model(model, full_check=True)
        graphs[f"{name}.onnx"] = model.SerializeToString(deterministic=True)
    return graphs


class _Embedder(_Graph):
    """The embedder, composed by walking facenet-pytorch's modules: strides, paddings, scales and wiring are theirs."""

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Add a parameter without a value."""
        self.initializers.append(TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT))
        return name

    def layers(self, name: str, module: Any, source: str) -> str:
        """Add any module of the network."""
        match module:
            case torch.nn.Sequential():
                for index, part in enumerate(module):
                    source = self.layers(f"{name}.{index}", part, source)
                return source
            case reference.BasicConv2d():
                return self.operation("Relu", f"{name}.relu", self.convolution(name, module.conv, source))
            case torch.nn.MaxPool2d():
                size, stride = module.kernel_size, module.stride
                return self.operation("MaxPool", name, source, kernel_shape=[size, size], strides=[stride, stride])
            case reference.Block35() | reference.Block17() | reference.Block8():
                return self.residual(name, module, source)
            case reference.Mixed_6a() | reference.Mixed_7a():
                return self.operation("Concat", f"{name}.cat", *self.branches(name, module, source), axis=1)
        raise TypeError(f"{name} is a {type(module).__name__}, which this network does not have")

    def convolution(self, name: str, module: torch.nn.Conv2d, source: str) -> str:
        """Add a convolution with a bias, into which the batch norm behind it will be folded."""
        pads = [int(side) for side in module.padding]
        return self.operation(
            "Conv",
            name,
            source,
            self.weight(f"{name}.weight", tuple(module.weight.shape)),
            self.weight(f"{name}.bias", (module.out_channels,)),
            kernel_shape=list(module.kernel_size),
            pads=[*pads, *pads],
            strides=list(module.stride),
        )

    def branches(self, name: str, module: Any, source: str) -> list[str]:
        # In the order of declaration, in which the reference concatenates them.
        children = [(child, part) for child, part in module.named_children() if child.startswith("branch")]
        return [self.layers(f"{name}.{child}", part, source) for child, part in children]

    def residual(self, name: str, module: Any, source: str) -> str:
        joined = self.operation("Concat", f"{name}.cat", *self.branches(name, module, source), axis=1)
        update = self.convolution(f"{name}.conv2d", module.conv2d, joined)
        if module.scale != 1.0:
            scale = self.constant(f"{name}.scale", module.scale)
            update = self.operation("Mul", f"{name}.mul", update, scale)
        added = self.operation("Add", f"{name}.add", update, source)
        return added if getattr(module, "noReLU", False) else self.operation("Relu", f"{name}.relu", added)


def embedder_structure() -> onnx.ModelProto:
    """Return the embedder without weights: crops float32 [N, 3, 160, 160] → embeddings float32 [N, 512] of length 1.

    Crops are RGB, preprocessed as (value - 127.5) / 128.
    """
    network = InceptionResnetV1(classify=False)
    graph = _Embedder()
    source = "crops"
    for name, module in network.named_children():
        if name == "avgpool_1a":
            break
        source = graph.layers(name, module, source)
    source = graph.operation("GlobalAveragePool", "avgpool_1a", source)
    source = graph.operation("Flatten", "flatten", source, axis=1)
    dimension = network.last_linear.out_features
    weight = graph.weight("last_linear.weight", tuple(network.last_linear.weight.shape))
    bias = graph.weight("last_linear.bias", (dimension,))
    features = graph.operation("Gemm", "last_linear", source, weight, bias, transB=1)
    norm = graph.operation("ReduceL2", "norm", features, axes=[1], keepdims=1)
    floor = graph.constant("normalize.smallest", SMALLEST_NORM)
    norm = graph.operation("Max", "normalize.max", norm, floor)
    graph.operation("Div", "normalize", features, norm, output="embeddings")
    return graph.model("embedder", {"crops": ["n", 3, IMAGE_SIZE, IMAGE_SIZE]}, {"embeddings": ["n", dimension]})


def load_published(name: str) -> tuple[InceptionResnetV1, Path]:
    """Return the network with the weights `vggface2`, and the file in which facenet-pytorch caches its download.

    Raises `BuildFailed` if the download fails.
    """
    try:
        network = InceptionResnetV1(pretrained=name, classify=False)
    except OSError as exc:
        raise BuildFailed(
            f"facenet-pytorch could not download the weights {name} ({exc}): on a machine with internet, download the "
            f"file ending in {name}.pt from release v2.2.9 of timesler/facenet-pytorch on GitHub, bring it here, and "
            "run `facerec model build --pack classic --weights FILE`"
        ) from exc
    folder = Path(reference.get_torch_home()) / "checkpoints"
    return network.eval(), next(folder.glob(f"*-{name}.pt"))


def load_file(path: Path) -> InceptionResnetV1:
    """Return the network with the state dict in a file, which is read as tensors only: code in it is not run.

    A classifier (`logits.*`) is left out. Raises `BuildFailed`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as exc:
        raise BuildFailed(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:  # torch raises errors of many types for damaged files
        raise BuildFailed(f"{path} is damaged, or holds more than a state dict saved by torch") from exc
    network = InceptionResnetV1(classify=False)
    try:
        network.load_state_dict({key: value for key, value in state.items() if not key.startswith("logits.")})
    except (AttributeError, RuntimeError) as exc:
        raise BuildFailed(f"{path} holds no state dict of facenet-pytorch's InceptionResnetV1") from exc
    return network.eval()


def embed(network: InceptionResnetV1, crops: Array) -> Array:
    """Return the network's embeddings [N, 512] of preprocessed crops [N, 3, 160, 160]."""
    with torch.inference_mode():
        embeddings: Array = network(torch.from_numpy(crops)).numpy()
    return embeddings


def arrays(network: InceptionResnetV1) -> dict[str, Array]:
    """Return the float tensors of the network's state dict as float32 arrays; integer counters are left out."""
    return {
        name: tensor.to(torch.float32).numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


if __name__ == "__main__":
    for file_name, content in detection_graphs().items():
        (OWN_GRAPHS / file_name).write_bytes(content)
    STRUCTURE.write_bytes(embedder_structure().SerializeToString(deterministic=True))
