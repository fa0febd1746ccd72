"""What `benchmarks.accuracy` makes of a folder, and of pairs."""

from pathlib import Path

import numpy as np
import pytest

from model.evaluation import Trials
from tests.support.measurements.accuracy import Photo, d_prime, distinct, figures, labelled


def touched(folder: Path, *names: str) -> Path:
    """Make files, each with its name as content."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (
            ["known/Ann/1.jpg", "known/Ann/2.jpg", "strangers/x.jpg", "strangers/y.jpg"],
            ["Ann", "Ann", "x.jpg", "y.jpg"],
        ),
        (["Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg"], ["Ann", "Ann", "Bob"]),
        (["1.jpg", "2.jpg", "README.md"], ["1.jpg", "2.jpg"]),
    ],
)
def test_labelled_reads_people_from_folders(tmp_path: Path, names: list[str], people: list[str]) -> None:
    """There may be known people and strangers, a folder per person, or a photo per person."""
    assert [photo.person for photo in labelled(touched(tmp_path, *names))] == people


def test_distinct_drops_copies(tmp_path: Path) -> None:
    """A picture compared with itself says nothing."""
    first, copy = tmp_path / "1.jpg", tmp_path / "2.jpg"
    first.write_bytes(b"the same")
    copy.write_bytes(b"the same")
    assert distinct([Photo(first, "Ann"), Photo(copy, "Ann")]) == [Photo(first, "Ann")]


def trials(genuine: list[float], impostor: list[float]) -> Trials:
    """Return scored pairs, no photo in two of them."""
    numbers = np.arange(len(genuine) + len(impostor))
    same = numbers < len(genuine)
    return Trials(np.array([*genuine, *impostor]), same, 2 * numbers, 2 * numbers + 1)


def test_d_prime_is_the_distance_of_the_means_in_spreads() -> None:
    """The means are 0.8 apart, and each spread is 0.1."""
    assert d_prime(trials([0.8, 1.0], [0.0, 0.2])) == pytest.approx(8)


def test_figures_say_whether_people_are_told_apart() -> None:
    """One impostor pair that reaches the threshold is enough to fail."""
    pairs = trials([0.9], [0.1, 0.4])
    assert figures(pairs, 0.41)["told_apart"]
    assert not figures(pairs, 0.4)["told_apart"]
