"""The rules that decide which people the faces of one picture match."""

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from facerec.matching_rules import FaceMatches, Rule, assign, match_faces
from model.matching import GalleryIndex, Match

SIZE = 8
AXES = np.eye(SIZE, dtype=np.float32)

similarities = st.sampled_from([0.0, 0.25, 0.5, 0.5000001, 0.75, 1.0]) | st.floats(0, 1)
candidate_lists = st.lists(
    st.dictionaries(st.sampled_from("ABCDE"), similarities, max_size=5).map(lambda people: list(people.items())),
    max_size=6,
)


@given(candidates=candidate_lists)
def test_assignment_gives_a_face_one_person_and_a_person_one_face(
    candidates: list[list[tuple[str, float]]],
) -> None:
    """A face without a person, or with a less similar one, has lost each better one to a face at least as similar."""
    owners = assign(candidates)
    assert len(set(owners.values())) == len(owners)
    of_face = {face: person for person, face in owners.items()}
    known = [dict(people) for people in candidates]
    assert all(person in known[face] for person, face in owners.items())
    for face, people in enumerate(known):
        own = people[of_face[face]] if face in of_face else -1.0
        for person, similarity in people.items():
            if similarity > own:
                assert known[owners[person]][person] >= similarity


@given(candidates=candidate_lists, random=st.randoms(use_true_random=False))
def test_assignment_does_not_depend_on_the_order_of_faces(
    candidates: list[list[tuple[str, float]]], random: Random
) -> None:
    """Unless two similarities are equal."""
    values = [similarity for people in candidates for _, similarity in people]
    if len(set(values)) < len(values):
        return
    order = list(range(len(candidates)))
    random.shuffle(order)
    shuffled = assign([candidates[face] for face in order])
    assert {person: order[face] for person, face in shuffled.items()} == assign(candidates)


@pytest.mark.parametrize(
    ("candidates", "owners"),
    [
        ([], {}),
        ([[]], {}),
        ([[("A", 0.8), ("B", 0.7)]], {"A": 0}),
        ([[("A", 0.8), ("B", 0.7)], [("A", 0.9)]], {"A": 1, "B": 0}),
        ([[("A", 0.8)], [("A", 0.9)]], {"A": 1}),
        ([[("A", 0.8)], [("A", 0.8), ("B", 0.8)]], {"A": 0, "B": 1}),  # the earlier face first
        ([[("B", 0.8), ("A", 0.8)]], {"B": 0}),  # the person that is listed first
    ],
)
def test_assignment_takes_the_most_similar_pair_first(
    candidates: list[list[tuple[str, float]]], owners: dict[str, int]
) -> None:
    """What is left falls to the next person, or to none."""
    assert assign(candidates) == owners


def faces_of(*similarities: Mapping[str, float]) -> list[list[Match]]:
    """What a search finds for some faces."""
    return [
        sorted((Match(person, value, f"t{person}") for person, value in people.items()), key=lambda m: -m.similarity)
        for people in similarities
    ]


