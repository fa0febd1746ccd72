"""Two models compared on the user's own gallery: each enrolled face is searched among all others with both."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.comparison import ModelThresholds
from facerec.ports import Template

UNKNOWN = "Unknown"
MAX_PROBES = 20_000
"""Of more faces so many are compared, by chance but always the same, with all others."""
_BLOCK_SIMILARITIES = 1 << 24
"""So many are computed at once, some 64 MB."""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """How one model recognises the enrolled faces, each left out of the gallery in turn."""

    model_id: str
    threshold: float
    right: int
    """Faces that get their person's name; only people with several templates can be found."""
    unknown: int
    """Faces of people with several templates that get no name."""
    false_matches: int
    """Faces that get another person's name."""
    rank_1: float | None
    """The share of faces whose nearest other template is their person's, among people with several templates."""


@dataclass(frozen=True, slots=True)
class Change:
    """A face that the two models answer differently."""

    identity: str
    source: str
    old_answer: str
    old_similarity: float
    new_answer: str
    new_similarity: float


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """What a change of the model does to one collection."""

    collection: str
    probes: int
    """Faces that were compared: those with a template of each model."""
    people: int
    findable: int
    """Probes whose person has several templates."""
    agreement: float | None
    """The share of probes that get the same answer from both; `None` without probes."""
    old: ModelFigures
    new: ModelFigures
    changes: tuple[Change, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """A model with its threshold for a collection."""

    model_id: str
    thresholds: ModelThresholds
    calibrated: float | None = None
    """The collection's own threshold for this model."""

    def threshold(self, people: int) -> float:
        """Return the least similarity of a match among so many people."""
        return self.thresholds.threshold(people).value if self.calibrated is None else self.calibrated


def compare_models(
    collection: str, pairs: Sequence[tuple[Template, Template]], old: ComparedModel, new: ComparedModel
) -> ModelComparison:
    """Compare by the templates of the same faces, (old, new); each of `MAX_PROBES` faces against all others."""
    names, codes = np.unique([first.identity for first, _ in pairs], return_inverse=True)
    chosen = np.arange(len(pairs))
    if len(pairs) > MAX_PROBES:
        chosen = np.sort(np.random.default_rng(0).choice(len(pairs), MAX_PROBES, replace=False))
    own = codes[chosen]
    findable = np.bincount(codes)[own] > 1 if pairs else np.zeros(0, bool)
    answers = [
        _Answers.of(np.stack([pair[which].embedding for pair in pairs]), codes, chosen, model.threshold(len(names)))
        if pairs
        else _Answers.none()
        for which, model in enumerate((old, new))
    ]
    differ = np.flatnonzero(answers[0].codes != answers[1].codes)

    def name(code: int) -> str:
        return UNKNOWN if code < 0 else str(names[code])

    return ModelComparison(
        collection,
        probes=len(chosen),
        people=len(names),
        findable=int(findable.sum()),
        agreement=1 - len(differ) / len(chosen) if pairs else None,
        old=answers[0].figures(old, len(names), own, findable),
        new=answers[1].figures(new, len(names), own, findable),
        changes=tuple(
            Change(
                pairs[chosen[row]][0].identity,
                pairs[chosen[row]][0].source,
                name(int(answers[0].codes[row])),
                round(float(answers[0].similarities[row]), 4),
                name(int(answers[1].codes[row])),
                round(float(answers[1].similarities[row]), 4),
            )
            for row in differ.tolist()
        ),
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers of one model: the code of the person of each probe, -1 for unknown; and the nearest one's."""

    codes: NDArray[np.int64]
    nearest: NDArray[np.int64]
    similarities: NDArray[np.float32]

    @classmethod
    def none(cls) -> "_Answers":
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def of(
        cls, embeddings: NDArray[np.float32], codes: NDArray[np.int64], chosen: NDArray[np.int64], threshold: float
    ) -> "_Answers":
        nearest = np.full(len(chosen), -1, np.int64)
        similarities = np.zeros(len(chosen), np.float32)
        block = max(1, _BLOCK_SIMILARITIES // len(codes))
        for start in range(0, len(chosen) if len(codes) > 1 else 0, block):
            probes = chosen[start : start + block]
            cosines = embeddings[probes] @ embeddings.T
            rows = np.arange(len(probes))
            cosines[rows, probes] = -2  # not with itself
            best = cosines.argmax(axis=1)
            nearest[start : start + block] = codes[best]
            similarities[start : start + block] = np.clip(cosines[rows, best], 0, 1)
        return cls(np.where(similarities >= threshold, nearest, -1), nearest, similarities)

    def figures(
        self, model: ComparedModel, people: int, codes: NDArray[np.int64], findable: NDArray[np.bool_]
    ) -> ModelFigures:
        found = int(findable.sum())
        return ModelFigures(
            model.model_id,
            round(model.threshold(people), 4),
            right=int((self.codes == codes).sum()),
            unknown=int(((self.codes < 0) & findable).sum()),
            false_matches=int(((self.codes >= 0) & (self.codes != codes)).sum()),
            rank_1=float((self.nearest == codes)[findable].mean()) if found else None,
        )
