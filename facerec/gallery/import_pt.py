"""Galleries of facenet-pytorch scripts: one `data.pt` with a list of embeddings and a list of their names."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.errors import ConfigurationError
from facerec.gallery.archive import InvalidArchive
from facerec.gallery.enrolment import template_id
from facerec.gallery.names import InvalidName, valid_identity
from facerec.object_keys import base_name
from facerec.ports import DamagedTemplate, Template


def read_pair(path: Path) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Read `[embeddings, names]` as torch saved it; code in the file is not executed (`weights_only`).

    Raises `ConfigurationError` without torch, and `InvalidArchive` for anything but such a pair.
    """
    try:
        import torch  # noqa: PLC0415 - only this command needs it
    except ImportError as exc:
        raise ConfigurationError(
            f"reading {path} needs torch: run `make install-reference`, or `pip install '.[export]'`"
        ) from exc
    try:
        match torch.load(path, map_location="cpu", weights_only=True):
            case [list(tensors), list(names)] if all(isinstance(tensor, torch.Tensor) for tensor in tensors):
                return [tensor.detach().to(torch.float32).numpy() for tensor in tensors], names
    except Exception as exc:  # torch raises errors of a dozen types for damaged files, and for sparse tensors
        raise InvalidArchive(path, f"torch does not read it as a file of tensors ({type(exc).__name__})") from exc
    raise InvalidArchive(path, "it must hold a list of embeddings and a list of names")


def templates_of_pair(
    path: Path,
    embeddings: Sequence[NDArray[np.float32]],
    names: Sequence[object],
    *,
    collection: str,
    model_id: str,
    dimension: int,
    now: datetime,
    damaged: list[DamagedTemplate],
    exact_names: bool = False,
) -> list[Template]:
    """Return normalised templates without photos for embeddings (1, D) or (D,) and their names; D is `dimension`.

    The id is made from the embedding's bytes instead of a photo's, so that a second import changes nothing. Wrong
    entries are appended to `damaged`; raises `InvalidArchive` if no entry is right.
    """
    if len(embeddings) != len(names):
        raise InvalidArchive(path, f"it holds {len(embeddings)} embeddings and {len(names)} names")
    templates = []
    wrong = []
    for number, (embedding, name) in enumerate(zip(embeddings, names, strict=True), start=1):
        try:
            identity = _identity(name, exact=exact_names)
            normalised = _normalised(embedding, dimension)
        except ValueError as exc:
            wrong.append(DamagedTemplate(f"entry {number}", str(exc)))
            continue
        templates.append(
            Template(
                template_id=template_id(collection, model_id, normalised.astype("<f4").tobytes()),
                collection=collection,
                identity=identity,
                model_id=model_id,
                embedding=normalised,
                source=base_name(path.name),
                photo=None,
                probability=1.0,  # the file does not contain it
                enrolled_at=now,
            )
        )
    if wrong and not templates:
        raise InvalidArchive(path, f"no entry can be used; {wrong[0].template_id}: {wrong[0].reason}")
    damaged += wrong
    return templates


def _identity(name: object, *, exact: bool) -> str:
    if not isinstance(name, str):
        raise ValueError("its name is no text")  # noqa: TRY004 - the caller reports it with the wrong values
    try:
        return valid_identity(name, exact=exact)
    except InvalidName as exc:
        raise ValueError(str(exc)) from exc


def _normalised(embedding: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    if embedding.shape not in {(dimension,), (1, dimension)}:
        raise ValueError(
            f"its embedding has the shape {embedding.shape}, and those of the model in use have (1, {dimension}): it "
            "was made with another model"
        )
    vector = embedding.reshape(dimension).astype(np.float64)
    length = np.linalg.norm(vector)
    if not np.isfinite(length) or length == 0:
        raise ValueError("its embedding has no direction (zero, infinite or not a number)")
    normalised: NDArray[np.float32] = (vector / length).astype(np.float32)
    return normalised
