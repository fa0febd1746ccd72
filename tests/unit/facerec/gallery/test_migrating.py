"""What a migration has to embed, who would be lost, and the comparison of both models."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from facerec.comparison import ModelThresholds
from facerec.gallery import model_comparison
from facerec.gallery.migrating import paired, pending
from facerec.gallery.model_comparison import ComparedModel, ModelComparison, compare_models
from facerec.ports import Template
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template
from tests.support.tails import TAILS

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def enrolled(number: int, identity: str, model_id: str = MODEL, source: str = "") -> Template:
    """A template of a photo; the twin of another model has the same source and date."""
    made = make_template(number, identity, model_id=model_id)
    return replace(made, source=source or f"{identity}.jpg", enrolled_at=NOW)


def test_templates_without_a_twin_are_pending() -> None:
    """Those of a third model do not count; people without any new template would be lost."""
    store = InMemoryTemplateStore()
    for template in (
        enrolled(1, "Ada"),
        enrolled(2, "Ada", source="second.jpg"),
        enrolled(3, "Grace"),
        enrolled(4, "Ada", OTHER_MODEL),
        enrolled(5, "Mary", "third-1"),
    ):
        store.add(template)
    found = pending(store, "default", MODEL, OTHER_MODEL)
    assert found.total == 3
    assert sorted(entry.source for entry in found.without_twin) == ["Grace.jpg", "second.jpg"]
    assert found.lost == ("Grace",)
    assert pending(store, "default", OTHER_MODEL, MODEL).without_twin == ()


def test_faces_of_one_photo_are_pending_until_all_have_twins() -> None:
    """Their names and dates are the same."""
    store = InMemoryTemplateStore()
    for template in (enrolled(1, "Ada"), enrolled(2, "Ada"), enrolled(3, "Ada", OTHER_MODEL)):
        store.add(template)
    assert len(pending(store, "default", MODEL, OTHER_MODEL).without_twin) == 2
    store.add(enrolled(4, "Ada", OTHER_MODEL))
    assert pending(store, "default", MODEL, OTHER_MODEL).without_twin == ()
    assert len(paired(store.entries("default"), MODEL, OTHER_MODEL)) == 2


def compared(*faces: tuple[str, NDArray[np.float32], NDArray[np.float32]]) -> ModelComparison:
    """Compare with a threshold of 0.5 for both models; a face is its person and its two embeddings."""
    pairs = []
    for number, (identity, old, new) in enumerate(faces):
        first = replace(enrolled(number, identity, source=f"{number}.jpg"), embedding=old)
        pairs.append((first, replace(first, embedding=new, model_id=OTHER_MODEL)))
    thresholds = ModelThresholds(TAILS["open"], 0.4, 0.01)
    return compare_models(
        "staff", pairs, ComparedModel(MODEL, thresholds, 0.5), ComparedModel(OTHER_MODEL, thresholds, 0.5)
    )


AXES = np.eye(8, dtype=np.float32)


def test_comparison_counts_who_would_change() -> None:
    """The old model knows Ada and takes Grace for her; the new one knows both, and misses Mary."""
    near_ada = np.array([0.8, 0, 0, 0, 0, 0, 0.6, 0], np.float32)
    found = compared(
        ("Ada", AXES[0], AXES[0]),
        ("Ada", AXES[0], AXES[0]),
        ("Grace", near_ada, AXES[1]),
        ("Grace", AXES[1], AXES[1]),
        ("Mary", AXES[2], AXES[2]),
        ("Mary", AXES[2], AXES[3]),
        ("Alone", AXES[5], AXES[5]),
    )
    assert (found.probes, found.people, found.findable) == (7, 4, 6)
    assert (found.old.right, found.old.unknown, found.old.false_matches) == (4, 1, 1)
    assert (found.new.right, found.new.unknown, found.new.false_matches) == (4, 2, 0)
    assert found.new.threshold == 0.5
    changes = {(change.source, change.old_answer, change.new_answer) for change in found.changes}
    assert changes == {
        ("2.jpg", "Ada", "Grace"),
        ("3.jpg", "Unknown", "Grace"),
        ("4.jpg", "Mary", "Unknown"),
        ("5.jpg", "Mary", "Unknown"),
    }
    assert found.agreement is not None
    assert round(found.agreement, 3) == round(3 / 7, 3)
    assert found.as_json()["changes"][0]["old_similarity"] == 0.8


def test_comparison_of_blocks_and_of_some_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large gallery is compared in blocks, by some of its faces, each with all others."""
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    faces = [(f"person {number % 10}", vector, vectors[number - 1]) for number, vector in enumerate(vectors)]
    whole = compared(*faces)
    monkeypatch.setattr(model_comparison, "_BLOCK_SIMILARITIES", 3 * len(faces))
    assert compared(*faces) == whole
    monkeypatch.setattr(model_comparison, "MAX_PROBES", 15)
    some = compared(*faces)
    assert (some.probes, some.people, some.findable) == (15, 10, 15)
    assert set(some.changes) < set(whole.changes)


def test_comparison_of_an_empty_collection_has_no_figures() -> None:
    """Nor of a single face."""
    assert compared().agreement is None
    assert compared(("Ada", AXES[0], AXES[0])).old.rank_1 is None
