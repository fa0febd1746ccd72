"""Which people the faces of one picture match: the rules beside similarity and threshold. Pure, and without numpy.

1. Two faces of one picture are never the same person. Of all pairs of a face and a person at or above the threshold,
   the most similar one is taken first; then the face and the person are in no other pair.
2. A person is left out for a face that is at least as similar to a rejection of the person ("this is not X") as to the
   person.

The lists of nearest people, whatever their similarity, follow the second rule alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The detection function, which matches nothing, has no numpy.
    import numpy as np
    from numpy.typing import NDArray

    from model.matching import Match

    Search = Callable[[NDArray[np.float32], int], list[list[Match]]]
    """From faces (F, D) to the nearest people of each, the most similar first, as many as asked for."""


class Rule(StrEnum):
    """The rule by which a person was left out."""

    OTHER_FACE = "other_face"
    """Another face of the picture is this person."""
    REJECTED = "rejected"
    """Somebody said of a face like this one that it is not this person."""


@dataclass(frozen=True, slots=True)
class FaceMatches:
    """The people of one face, the most similar first."""

    matches: "list[Match]"
    """At or above the threshold."""
    nearest: "list[Match]"
    """Whatever their similarity."""
    left_out: "list[tuple[Match, Rule]]"
    """Those at or above the threshold that are more similar than the first of `matches`: a rule changed the answer."""


def match_faces(
    faces: "NDArray[np.float32]",
    search: "Search",
    rejections: "Mapping[str, NDArray[np.float32]]",
    threshold: float,
    *,
    most: int,
    nearest: int = 0,
) -> list[FaceMatches]:
    """Return up to `most` matches and `nearest` nearest people of each of a picture's faces (F, D), L2-normalised.

    `rejections` are faces (K, D) by the person that they are not. The result is that of lists of all people: where the
    rules leave out so many that a list becomes too short, the search is repeated for more people.
    """
    rejected = _similarities(faces, rejections)
    first = max(most, nearest)
    found = search(faces, first)
    deep: set[int] = set()
    while True:
        ruled = _ruled(found, rejected, threshold, most, nearest)
        short = [
            number
            for number, (people, face) in enumerate(zip(found, ruled, strict=True))
            if number not in deep
            and len(people) == first
            and ((people[-1].similarity >= threshold and len(face.matches) < most) or len(face.nearest) < nearest)
        ]
        if not short:
            return ruled
        # No face loses more: each rejected person, and one person to each of the other faces.
        deeper = search(faces[short], first + len(rejections) + len(faces) - 1)
        for number, people in zip(short, deeper, strict=True):
            found[number] = people
        deep.update(short)


def assign(candidates: Sequence[Sequence[tuple[str, float]]]) -> dict[str, int]:
    """Return the face of each assigned person; each face has at most one person.

    `candidates` are each face's people with their similarities. The most similar pair is taken first; of equal ones
    that of the earlier face, and of a face the person that it lists first.
    """
    pairs = sorted(
        (-similarity, face, place, person)
        for face, people in enumerate(candidates)
        for place, (person, similarity) in enumerate(people)
    )
    owners: dict[str, int] = {}
    named: set[int] = set()
    for _, face, _, person in pairs:
        if face not in named and person not in owners:
            owners[person] = face
            named.add(face)
    return owners


def _ruled(
    found: "Sequence[Sequence[Match]]",
    rejected: Sequence[Mapping[str, float]],
    threshold: float,
    most: int,
    nearest: int,
) -> list[FaceMatches]:
    allowed = [
        [match for match in people if known.get(match.identity, -1) < match.similarity]
        for people, known in zip(found, rejected, strict=True)
    ]
    owners = assign(
        [
            [(match.identity, match.similarity) for match in people if match.similarity >= threshold]
            for people in allowed
        ]
    )
    faces = []
    for number, (people, remaining) in enumerate(zip(found, allowed, strict=True)):
        matches = [
            match
            for match in remaining
            if match.similarity >= threshold and owners.get(match.identity, number) == number
        ][:most]
        left_out: list[tuple[Match, Rule]] = []
        for match in people:
            if match.similarity < threshold or match in matches or len(left_out) == most:
                break
            left_out.append((match, Rule.OTHER_FACE if match in remaining else Rule.REJECTED))
        faces.append(FaceMatches(matches, remaining[:nearest], left_out))
    return faces


def _similarities(
    faces: "NDArray[np.float32]", rejections: "Mapping[str, NDArray[np.float32]]"
) -> list[dict[str, float]]:
    """Return for each face its greatest similarity to the rejections of each person."""
    by_face: list[dict[str, float]] = [{} for _ in faces]
    for person, others in rejections.items():
        for known, similarity in zip(by_face, (faces @ others.T).max(axis=1).tolist(), strict=True):
            known[person] = similarity
    return by_face
