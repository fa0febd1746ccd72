"""Audit: enrolments of a collection that contradict each other, or are of little use.

A template that matches another person and none of its own person's other templates has the wrong name. Two people with
a common face, at or above the threshold, are one person or look-alikes. All templates are compared with all others:
ten thousand take seconds, a hundred times as many comparisons a hundred times as long.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.comparison import ModelThresholds
from facerec.gallery.damaged import usable
from facerec.ports import DamagedTemplate, ObjectStore, Rejection, Template, TemplateStore

_ROWS_AT_ONCE = 512
"""Templates compared with all others at once: 20 MB for ten thousand."""
_NONE = -2.0
"""Below every cosine."""


class Problem(StrEnum):
    """What is wrong with a template."""

    WRONG_NAME = "wrong_name"
    """It matches another person, and none of its own person's other templates."""
    UNLIKE = "unlike"
    """It is nearer to another person's template than to every other of its own person, and matches neither."""
    SAME_FACE = "same_face"
    """It matches another person's template: one person under two names, or look-alikes."""
    LOW_QUALITY = "low_quality"
    DAMAGED = "damaged"
    PHOTO_GONE = "photo_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem."""

    problem: Problem
    identity: str
    template_id: str
    source: str = ""
    """The file name of the photo."""
    other: str | None = None
    """The other person, of a contradiction, with the template and its photo."""
    other_template_id: str | None = None
    other_source: str = ""
    similarity: float | None = None
    """To the other person's template."""
    own_similarity: float | None = None
    """To the most similar other template of the person; `None` without one."""
    reason: str = ""
    """Of a damaged template, or of one of low quality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit of one collection and model has found."""

    templates: int
    people: int
    threshold: float
    findings: list[Finding] = field(default_factory=list)
    """By problem, the most similar first."""
    single: list[str] = field(default_factory=list)
    """People with one template, of whom nothing can contradict it."""
    not_assessed: int = 0
    """Templates without a stored quality: enrolled by an earlier version, or imported."""
    other_models: int = 0
    """Templates of other models, which were not looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The similarities of N templates to their nearest ones; `_NONE` where there is none."""

    own: NDArray[np.float32]
    """(N,): to the nearest other template of the same person."""
    other: NDArray[np.float32]
    """(N,): to the nearest template of another person."""
    nearest: NDArray[np.intp]
    """(N,): which that is."""


@dataclass(frozen=True, kw_only=True)
class GalleryAudit:
    """Audits collections; it changes nothing. `model_id`, `dimension` and `thresholds` are those of the model."""

    templates: TemplateStore
    photos: ObjectStore
    bucket: str
    model_id: str
    dimension: int
    thresholds: ModelThresholds
    min_quality: float = 0.0
    min_probability: float = 0.0

    def run(self, collection: str, threshold: float | None = None) -> AuditReport:
        """Return what is wrong; raises `Transient`.

        Without `threshold` the collection's own applies, or the model's for its number of people. Two people whom a
        rejection tells apart ("this is not X") do not have the same face.
        """
        # The photos are read last: the photo of a template is stored before the template.
        damaged: list[DamagedTemplate] = []
        found = usable(self.templates.templates(collection, damaged), damaged, {self.model_id: self.dimension})
        present = set(self.photos.keys(self.bucket, f"{collection}/"))
        own = [each for each in found if each.model_id == self.model_id]
        sizes = Counter(each.identity for each in own)
        if threshold is None:
            calibrated = self.templates.threshold(collection, self.model_id)
            threshold = self.thresholds.threshold(len(sizes)).value if calibrated is None else calibrated.value
        findings = [
            *_contradictions(own, self.templates.rejections(collection), threshold),
            *self._poor(own),
            *(
                Finding(
                    problem=Problem.DAMAGED, identity=each.identity, template_id=each.template_id, reason=each.reason
                )
                for each in damaged
            ),
            *(
                Finding(problem=Problem.PHOTO_GONE, **_facts(each))
                for each in own
                if each.photo is not None and each.photo.key not in present
            ),
        ]
        return AuditReport(
            templates=len(own),
            people=len(sizes),
            threshold=threshold,
            findings=findings,
            single=sorted(name for name, count in sizes.items() if count == 1),
            not_assessed=sum(each.quality is None for each in own),
            other_models=len(found) - len(own),
        )

    def _poor(self, templates: Sequence[Template]) -> Iterator[Finding]:
        for each in templates:
            reasons = []
            if each.quality is not None and each.quality < self.min_quality:
                reasons.append(f"quality {each.quality:.2f}, below {self.min_quality:g}")
            if each.probability < self.min_probability:
                reasons.append(f"detection probability {each.probability:.2f}, below {self.min_probability:g}")
            if reasons:
                yield Finding(problem=Problem.LOW_QUALITY, reason=", ".join(reasons), **_facts(each))


