"""The means of people's templates: searched, and renewed with the gallery."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.index import vectors
from model.index.vectors import NumpyProducts
from model.matching import GalleryIndex
from model.means import PersonMeans

SIZE = 16


@pytest.fixture(autouse=True, scope="module")
def _without_openvino() -> "object":
    """OpenVINO's kernels take some time to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "fastest", NumpyProducts)
        yield


def directions(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Return random unit vectors, float32 (count, SIZE)."""
    found = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def plain(
    rows: dict[str, tuple[str, NDArray[np.float32]]], query: NDArray[np.float32]
) -> list[tuple[str, float, set[str]]]:
    """The definition: each person with the cosine to the normalised mean, and the most similar templates.

    Those are several if the same embedding was added under two ids.
    """
    people: dict[str, dict[str, NDArray[np.float32]]] = {}
    for template_id, (identity, embedding) in rows.items():
        people.setdefault(identity, {})[template_id] = embedding.astype(np.float16).astype(np.float32)
    found = []
    for identity, templates in people.items():
        mean = np.sum(list(templates.values()), axis=0)
        similarities = {each: float(embedding @ query) for each, embedding in templates.items()}
        best = {each for each, similarity in similarities.items() if similarity > max(similarities.values()) - 1e-6}
        found.append((identity, max(0.0, float(mean @ query / np.linalg.norm(mean))), best))
    return sorted(found, key=lambda each: -each[1])


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 1000), st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=5
)


@settings(deadline=None)
@given(steps=steps, limit=st.integers(1, 6))
def test_search_agrees_with_the_plain_definition_after_any_changes(
    steps: list[tuple[bool, int, int, int]], limit: int
) -> None:
    """Templates come, go, and change their person."""
    index = GalleryIndex(np.empty((0, SIZE), np.float32), [], [], block_rows=16)
    means = PersonMeans(index)
    rows: dict[str, tuple[str, NDArray[np.float32]]] = {}
    for adding, seed, count, people in steps:
        random = np.random.default_rng(seed)
        ids = [f"t{number}" for number in random.choice(60, count, replace=False)]
        touched = {rows[each][0] for each in ids if each in rows}
        if adding:
            embeddings = directions(count, seed)
            owners = [f"p{number}" for number in random.integers(0, people, count)]
            index.add(embeddings, owners, ids)
            rows |= {each: (owner, row) for each, owner, row in zip(ids, owners, embeddings, strict=True)}
            touched |= set(owners)
        else:
            index.remove(ids)
            for each in ids:
                rows.pop(each, None)
        means.renew(index, touched)
    fresh = PersonMeans(index)
    queries = directions(3, 7)
    for searched in (means, fresh):
        for query, matches in zip(queries, searched.search(index, queries, limit), strict=True):
            expected = plain(rows, query)[:limit]
            assert [match.similarity for match in matches] == pytest.approx([each[1] for each in expected], abs=2e-3)
            definition = {identity: (similarity, best) for identity, similarity, best in plain(rows, query)}
            for match in matches:
                assert match.similarity == pytest.approx(definition[match.identity][0], abs=2e-3)
                assert match.template_id in definition[match.identity][1]


def test_mean_is_nearer_to_a_new_photo_than_the_templates() -> None:
    """What is particular to each photo is not in the mean."""
    person = directions(1)[0]
    noise = directions(4, 1)
    photos = person + 0.7 * noise
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    index = GalleryIndex(photos[:3], ["Ada"] * 3, ["a", "b", "c"])
    (best,), (mean,) = index.search(photos[3:])[0], PersonMeans(index).search(index, photos[3:])[0]
    assert mean.identity == best.identity == "Ada"
    assert mean.template_id == best.template_id
    assert mean.similarity > best.similarity


def test_opposite_templates_have_no_mean() -> None:
    """Their person is found by nobody, and does not disturb the others."""
    rows = directions(2)
    index = GalleryIndex(np.stack([rows[0], -rows[0], rows[1]]), ["Ada", "Ada", "Grace"], ["a", "b", "c"])
    (found,) = PersonMeans(index).search(index, rows[:1], limit=5)
    assert [match.identity for match in found] == ["Grace"]


def test_empty_gallery_has_no_match() -> None:
    """Before the first enrolment."""
    index = GalleryIndex(np.empty((0, 0), np.float32), [], [])
    assert PersonMeans(index).search(index, directions(2)) == [[], []]
