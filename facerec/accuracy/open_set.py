"""Accuracy of identification with strangers: people in folders become a gallery and probes.

Identification as in ISO/IEC 19795-1: of the probes of enrolled people the true positive identification rate (TPIR) gets
the right name; of the probes of strangers the false positive identification rate (FPIR) gets a name at all.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.accuracy.pairs import Embedding, Measured
from facerec.errors import FacerecError
from model.evaluation import Floats, share_by_group
from model.tail import Estimate, ImpostorTail

LARGER = (10_000, 1_000_000)
"""The numbers of people to predict the rates for."""

_AT_ONCE = 4_000_000  # cosines at a time: 16 MB
_ENOUGH = 2  # photos of a person: one to enrol, one to probe with


class NoOpenSet(FacerecError):
    """The folders hold no people to enrol, or no strangers."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A photo and its person."""

    person: str
    photo: str


@dataclass(frozen=True, slots=True)
class OpenSet:
    """The enrolled people, each by one photo, and the probes of them and of strangers."""

    enrolled: tuple[Probe, ...]
    known: tuple[Probe, ...]
    strangers: tuple[Probe, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Searches:
    """The nearest people of the probes in a gallery of `identities` people; similarities are max(0, cosine)."""

    identities: int
    own: Floats
    """(K,), of each known probe to its own person."""
    other: Floats
    """(K,), to the nearest other person."""
    known: NDArray[np.intp]
    """(K,), the probes' people by numbers."""
    nearest: Floats
    """(S,), of each stranger's probe to the nearest person."""
    strangers: NDArray[np.intp]
    """(S,), their people by numbers."""


@dataclass(frozen=True, slots=True)
class IdentificationRates:
    """The rates of probes at a threshold; the three of known people sum to 1."""

    threshold: float
    right_name: Measured
    """TPIR."""
    wrong_name: Measured
    no_name: Measured
    strangers_named: Measured
    """FPIR."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """The rates that the model's tail predicts for a number of people, at the threshold for that number."""

    identities: int
    threshold: float
    extrapolated: bool
    """Whether the threshold is outside the measured part of the tail."""
    right_name: float
    wrong_name: float
    strangers_named: float


@dataclass(frozen=True, slots=True)
class OpenSetReport:
    """The figures of one open set; the first of `at` is at the service's threshold."""

    identities: int
    known_probes: int
    strangers: int
    stranger_probes: int
    rank_one: Measured
    """The share of known probes whose own person is the nearest, at any similarity."""
    at: tuple[IdentificationRates, ...]
    expected: tuple[Expectation, ...]
    """For this number of people and for larger ones."""

    def to_json(self) -> dict[str, Any]:
        """Return the figures for `json.dumps`."""
        return asdict(self)


def people_in(folder: Path) -> dict[str, list[str]]:
    """Return the photos of each person: those in a subfolder of the person's name, sorted."""
    people = {path.name: _files(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return {name: photos for name, photos in people.items() if photos}


def strangers_in(folder: Path) -> dict[str, list[str]]:
    """Return the photos of each stranger: a subfolder is one, and so is a photo in the folder itself."""
    return people_in(folder) | {Path(photo).name: [photo] for photo in _files(folder)}


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def divide(
    people: Mapping[str, Sequence[str]], strangers: Mapping[str, Sequence[str]], left_out: float, seed: int
) -> OpenSet:
    """Choose the enrolled people and photos at random; the same arguments give the same choice.

    Strangers are `strangers`, people with one photo, and the share `left_out` of the others. Of the rest one photo each
    is enrolled. Raises `NoOpenSet` if nobody is enrolled, if there is no stranger, and for a name that is both a
    person's and a stranger's.
    """
    both = sorted(people.keys() & strangers.keys())
    if both:
        raise NoOpenSet(f"{both[0]} is a person and a stranger: rename or remove one of the two folders")
    choice = random.Random(seed)  # noqa: S311 - a repeatable choice, no secret
    several = [name for name in sorted(people) if len(people[name]) >= _ENOUGH]
    away = set(choice.sample(several, round(left_out * len(several))))
    enrolled, known, unknown = [], [], []
    for name in sorted(people):
        photos = sorted(people[name])
        if name in away or len(photos) < _ENOUGH:
            unknown += [Probe(name, photo) for photo in photos]
            continue
        chosen = choice.choice(photos)
        enrolled.append(Probe(name, chosen))
        known += [Probe(name, photo) for photo in photos if photo != chosen]
    unknown += [Probe(name, photo) for name in sorted(strangers) for photo in sorted(strangers[name])]
    if not enrolled:
        raise NoOpenSet("there is nobody to enrol: give a folder per person with at least two photos with a face each")
    if not unknown:
        raise NoOpenSet("there is no stranger: give --strangers, or leave some people out with --left-out 0.2")
    return OpenSet(tuple(enrolled), tuple(known), tuple(unknown))


def search(people: OpenSet, embeddings: Mapping[str, Embedding]) -> Searches:
    """Compare every probe with every enrolled person; `embeddings` are L2-normalised, by photo."""
    numbers = {probe.person: number for number, probe in enumerate(people.enrolled)}
    gallery = np.stack([embeddings[probe.photo] for probe in people.enrolled])
    known = np.array([numbers[probe.person] for probe in people.known], dtype=np.intp)
    own, other = _nearest(people.known, known, gallery, embeddings)
    unknown = {name: number for number, name in enumerate({probe.person: None for probe in people.strangers})}
    strangers = np.array([unknown[probe.person] for probe in people.strangers], dtype=np.intp)
    _, nearest = _nearest(people.strangers, None, gallery, embeddings)
    return Searches(len(numbers), own, other, known, nearest, strangers)


def _nearest(
    probes: Sequence[Probe],
    owners: NDArray[np.intp] | None,
    gallery: NDArray[np.float32],
    embeddings: Mapping[str, Embedding],
) -> tuple[Floats, Floats]:
    """The similarities to the probe's own person and to the nearest other one; 0 if there is none."""
    own, other = np.zeros(len(probes)), np.zeros(len(probes))
    step = max(1, _AT_ONCE // len(gallery))
    for start in range(0, len(probes), step):
        rows = slice(start, start + step)
        cosines = np.stack([embeddings[probe.photo] for probe in probes[rows]]) @ gallery.T
        if owners is not None:
            each = np.arange(len(cosines))
            own[rows] = cosines[each, owners[rows]]
            cosines[each, owners[rows]] = -1
        other[rows] = cosines.max(axis=1)
    return np.clip(own, 0, 1), np.clip(other, 0, 1)


def assess_open_set(
    found: Searches,
    tail: ImpostorTail,
    threshold_for: Callable[[int], Estimate],
    others: Sequence[float] = (),
    larger: Sequence[int] = LARGER,
) -> OpenSetReport:
    """Return the rates at the service's threshold and at `others`, and the prediction for larger galleries.

    `threshold_for` gives the service's threshold for a number of people.
    """
    sizes = (found.identities, *(size for size in larger if size > found.identities))
    return OpenSetReport(
        identities=found.identities,
        known_probes=len(found.own),
        strangers=len(np.unique(found.strangers)),
        stranger_probes=len(found.nearest),
        rank_one=_measured(found.own > found.other, found.known),
        at=tuple(_rates(found, value) for value in (threshold_for(found.identities).value, *others)),
        expected=tuple(_expected(found.own, tail, threshold_for(size), size) for size in sizes),
    )


def _rates(found: Searches, threshold: float) -> IdentificationRates:
    named = np.maximum(found.own, found.other) >= threshold
    right = found.own > found.other
    return IdentificationRates(
        threshold,
        right_name=_measured(named & right, found.known),
        wrong_name=_measured(named & ~right, found.known),
        no_name=_measured(~named, found.known),
        strangers_named=_measured(found.nearest >= threshold, found.strangers),
    )


def _measured(hits: NDArray[np.bool_], people: NDArray[np.intp]) -> Measured:
    return Measured(float(hits.mean()), share_by_group(hits, people))


def _expected(own: Floats, tail: ImpostorTail, threshold: Estimate, identities: int) -> Expectation:
    """The rates with N enrolled people whose similarities to a probe are independent draws from the tail.

    FPIR = 1 - (1 - FMR)^N at the threshold. A known probe gets the right name if its own similarity reaches the
    threshold and none of the N - 1 others reaches that one. It gets a wrong name if another reaches both.
    """
    beaten = np.array([_any(tail.fmr_at(value).value, identities - 1) for value in own])
    by_named = _any(tail.fmr_at(threshold.value).value, identities - 1)
    enough = own >= threshold.value
    return Expectation(
        identities,
        threshold.value,
        threshold.extrapolated,
        right_name=float((enough * (1 - beaten)).mean()),
        wrong_name=float(np.where(enough, beaten, by_named).mean()),
        strangers_named=_any(tail.fmr_at(threshold.value).value, identities),
    )


def _any(rate: float, number: int) -> float:
    """The chance that at least one of so many independent comparisons matches: 1 - (1 - rate)^number."""
    return -math.expm1(number * math.log1p(-rate)) if rate < 1 else float(number > 0)