def ruled(
    *faces: Mapping[str, float],
    rejections: Mapping[str, NDArray[np.float32]] | None = None,
    threshold: float = 0.5,
    most: int = 5,
    nearest: int = 0,
) -> list[FaceMatches]:
    """The matches of faces with these similarities to people; face n is the unit vector of axis n."""
    known = faces_of(*faces)

    def search(queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        return [known[int(query.argmax())][:limit] for query in queries]

    return match_faces(AXES[: len(faces)], search, rejections or {}, threshold, most=most, nearest=nearest)


def names(matches: Sequence[Match]) -> list[str]:
    """The people of the matches."""
    return [match.identity for match in matches]


def test_person_goes_to_the_most_similar_face() -> None:
    """The other face falls to its next person, or is unknown; both results say what happened."""
    first, second, third = ruled({"Ada": 0.7, "Grace": 0.6}, {"Ada": 0.9}, {"Ada": 0.55, "Alan": 0.4})
    assert (names(first.matches), names(second.matches), names(third.matches)) == (["Grace"], ["Ada"], [])
    assert [(match.identity, rule) for match, rule in first.left_out] == [("Ada", Rule.OTHER_FACE)]
    assert second.left_out == []
    assert [(match.identity, match.similarity) for match, _ in third.left_out] == [("Ada", 0.55)]


def test_person_of_another_face_is_no_further_match_either() -> None:
    """That changes no answer, so nothing is said of it."""
    first, second = ruled({"Ada": 0.9, "Grace": 0.6, "Alan": 0.55}, {"Grace": 0.8, "Alan": 0.7})
    assert (names(first.matches), names(second.matches)) == (["Ada", "Alan"], ["Grace", "Alan"])
    assert first.left_out == second.left_out == []


def test_rejected_person_is_left_out() -> None:
    """For faces that are as similar to the rejection as to the person, and for no other."""
    rejections = {"Ada": np.stack([AXES[7], 0.8 * AXES[0] + 0.6 * AXES[6]])}
    (face,) = ruled({"Ada": 0.8, "Grace": 0.6}, rejections=rejections)
    assert names(face.matches) == ["Grace"]
    assert [(match.identity, rule) for match, rule in face.left_out] == [("Ada", Rule.REJECTED)]
    (nearer_to_ada,) = ruled({"Ada": 0.81, "Grace": 0.6}, rejections=rejections)
    assert (names(nearer_to_ada.matches), nearer_to_ada.left_out) == (["Ada", "Grace"], [])


def test_rejected_person_may_be_another_face_of_the_picture() -> None:
    """The rejection is of one face, not of the picture."""
    first, second = ruled({"Ada": 0.9}, {"Ada": 0.7}, rejections={"Ada": AXES[:1]})
    assert (names(first.matches), names(second.matches)) == ([], ["Ada"])


def test_nearest_people_are_those_of_each_face_alone() -> None:
    """They repeat a person of another face, and leave out rejected ones."""
    first, second = ruled({"Ada": 0.9, "Alan": 0.1}, {"Ada": 0.8, "Grace": 0.2}, nearest=2)
    assert (names(first.nearest), names(second.nearest)) == (["Ada", "Alan"], ["Ada", "Grace"])
    assert names(second.matches) == []
    (face,) = ruled({"Ada": 0.9, "Alan": 0.1, "Grace": 0.05}, rejections={"Ada": AXES[:1]}, nearest=2)
    assert names(face.nearest) == ["Alan", "Grace"]


def test_search_is_not_repeated_without_need() -> None:
    """The lists of most pictures end below the threshold."""
    index = GalleryIndex(AXES[:6], [f"p{n}" for n in range(6)], [f"t{n}" for n in range(6)])
    limits: list[tuple[int, int]] = []

    def search(queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        limits.append((len(queries), limit))
        return index.search(queries, limit)

    match_faces(AXES[:3], search, {}, 0.5, most=5)
    assert limits == [(3, 5)]
    match_faces(AXES[:3], search, {}, 0.0, most=5)
    assert limits[1:] == [(3, 5), (3, 7)]


@given(
    seed=st.integers(0, 10_000),
    people=st.integers(0, 12),
    count=st.integers(1, 5),
    threshold=st.sampled_from([0.0, 0.2, 0.4, 0.6]),
    most=st.integers(1, 4),
    nearest=st.integers(0, 6),
    rejected=st.integers(0, 4),
)
def test_matches_are_those_of_complete_lists(
    seed: int, people: int, count: int, threshold: float, most: int, nearest: int, rejected: int
) -> None:
    """However short the lists of the first search are."""
    random = np.random.default_rng(seed)

    def directions(number: int) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = random.normal(size=(number, 4)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    identities = [f"p{number}" for number in range(people)]
    index = GalleryIndex(directions(people), identities, identities)
    faces = directions(count)
    rejections = {f"p{number}": directions(2) for number in range(rejected)}

    found = match_faces(faces, index.search, rejections, threshold, most=most, nearest=nearest)
    everybody = index.search(faces, max(people, 1))
    allowed = [
        [
            match
            for match in matches
            if match.identity not in rejections or (rejections[match.identity] @ face).max() < match.similarity
        ]
        for face, matches in zip(faces, everybody, strict=True)
    ]
    owners = assign([[(m.identity, m.similarity) for m in each if m.similarity >= threshold] for each in allowed])
    for number, (face, remaining) in enumerate(zip(found, allowed, strict=True)):
        expected = [
            match
            for match in remaining
            if match.similarity >= threshold and owners.get(match.identity, number) == number
        ]
        assert face.matches == expected[:most]
        assert face.nearest == remaining[:nearest]
        best = expected[0].similarity if expected else threshold
        assert all(match.similarity >= best and match not in expected for match, _ in face.left_out)
