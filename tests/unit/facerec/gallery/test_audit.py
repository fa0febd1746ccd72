"""The audit of a collection, with in-memory ports."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from facerec.comparison import ModelThresholds
from facerec.gallery import audit
from facerec.gallery.audit import AuditReport, GalleryAudit, Problem, neighbours
from facerec.ports import Template
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import (
    MODEL,
    OTHER_MODEL,
    InMemoryTemplateStore,
    make_rejection,
    make_template,
    make_threshold,
    of_dimension,
)
from tests.support.tails import TAILS

AXES = np.eye(512, dtype=np.float32)


def face(axis: int, spread: int, cosine: float = 0.9) -> NDArray[np.float32]:
    """A photo of the person of this axis; two photos of one person have the square of the cosine in common."""
    embedding: NDArray[np.float32] = cosine * AXES[axis] + np.float32(np.sqrt(1 - cosine**2)) * AXES[100 + spread]
    return embedding


class Archive:
    """A collection to audit."""

    def __init__(self) -> None:
        self.templates, self.photos = InMemoryTemplateStore(), InMemoryObjectStore()

    def enrol(self, number: int, identity: str, embedding: NDArray[np.float32], **changes: Any) -> str:
        template = replace(make_template(number, identity), embedding=embedding, quality=0.9)
        template = replace(template, **changes)
        self.templates.add(template)
        if template.photo is not None:
            self.photos.put("gallery", template.photo.key, b"photo", "image/jpeg")
        return template.template_id

    def audit(self, threshold: float | None = None) -> AuditReport:
        return GalleryAudit(
            templates=self.templates,
            photos=self.photos,
            bucket="gallery",
            model_id=MODEL,
            dimension=512,
            thresholds=ModelThresholds(TAILS["classic"], 0.5, 0.01),
            min_quality=0.5,
            min_probability=0.5,
        ).run("default", threshold)


@pytest.fixture
def archive() -> Archive:
    """Two photos each of three people."""
    archive = Archive()
    for number, name in enumerate(("Ada", "Grace", "Mary")):
        for photo in range(2):
            archive.enrol(10 * number + photo, name, face(number, 10 * number + photo))
    return archive


def problems(report: AuditReport) -> list[tuple[str, str, str | None]]:
    """What was found, about whom."""
    return [(str(each.problem), each.identity, each.other) for each in report.findings]


def test_good_collection_has_no_findings(archive: Archive) -> None:
    """The report says what was compared, and by which threshold."""
    report = archive.audit()
    assert problems(report) == []
    assert (report.templates, report.people, report.single, report.not_assessed) == (6, 3, [], 0)
    assert report.threshold == ModelThresholds(TAILS["classic"], 0.5, 0.01).threshold(3).value
    archive.templates.set_threshold("default", MODEL, make_threshold(0.7))
    assert archive.audit().threshold == 0.7
    assert archive.audit(0.3).threshold == 0.3


def test_empty_collection_has_no_findings() -> None:
    """Before the first enrolment."""
    report = Archive().audit()
    assert (report.templates, report.people, report.findings) == (0, 0, [])


def test_photo_under_the_wrong_name_is_found_once(archive: Archive) -> None:
    """Not a second time as a face that two people have in common, nor the right photos beside it."""
    template_id = archive.enrol(90, "Grace", face(0, 90))
    (found,) = archive.audit().findings
    assert (found.problem, found.identity, found.other) == (Problem.WRONG_NAME, "Grace", "Ada")
    assert found.template_id == template_id
    assert found.similarity == pytest.approx(0.81, abs=1e-3)
    assert found.own_similarity == pytest.approx(0, abs=1e-3)


def test_person_with_one_right_and_one_wrong_photo(archive: Archive) -> None:
    """The right one is like nobody, and that is the wrong one's fault."""
    archive.enrol(90, "Joan", face(5, 90))
    archive.enrol(91, "Joan", face(0, 91))
    assert problems(archive.audit()) == [("wrong_name", "Joan", "Ada")]


