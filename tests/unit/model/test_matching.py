"""The primary face of a picture, and the search for its identity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.faces import Box
from model.matching import GalleryIndex, Match, primary_order


def directions(count: int, seed: int = 0, size: int = 16) -> NDArray[np.float32]:
    """Return random unit vectors, float32 (count, size)."""
    vectors = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def at_angle(cosine: float) -> NDArray[np.float32]:
    """Return a unit vector with the given cosine to (1, 0)."""
    return np.array([cosine, np.sqrt(1 - cosine**2)], dtype=np.float32)


def test_central_face_is_primary_before_a_larger_one_at_the_edge() -> None:
    """Central face is primary before a larger one at the edge."""
    bystander, subject = Box(0, 0, 60, 60), Box(80, 80, 130, 130)
    assert primary_order([bystander, subject], 200, 200, center_weight=2.0) == [1, 0]


def test_without_center_weight_the_largest_is_first() -> None:
    """A weight of 0 leaves size alone."""
    boxes = [Box(80, 80, 130, 130), Box(0, 0, 60, 60), Box(0, 0, 10, 10)]
    assert primary_order(boxes, 200, 200, center_weight=0.0) == [1, 0, 2]


def test_primary_order_of_no_faces_is_empty() -> None:
    """Primary order of no faces is empty."""
    assert primary_order([], 200, 200, center_weight=2.0) == []


def test_nearest_identity_is_found_with_its_best_template() -> None:
    """Of several templates of one person the nearest counts, and is named."""
    index = GalleryIndex(
        np.stack([at_angle(0.2), at_angle(0.5), at_angle(0.9)]), ["Ann", "Bea", "Ann"], ["a1", "b1", "a2"]
    )
    (matches,) = index.search(np.array([[1.0, 0.0]], dtype=np.float32), limit=5)
    assert [(match.identity, match.template_id) for match in matches] == [("Ann", "a2"), ("Bea", "b1")]
    assert [match.similarity for match in matches] == pytest.approx([0.9, 0.5], abs=3e-4)  # float16


def test_template_is_rounded_to_float16_whatever_it_was_read_from() -> None:
    """The similarity is the same from a table of float32 and from a file of float16, and differs little from exact."""
    exact, queries = directions(50, size=512), directions(4, 1, size=512)
    names = [str(row) for row in range(50)]
    of_table, of_file = (GalleryIndex(rows, names, names) for rows in (exact, exact.astype(np.float16)))
    assert of_table.search(queries, 50) == of_file.search(queries, 50)
    own = of_table.search(exact)
    assert [match.template_id for (match,) in own] == names
    assert [match.similarity for (match,) in own] == pytest.approx([1] * 50, abs=2e-4)


def test_similarity_is_never_negative_nor_above_one() -> None:
    """In spite of rounding."""
    index = GalleryIndex(np.stack([at_angle(-0.7)]), ["Ann"], ["a"])
    assert index.search(np.array([[1.0, 0.0]], dtype=np.float32)) == [[Match("Ann", 0.0, "a")]]
    own = directions(200)
    itself = GalleryIndex(own, [str(row) for row in range(200)], [str(row) for row in range(200)])
    assert all(match.similarity <= 1.0 for (match,) in itself.search(own))


def test_empty_gallery_has_no_match() -> None:
    """Empty gallery has no match."""
    index = GalleryIndex(np.empty((0, 512), dtype=np.float32), [], [])
    assert len(index) == 0
    assert index.search(directions(3, size=512), limit=4) == [[], [], []]


def test_no_queries_have_no_matches() -> None:
    """A picture without faces asks nothing."""
    index = GalleryIndex(directions(3), ["a", "b", "c"], ["1", "2", "3"])
    assert index.search(np.empty((0, 16), dtype=np.float32)) == []


def test_gallery_columns_must_have_equal_lengths() -> None:
    """Gallery columns must have equal lengths."""
    with pytest.raises(ValueError, match="2 identities"):
        GalleryIndex(directions(3), ["a", "b"], ["1", "2", "3"])


def test_search_limit_below_one_is_an_error() -> None:
    """Search limit below one is an error."""
    with pytest.raises(ValueError, match="limit"):
        GalleryIndex(directions(1), ["a"], ["1"]).search(directions(1), limit=0)


@given(owners=st.lists(st.integers(0, 7), min_size=1, max_size=40), limit=st.integers(1, 10), seed=st.integers(0, 1000))
def test_search_agrees_with_the_plain_definition(owners: list[int], limit: int, seed: int) -> None:
    """The best template per identity, in descending order, for any gallery and limit, of templates as float16."""
    embeddings, queries = directions(len(owners), seed).astype(np.float16), directions(2, seed + 1)
    identities = [f"person {owner}" for owner in owners]
    template_ids = [f"t{row}" for row in range(len(owners))]
    found = GalleryIndex(embeddings, identities, template_ids).search(queries, limit)
    for query, matches in zip(queries, found, strict=True):
        best: dict[str, tuple[float, str]] = {}
        for embedding, identity, template_id in zip(embeddings, identities, template_ids, strict=True):
            best[identity] = max(
                best.get(identity, (-2.0, "")), (float(query @ embedding.astype(np.float32)), template_id)
            )
        expected = sorted(best.items(), key=lambda item: -item[1][0])[:limit]
        assert [(match.identity, match.template_id) for match in matches] == [(name, b[1]) for name, b in expected]
        assert [match.similarity for match in matches] == pytest.approx([max(0, b[0]) for _, b in expected], abs=1e-6)


def test_templates_of_a_person_are_in_every_block() -> None:
    """Also in encoded ones; removed templates and forgotten names have none."""
    rows, names = directions(64), ["Ann" if row % 3 == 0 else f"other {row}" for row in range(64)]
    ids = [f"t{row}" for row in range(64)]
    index = GalleryIndex(rows, names, ids, block_rows=16)
    assert len(index.blocks) > 1
    index.remove(["t0", "t63", "t1"])
    embeddings, template_ids = index.templates_of("Ann")
    assert template_ids == [f"t{row}" for row in range(3, 63, 3)]
    assert embeddings == pytest.approx(rows[3:63:3], abs=1e-3)  # float16
    for unknown in ("other 1", "Bea", ""):
        assert [len(part) for part in index.templates_of(unknown)] == [0, 0]
