"""The embedder as an ONNX graph, composed by walking facenet-pytorch's own `InceptionResnetV1`.

Strides, paddings, scales and wiring are read off the module; batch norms vanish into the convolutions. The graph is
composed instead of traced, so that it depends on the network alone and not on an exporter's version, and a test can
compare the committed structure byte for byte. `python -m model.export.embedder` writes `model/graphs/embedder.onnx`
anew (needs torch and facenet-pytorch, the `export` extra).
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models import inception_resnet_v1 as reference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artefact import BuildFailed
from model.packs.facenet_weights import STRUCTURE

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.10
IMAGE_SIZE = 160
SMALLEST_NORM = 1e-12  # of torch.nn.functional.normalize
ENGINE = f"torch {torch.__version__}"


class _Composer:
    """Appends one operation per call and returns the name of its output; `crops` is the graph's input."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def operation(self, kind: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{name}.output"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **attributes))
        return output

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        self.initializers.append(TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT))
        return name

    def constant(self, name: str, value: float) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
        return name

    def layers(self, name: str, module: Any, source: str) -> str:
        """Dispatch on the kind of module, as `torch.nn.Sequential` would call it."""
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
        # In the order of declaration, which is the order that the reference concatenates in.
        children = [(child, part) for child, part in module.named_children() if child.startswith("branch")]
        return [self.layers(f"{name}.{child}", part, source) for child, part in children]

    def residual(self, name: str, module: Any, source: str) -> str:
        joined = self.operation("Concat", f"{name}.cat", *self.branches(name, module, source), axis=1)
        update = self.convolution(f"{name}.conv2d", module.conv2d, joined)
        if module.scale != 1.0:
            update = self.operation("Mul", f"{name}.mul", update, self.constant(f"{name}.scale", module.scale))
        added = self.operation("Add", f"{name}.add", update, source)
        return added if getattr(module, "noReLU", False) else self.operation("Relu", f"{name}.relu", added)


def structure() -> onnx.ModelProto:
    """Return the graph without weights: crops float32 [N, 3, 160, 160] → embeddings float32 [N, 512] of length 1.

    Crops are RGB, preprocessed as (value - 127.5) / 128.
    """
    network = InceptionResnetV1(classify=False)
    composer = _Composer()
    source = "crops"
    for name, module in network.named_children():
        if name == "avgpool_1a":
            break
        source = composer.layers(name, module, source)
    source = composer.operation("GlobalAveragePool", "avgpool_1a", source)
    source = composer.operation("Flatten", "flatten", source, axis=1)
    weight = composer.weight("last_linear.weight", tuple(network.last_linear.weight.shape))
    bias = composer.weight("last_linear.bias", (network.last_linear.out_features,))
    features = composer.operation("Gemm", "last_linear", source, weight, bias, transB=1)
    norm = composer.operation("ReduceL2", "norm", features, axes=[1], keepdims=1)
    floor = composer.constant("normalize.smallest", SMALLEST_NORM)
    norm = composer.operation("Max", "normalize.max", norm, floor)
    composer.operation("Div", "normalize", features, norm, output="embeddings")
    graph = helper.make_graph(
        composer.nodes,
        "embedder",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", 3, IMAGE_SIZE, IMAGE_SIZE])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", network.last_linear.out_features])],
        composer.initializers,
    )
    return helper.make_model(
        graph, producer_name="facerec", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )


def load_published(name: str) -> tuple[InceptionResnetV1, Path]:
    """Return the network with the weights `vggface2`, and the file they are cached in.

    facenet-pytorch itself downloads them, once. Raises `BuildFailed` that says what to do without internet.
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
    """Return the network with the state dict in a file; it is read as tensors only, code in it is not run.

    A classifier on top (`logits.*`) is left out. Raises `BuildFailed` that says what is wrong with the file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as exc:
        raise BuildFailed(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:  # torch's reader raises whatever its stack machine stumbles over
        raise BuildFailed(f"{path} is damaged, or holds more than a state dict saved by torch") from exc
    network = InceptionResnetV1(classify=False)
    try:
        network.load_state_dict({key: value for key, value in state.items() if not key.startswith("logits.")})
    except (AttributeError, RuntimeError) as exc:
        raise BuildFailed(f"{path} holds no state dict of facenet-pytorch's InceptionResnetV1") from exc
    return network.eval()


def embed(network: InceptionResnetV1, crops: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network itself makes of preprocessed crops [N, 3, 160, 160]: embeddings [N, 512]."""
    with torch.inference_mode():
        embeddings: NDArray[np.float32] = network(torch.from_numpy(crops)).numpy()
    return embeddings


def arrays(network: InceptionResnetV1) -> dict[str, NDArray[np.float32]]:
    """Return the float tensors of the network's state dict as float32 arrays; integer counters are left out."""
    return {
        name: tensor.to(torch.float32).numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


if __name__ == "__main__":
    STRUCTURE.write_bytes(structure().SerializeToString(deterministic=True))