@pytest.mark.parametrize("photos", [1, 2])
def test_person_under_two_names_is_found_once(archive: Archive, photos: int) -> None:
    """By the most similar pair."""
    for photo in range(photos):
        archive.enrol(90 + photo, "A. Lovelace", face(0, 90 + photo, 0.9 + 0.05 * photo))
    (found,) = archive.audit().findings
    assert found.problem is Problem.SAME_FACE
    assert {found.identity, found.other} == {"Ada", "A. Lovelace"}
    assert found.similarity == pytest.approx(0.9 * (0.9 + 0.05 * (photos - 1)), abs=1e-3)
    assert archive.audit().single == (["A. Lovelace"] if photos == 1 else [])


def test_photo_that_is_like_neither_is_found(archive: Archive) -> None:
    """It is nearer to another person than to its own, below the threshold."""
    archive.enrol(90, "Mary", face(0, 90, 0.3))
    (found,) = archive.audit().findings
    assert (found.problem, found.identity, found.other) == (Problem.UNLIKE, "Mary", "Ada")
    assert found.similarity == pytest.approx(0.27, abs=1e-3)


def test_people_who_were_said_to_be_different_are_no_finding(archive: Archive) -> None:
    """Twins, for example, whichever of the two the rejection is of."""
    for photo in (90, 91):
        archive.enrol(photo, "Twin", face(0, photo))
    assert problems(archive.audit())[0][0] == "same_face"
    twin = replace(make_rejection(1, "Ada"), embedding=face(0, 90))
    archive.templates.reject(twin)
    assert problems(archive.audit()) == []
    archive.templates.remove_rejections("default", [twin.rejection_id])
    archive.templates.reject(replace(make_rejection(2, "Twin"), embedding=face(0, 0)))
    archive.templates.reject(make_rejection(4, "Twin", model_id=OTHER_MODEL))
    assert problems(archive.audit()) == []


def test_poor_and_incomplete_templates_are_found(archive: Archive) -> None:
    """With the reasons; templates of other models and without a quality are counted."""
    archive.enrol(90, "Ada", face(0, 90), quality=0.3, probability=0.4)
    gone: Template = next(t for t in archive.templates.templates("default") if t.identity == "Grace")
    assert gone.photo is not None
    archive.photos.delete("gallery", gone.photo.key)
    archive.enrol(91, "Mary", np.full(512, np.nan, np.float32))
    archive.enrol(92, "Mary", face(2, 92), quality=None, photo=None)
    archive.templates.add(of_dimension(128, make_template(93, "Ada", model_id=OTHER_MODEL)))
    report = archive.audit()
    assert problems(report) == [("low_quality", "Ada", None), ("damaged", "Mary", None), ("photo_gone", "Grace", None)]
    assert report.findings[0].reason == "quality 0.30, below 0.5, detection probability 0.40, below 0.5"
    assert "infinite or not a number" in report.findings[1].reason
    assert (report.not_assessed, report.other_models) == (1, 1)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 40), people=st.integers(1, 8), rejected=st.integers(0, 3))
def test_neighbours_agree_with_the_plain_definition(seed: int, count: int, people: int, rejected: int) -> None:
    """In blocks that do not fit the number of templates."""
    random = np.random.default_rng(seed)

    def directions(number: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = random.normal(size=(number, 6)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    rows, owners = directions(count), random.integers(0, people, count)
    rejections = {person: directions(2) for person in range(min(rejected, people))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "_ROWS_AT_ONCE", 7)
        found = neighbours(rows, owners, rejections)

    def apart(row: int, column: int, cosine: float) -> bool:
        return any(
            person in rejections and (rejections[person] @ rows[probe]).max() >= cosine
            for person, probe in ((owners[column], row), (owners[row], column))
        )

    for row in range(count):
        own, other = [-2.0], [-2.0]
        for column in range(count):
            cosine = float(rows[row] @ rows[column])
            if owners[row] != owners[column]:
                other.append(-2.0 if apart(row, column, cosine) else cosine)
            elif row != column:
                own.append(cosine)
        assert (found.own[row], found.other[row]) == pytest.approx((max(own), max(other)), abs=1e-5)
