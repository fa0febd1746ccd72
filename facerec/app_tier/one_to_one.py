"""Embeddings compared with a few others, outside of a search over the whole gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.messages import Refusal
from facerec.ports import Template
from model.faces import EmbeddedFace
from model.matching import GalleryIndex, Match


class NotDone(Exception):
    """An operation is not done; the text is one sentence for the client, `facts` are further fields of the result."""

    def __init__(self, refusal: Refusal, detail: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.refusal = refusal
        self.facts = facts or {}


def similarities(faces: Sequence[EmbeddedFace], embeddings: Sequence[NDArray[np.float32]]) -> list[float]:
    """Return each face's similarity max(0, cosine) to the most similar of the embeddings; no list without these."""
    if not faces or not len(embeddings):
        return []
    cosines = (
        np.stack([face.embedding for face in faces]).astype(np.float64) @ np.stack(embeddings).astype(np.float64).T
    )
    return [float(best) for best in np.clip(cosines.max(axis=1), 0.0, 1.0)]


def nearest_others(index: GalleryIndex, template: Template, limit: int) -> list[Match]:
    """Return the nearest people to a template, which itself is left out: its person counts by another template."""
    query = template.embedding
    (found,) = index.search(query[None], limit=limit + 1)
    others = [match for match in found if match.template_id != template.template_id]
    if len(others) < len(found):
        own = next(match for match in found if match.template_id == template.template_id)
        rows, template_ids = index.templates_of(own.identity)
        cosines = np.vecdot(rows.astype(np.float64), query.astype(np.float64))
        for number in np.argsort(-cosines, kind="stable").tolist():
            if template_ids[number] != template.template_id:
                similarity = min(max(0.0, float(cosines[number])), 1.0)
                others.append(replace(own, similarity=similarity, template_id=template_ids[number]))
                others.sort(key=lambda match: -match.similarity)
                break
    return others[:limit]
