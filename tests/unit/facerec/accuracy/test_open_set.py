"""Galleries and strangers: who is enrolled, what is counted, and what is predicted for more people."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import facerec.accuracy.open_set
from facerec.accuracy.open_set import (
    NoOpenSet,
    OpenSet,
    Probe,
    Searches,
    assess_open_set,
    divide,
    people_in,
    search,
    strangers_in,
)
from model.tail import Estimate, identification_threshold
from tests.support.tails import TAILS

TAIL = TAILS["accurate"]
PEOPLE = {f"person {number}": [f"{number}/a", f"{number}/b", f"{number}/c"] for number in range(10)}


def fixed(threshold: float) -> Callable[[int], Estimate]:
    """The same threshold for every number of people."""
    return lambda _identities: Estimate(threshold, extrapolated=False)


def searches(own: list[float], other: list[float], nearest: list[float], identities: int = 100) -> Searches:
    """Of people with one probe each."""
    columns = np.array(own), np.array(other), np.array(nearest)
    return Searches(
        identities, columns[0], columns[1], np.arange(len(own)), columns[2], np.arange(len(nearest), dtype=np.intp)
    )


def test_folders_are_people_and_single_photos_are_strangers(tmp_path: Path) -> None:
    """Hidden files and empty folders are left out."""
    for name in ("Ada/1.jpg", "Ada/2.jpg", "Bea/1.jpg", "loose.jpg", ".hidden", "Bea/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Nobody").mkdir()
    people = people_in(tmp_path)
    assert {name: [Path(photo).name for photo in photos] for name, photos in people.items()} == {
        "Ada": ["1.jpg", "2.jpg"],
        "Bea": ["1.jpg"],
    }
    assert strangers_in(tmp_path) == people | {"loose.jpg": [str(tmp_path / "loose.jpg")]}


def test_people_with_several_photos_are_enrolled_by_one() -> None:
    """Their others are probes, and people with one photo are strangers with those that are given."""
    chosen = divide(PEOPLE | {"alone": ["alone/a"]}, {"guest": ["guest"]}, 0, seed=0)
    assert [probe.person for probe in chosen.enrolled] == sorted(PEOPLE)
    both = sorted(probe.photo for probe in (*chosen.enrolled, *chosen.known))
    assert both == sorted(photo for photos in PEOPLE.values() for photo in photos)
    assert chosen.strangers == (Probe("alone", "alone/a"), Probe("guest", "guest"))


def test_same_seed_makes_the_same_choice() -> None:
    """In any order of the people; another seed makes another choice."""
    draw = partial(divide, strangers={}, left_out=0.3)
    one = draw(PEOPLE, seed=1)
    assert draw(dict(reversed(PEOPLE.items())), seed=1) == one
    assert draw(PEOPLE, seed=2) != one
    away = {probe.person for probe in one.strangers}
    assert (len(away), len(one.enrolled), len(one.strangers)) == (3, 7, 9)
    assert not away & {probe.person for probe in (*one.enrolled, *one.known)}


@pytest.mark.parametrize(
    ("people", "strangers", "complaint"),
    [
        (PEOPLE, {}, "--left-out"),
        ({"alone": ["a"]}, {"guest": ["g"]}, "nobody to enrol"),
        (PEOPLE, {"person 3": ["x"]}, "person 3 is a person and a stranger"),
    ],
)
def test_open_set_needs_people_and_strangers(
    people: dict[str, list[str]], strangers: dict[str, list[str]], complaint: str
) -> None:
    """The error says what to give."""
    with pytest.raises(NoOpenSet, match=complaint):
        divide(people, strangers, 0, seed=0)


@pytest.mark.parametrize("at_once", [4_000_000, 1])
def test_each_probe_is_compared_with_every_enrolled_person(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own person apart from the others; opposite faces have similarity 0."""
    monkeypatch.setattr(facerec.accuracy.open_set, "_AT_ONCE", at_once)
    axes = np.eye(4, dtype=np.float32)
    embeddings = {"a1": axes[0], "b1": axes[1], "a2": 0.6 * axes[0] + 0.8 * axes[1], "b2": axes[2], "s": -axes[0]}
    people = OpenSet(
        (Probe("Ada", "a1"), Probe("Bea", "b1")), (Probe("Ada", "a2"), Probe("Bea", "b2")), (Probe("guest", "s"),)
    )
    found = search(people, embeddings)
    assert found.identities == 2
    assert found.own == pytest.approx([0.6, 0])
    assert found.other == pytest.approx([0.8, 0])
    assert found.nearest == pytest.approx([0])


def test_rates_are_counted_at_the_services_threshold_and_at_others() -> None:
    """Of four known probes one has the right name, one another's, one is below, one is below and not the nearest."""
    found = searches([0.6, 0.4, 0.3, 0.1], [0.2, 0.5, 0.2, 0.2], [0.1, 0.2, 0.3, 0.5])
    report = assess_open_set(found, TAIL, fixed(0.4), [0.25])
    ours, other = report.at
    assert (ours.threshold, other.threshold) == (0.4, 0.25)
    assert (ours.right_name.value, ours.wrong_name.value, ours.no_name.value) == (0.25, 0.25, 0.5)
    assert (other.right_name.value, other.wrong_name.value, other.no_name.value) == (0.5, 0.25, 0.25)
    assert (ours.strangers_named.value, other.strangers_named.value) == (0.25, 0.5)
    assert report.rank_one.value == 0.5


def test_more_probes_of_one_person_make_the_interval_no_narrower() -> None:
    """Ten photos each of ten people, one of them never recognised, are evidence of ten people."""
    people = np.repeat(np.arange(10), 10)
    own = np.where(people == 0, 0.1, 0.9)
    alone = searches(own.tolist(), [0.0] * 100, [0.0])
    together = Searches(100, alone.own, alone.other, people, alone.nearest, alone.strangers)
    intervals = [assess_open_set(one, TAIL, fixed(0.5)).at[0].right_name.interval for one in (alone, together)]
    assert intervals[0] is not None
    assert intervals[1] is not None
    assert intervals[0].low > 0.8
    assert intervals[1].low <= 0.7


def test_rates_for_more_people_come_from_the_tail() -> None:
    """They agree with a simulation of every impostor of every search."""
    own = np.random.default_rng(0).uniform(0.2, 0.7, 300)
    threshold_for = partial(identification_threshold, TAIL, 0.234, 0.2)
    _, expected = assess_open_set(
        searches(own.tolist(), [0.0] * 300, [0.0], identities=10), TAIL, threshold_for, larger=[5, 1000]
    ).expected
    assert (expected.identities, expected.threshold) == (1000, threshold_for(1000).value)
    random, searches_each = np.random.default_rng(1), 20
    right, wrong, named = [], [], []
    for value in np.repeat(own, searches_each):
        rates = 1 - random.random(999)
        nearest = TAIL.similarity_at(float(rates.min())).value
        right.append(bool(value >= expected.threshold and value > nearest))
        wrong.append(bool(nearest >= expected.threshold and nearest > value))
        named.append(nearest >= expected.threshold)
    assert expected.right_name == pytest.approx(np.mean(right), abs=0.015)
    assert expected.wrong_name == pytest.approx(np.mean(wrong), abs=0.015)
    assert expected.strangers_named == pytest.approx(np.mean(named), abs=0.015)
    assert expected.strangers_named <= 0.2