def neighbours(
    embeddings: NDArray[np.float32], owners: NDArray[np.intp], rejections: Mapping[int, NDArray[np.float32]]
) -> Neighbours:
    """Compare templates (N, D), L2-normalised, with all others; `owners` (N,) are their people by numbers.

    `rejections` are faces (K, D) by the person that they are not: a template that is at least as similar to them as to
    a template of this person is not compared with that one.
    """
    count = len(embeddings)
    own, other = np.full(count, _NONE, np.float32), np.full(count, _NONE, np.float32)
    nearest = np.zeros(count, np.intp)
    apart = {person: (embeddings @ faces.T).max(axis=1) for person, faces in rejections.items()}
    for start in range(0, count, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, count))
        cosines: NDArray[np.float32] = embeddings[rows] @ embeddings.T
        each = np.arange(len(cosines))
        same = owners[rows, None] == owners
        cosines[each, start + each] = _NONE
        own[rows] = np.where(same, cosines, _NONE).max(axis=1)
        cosines[same] = _NONE
        for person, similarity in apart.items():
            columns, mine = np.flatnonzero(owners == person), np.flatnonzero(owners[rows] == person)
            theirs = cosines[:, columns]
            cosines[:, columns] = np.where(theirs <= similarity[rows, None], _NONE, theirs)
            cosines[mine] = np.where(cosines[mine] <= similarity, _NONE, cosines[mine])
        nearest[rows] = cosines.argmax(axis=1)
        other[rows] = cosines[each, nearest[rows]]
    return Neighbours(own, other, nearest)


def _contradictions(
    templates: Sequence[Template], rejections: Sequence[Rejection], threshold: float
) -> Iterator[Finding]:
    if not templates:
        return
    numbers = {name: number for number, name in enumerate(dict.fromkeys(each.identity for each in templates))}
    owners = np.array([numbers[each.identity] for each in templates], dtype=np.intp)
    embeddings = np.stack([each.embedding for each in templates])
    apart = {
        number: np.stack(faces)
        for name, number in numbers.items()
        if (faces := [each.embedding for each in rejections if _is_of(each, name, templates[0])])
    }
    found = neighbours(embeddings, owners, apart)
    lonely = (found.other > found.own) & (found.own < threshold) & (found.own > _NONE)
    wrong = lonely & (found.other >= threshold)
    suspects = set(owners[wrong].tolist())
    by_similarity = np.argsort(-found.other, kind="stable").tolist()

    def finding(problem: Problem, row: int) -> Finding:
        template, other = templates[row], templates[int(found.nearest[row])]
        return Finding(
            problem=problem,
            other=other.identity,
            other_template_id=other.template_id,
            other_source=other.source,
            similarity=_similarity(found.other[row]),
            own_similarity=_similarity(found.own[row]) if found.own[row] > _NONE else None,
            **_facts(template),
        )

    yield from (finding(Problem.WRONG_NAME, row) for row in by_similarity if wrong[row])
    # A rejected face that matches somebody tells these two people apart, whichever of their photos are alike.
    seen = {
        frozenset((person, owner))
        for person, faces in apart.items()
        for owner in owners[(embeddings @ faces.T).max(axis=1) >= threshold].tolist()
        if owner != person
    }
    for row in by_similarity:
        near = int(found.nearest[row])
        pair = frozenset((int(owners[row]), int(owners[near])))
        # A template with a wrong name explains why the person whom it shows is like its owner.
        if found.other[row] >= threshold and not wrong[row] and not wrong[near] and pair not in seen:
            seen.add(pair)
            yield finding(Problem.SAME_FACE, row)
    # Beside a template with a wrong name the right ones have nobody to be like.
    yield from (
        finding(Problem.UNLIKE, row)
        for row in by_similarity
        if lonely[row] and not wrong[row] and int(owners[row]) not in suspects
    )


def _is_of(rejection: Rejection, identity: str, template: Template) -> bool:
    """Whether a rejection is of this person, and can be compared with the template."""
    return (
        rejection.identity == identity
        and rejection.model_id == template.model_id
        and rejection.embedding.shape == template.embedding.shape
    )


def _facts(template: Template) -> dict[str, Any]:
    return {"identity": template.identity, "template_id": template.template_id, "source": template.source}


def _similarity(cosine: np.float32) -> float:
    return min(max(0.0, float(cosine)), 1.0)
