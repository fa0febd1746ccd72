"""Damaged templates: the one check of everything that reads or writes templates.

A damaged template is left out, with its id and a reason, and never stops a reader of the others. `facerec gallery
remove --template ID` removes it.
"""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from facerec.errors import FacerecError
from facerec.ports import DamagedTemplate, Template
from model.index.norms import NORM_TOLERANCE, normalised

MAX_DIMENSION = 1024
"""More than a face embedder has."""
_SHOWN = 10  # ids in a log record


class UnusableTemplate(FacerecError):
    """The template would be left out by every reader, and is not stored."""


def separate(
    templates: Sequence[Template], dimension: int | None = None
) -> tuple[list[Template], NDArray[np.float32], list[DamagedTemplate]]:
    """Separate templates of one model; returns the usable ones, their embeddings (N, D), and the damaged ones.

    `dimension` is that of the model; without it the one that most templates have, up to `MAX_DIMENSION`.
    """
    if dimension is None:
        sizes = Counter(t.embedding.size for t in templates if 0 < t.embedding.size <= MAX_DIMENSION)
        dimension = sizes.most_common(1)[0][0] if sizes else 0
    fitting = [t for t in templates if t.embedding.shape == (dimension,) and t.identity.strip()]
    embeddings = np.array([t.embedding for t in fitting], dtype=np.float32).reshape(len(fitting), dimension)
    good = normalised(embeddings)
    if len(fitting) == len(templates) and good.all():
        return fitting, embeddings, []
    usable = [template for template, is_good in zip(fitting, good.tolist(), strict=True) if is_good]
    kept = {template.template_id for template in usable}
    damaged = [_damage(template, dimension) for template in templates if template.template_id not in kept]
    return usable, embeddings[good], damaged


def usable(
    templates: Iterable[Template], damaged: list[DamagedTemplate], dimensions: Mapping[str, int] | None = None
) -> list[Template]:
    """Return the usable templates of any models in their order, and append the others to `damaged`.

    `dimensions` are those of known models; of another model it is the one that most templates have.
    """
    known = dimensions or {}
    everything = list(templates)
    by_model: defaultdict[str, list[Template]] = defaultdict(list)
    for template in everything:
        by_model[template.model_id].append(template)
    bad = [found for model_id, own in by_model.items() for found in separate(own, known.get(model_id))[2]]
    damaged += bad
    left_out = {found.template_id for found in bad}
    return [template for template in everything if template.template_id not in left_out]


def check_usable(template: Template) -> None:
    """Raise `UnusableTemplate` for a template that readers would leave out."""
    for found in separate([template])[2]:
        raise UnusableTemplate(f"template {found.template_id} is not stored: {found.reason}")


def may_replace(stored: Template, template: Template) -> bool:
    """Whether the stored template is damaged, so that another one with its id may replace it."""
    dimension = template.embedding.size if stored.model_id == template.model_id else None
    return bool(separate([stored], dimension)[2])


def removal_command(collection: str, template_id: str) -> str:
    """Return the command, for a shell, that removes a template by its id."""
    return f"facerec gallery remove --collection {collection} --template {shlex.quote(template_id)}"


def log_fields(collection: str, damaged: Sequence[DamagedTemplate]) -> dict[str, object]:
    """Return the fields of a log record about damaged templates, of which there is at least one; no names."""
    return {
        "collection": collection,
        "template_ids": [found.template_id for found in damaged[:_SHOWN]],
        "reason": damaged[0].reason,
        "command": removal_command(collection, damaged[0].template_id),
    }


def _damage(template: Template, dimension: int) -> DamagedTemplate:
    if not template.identity.strip():
        reason = "its identity is empty"
    elif template.embedding.shape != (dimension,):
        expected = dimension or f"1 to {MAX_DIMENSION}"
        reason = f"its embedding has {template.embedding.size} numbers, and those of its model have {expected}"
    elif not np.isfinite(template.embedding).all():
        reason = "its embedding has numbers that are infinite or not a number"
    else:
        reason = f"its embedding does not have the length 1 (within {NORM_TOLERANCE:g})"
    return DamagedTemplate(template.template_id, reason, template.identity)
