"""Model artefacts in a bucket: one machine builds and pushes a model, every instance pulls it at its boot.

`models/<model id>/` has `model.json`, and the graphs under the hashes of their content: a push never changes what a
pull is reading. `models/current.json` names the model in use and is written last. `facerec.engine.migration` adds
`models/migration.json`.
"""

import json
from pathlib import Path

from facerec.errors import ConfigurationError, ObjectMissing
from facerec.ports import ObjectStore
from model.artefact import (
    HEADER,
    Artefact,
    ArtefactError,
    ArtefactInvalid,
    FileStamp,
    OnProgress,
    file_sha256,
    silent,
    staged,
)

CURRENT = "models/current.json"
_JSON, _BINARY = "application/json", "application/octet-stream"


def push(
    store: ObjectStore, bucket: str, artefact: Artefact, on_progress: OnProgress = silent, *, current: bool = True
) -> int:
    """Upload the files that the bucket lacks, and make this model the current one if asked; returns the bytes sent.

    Idempotent. Raises `ArtefactInvalid` for a damaged artefact, before anything is sent, and the store's errors.
    """
    artefact.verify()
    sent = 0
    for name, stamp in artefact.files.items():
        key = _graph_key(artefact.model_id, name, stamp)
        if store.exists(bucket, key):
            on_progress(f"{name} is there already", 1.0)
            continue
        on_progress(f"sending {name} ({stamp.size_bytes / 1e6:.1f} MB)", None)
        store.put(bucket, key, artefact.path(name).read_bytes(), _BINARY)
        sent += stamp.size_bytes
    store.put(bucket, _header_key(artefact.model_id), (artefact.directory / HEADER).read_bytes(), _JSON)
    if current:
        set_current(store, bucket, artefact.model_id)
    return sent


def set_current(store: ObjectStore, bucket: str, model_id: str) -> None:
    """Make a pushed model the current one."""
    store.put(bucket, CURRENT, json.dumps({"model_id": model_id}).encode(), _JSON)


def pull(
    store: ObjectStore, bucket: str, directory: Path, model_id: str | None = None, on_progress: OnProgress = silent
) -> Artefact:
    """Fetch the current or the named model into the directory and return it verified.

    Intact graphs in the directory are kept; a complete model is not touched; any other is replaced whole or not at all.
    Raises `ConfigurationError` if the bucket has no such model or a damaged one, `BuildFailed` if the directory holds
    other files, and the store's errors.
    """
    wanted = model_id or current_model(store, bucket)
    header = _fetch(store, bucket, _header_key(wanted), f"there is no model {wanted!r} in bucket {bucket!r}")
    try:
        artefact = Artefact.parse(header.decode("utf-8", errors="replace"), directory)
    except ArtefactInvalid as exc:
        raise ConfigurationError(f"model {wanted!r} in bucket {bucket!r} cannot be used, {exc.reason}") from exc
    if _complete(directory, header):
        on_progress("the model is there already and intact", 1.0)
        return Artefact.load(directory)
    with staged(directory) as stage:
        for name, stamp in artefact.files.items():
            (stage / name).write_bytes(_graph(store, bucket, artefact, name, on_progress))
            if FileStamp.of(stage / name) != stamp:
                raise ConfigurationError(f"{name} of model {wanted!r} in bucket {bucket!r} is damaged: push it again")
        (stage / HEADER).write_bytes(header)
    return Artefact.load(directory)


def _graph(store: ObjectStore, bucket: str, artefact: Artefact, name: str, on_progress: OnProgress) -> bytes:
    """Return a graph from the directory if it is intact there, and from the bucket otherwise."""
    local, stamp = artefact.directory / name, artefact.files[name]
    if local.is_file() and file_sha256(local) == stamp.sha256:
        on_progress(f"{name} is there already", 1.0)
        return local.read_bytes()
    on_progress(f"fetching {name} ({stamp.size_bytes / 1e6:.1f} MB)", None)
    missing = f"{name} of model {artefact.model_id!r} is missing in bucket {bucket!r}"
    return _fetch(store, bucket, _graph_key(artefact.model_id, name, stamp), missing)


def _complete(directory: Path, header: bytes) -> bool:
    try:
        Artefact.load(directory).verify()
    except ArtefactError:
        return False
    return (directory / HEADER).read_bytes() == header


def current_model(store: ObjectStore, bucket: str) -> str:
    """Return the id of the current model; raises `ConfigurationError` if there is none."""
    pointer = _fetch(store, bucket, CURRENT, f"bucket {bucket!r} holds no model")
    try:
        return str(json.loads(pointer)["model_id"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ConfigurationError(f"{CURRENT} in bucket {bucket!r} is damaged: push a model again") from exc


def _fetch(store: ObjectStore, bucket: str, key: str, missing: str) -> bytes:
    try:
        return store.get(bucket, key)
    except ObjectMissing as exc:
        raise ConfigurationError(f"{missing}: run `facerec model push` where the model was built") from exc


def _header_key(model_id: str) -> str:
    return f"models/{model_id}/{HEADER}"


def _graph_key(model_id: str, name: str, stamp: FileStamp) -> str:
    return f"models/{model_id}/{stamp.sha256}/{name}"
