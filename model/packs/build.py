"""Builds a pack's artefact: published weights, fetched by hash, converted into graphs that run, and checked."""

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
    OnProgress,
    check_replaceable,
    file_sha256,
    silent,
    staged,
)
from model.packs import Pack
from model.packs.catalogue import CASIA, OWN_GRAPHS, VGGFACE2

BUILDER_VERSION = 2
"""Increase it when the same inputs give another artefact, so that older artefacts are built again."""


def build(
    pack: Pack,
    *,
    output: Path,
    cache: Path,
    weights: str | None = None,
    on_progress: OnProgress = silent,
    force: bool = False,
) -> Artefact:
    """Return the pack's artefact in `output`; build it unless an intact one of the same inputs exists.

    `weights` replaces the weights of the pack `classic`: `vggface2`, or the path of a state dict for facenet-pytorch's
    `InceptionResnetV1`. `cache` keeps downloads. The artefact appears whole or not at all, and the same weights give
    the same model id on every machine. Raises `BuildFailed`.
    """
    if weights is not None and pack.name != "classic":
        raise BuildFailed(f"other weights go with the pack classic, not with {pack.name}: add `--pack classic`")
    if weights is not None and weights not in {CASIA, VGGFACE2} and not Path(weights).is_file():
        raise BuildFailed(f"there are no weights {weights!r}: choose {CASIA}, {VGGFACE2}, or the path of a file")
    check_replaceable(output)
    inputs = inputs_sha256(pack, weights)
    if not force and (present := _present(output, inputs, on_progress)):
        return present
    try:
        from model.packs.graphs import built_graphs  # noqa: PLC0415 - a second build needs no onnx
    except ModuleNotFoundError as exc:
        raise BuildFailed(
            f"{exc.name} is missing, which building the model needs: run `make install` or "
            "`pip install '.[build]'`, or fetch a built model with `facerec model pull`"
        ) from exc
    built = built_graphs(pack, weights or CASIA, cache, on_progress)
    on_progress("writing the model", None)
    description = pack.description()
    description["impostor_tail"]["calibrated"] = built.calibrated
    try:
        with staged(output) as stage:
            for name, graph in built.graphs.items():
                (stage / name).write_bytes(graph.SerializeToString(deterministic=True))
            header = {
                "schema": SCHEMA,
                "model_id": built.model_id,
                **description,
                "weights": built.weights,
                "check": {"engine": built.checked_with, "least_cosine": round(built.min_cosine, 9)},
                "files": {name: vars(FileStamp.of(stage / name)) for name in built.graphs},
                "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "builder": {"version": BUILDER_VERSION, "inputs_sha256": inputs},
            }
            (stage / HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    except OSError as exc:
        raise BuildFailed(f"the model could not be written to {output} ({exc.strerror or exc})") from exc
    return Artefact.load(output)


def inputs_sha256(pack: Pack, weights: str | None = None) -> str:
    """Return the sha256 over everything that decides the artefact: weights, committed graphs, description, builder.

    The weights `vggface2` are identified by name, because facenet-pytorch publishes one file under it.
    """
    inputs: dict[str, Any] = {
        "builder": BUILDER_VERSION,
        "description": pack.description(),
        "graphs": {name: file_sha256(OWN_GRAPHS / name) for name in pack.own_files},
    }
    if weights is not None and weights != CASIA:
        inputs["weights"] = weights if weights == VGGFACE2 else [Path(weights).name, file_sha256(Path(weights))]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _present(output: Path, inputs: str, on_progress: OnProgress) -> Artefact | None:
    """Return the artefact in the directory if it is intact and was made of the same inputs."""
    try:
        artefact = Artefact.load(output)
        if artefact.header.get("builder") != {"version": BUILDER_VERSION, "inputs_sha256": inputs}:
            return None
        on_progress("checking the model that is there", None)
        artefact.verify()
    except ArtefactError:
        return None
    on_progress("the model is there already, intact and built from the same inputs", 1.0)
    return artefact
