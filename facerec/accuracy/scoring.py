"""Photo pairs become scored trials: each photo is detected, cropped and embedded once, as the worker does it."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.errors import FacerecError
from model.evaluation import Trials
from model.faces import ImageAnalysis
from model.header import InvalidImage

_SAME = {
    "1": True,
    "true": True,
    "yes": True,
    "same": True,
    "0": False,
    "false": False,
    "no": False,
    "different": False,
}


class InvalidPairs(FacerecError):
    """A list of pairs that cannot be read; the text names the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos by their files' names within a folder, and whether they show the same person."""

    left: str
    right: str
    same: bool
    fold: int | None = None


def read_pairs(path: Path) -> list[Pair]:
    """Read a list in either form, told by its first line; raises `InvalidPairs`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidPairs(f"the pairs in {path} cannot be read as text: {exc}") from exc
    first = lines[0] if lines else ""
    try:
        pairs = list(_lfw(lines) if first.replace("\t", " ").replace(" ", "").isdecimal() else _csv(lines))
    except ValueError as exc:
        raise InvalidPairs(f"the pairs in {path} cannot be used: {exc}") from exc
    if not pairs:
        raise InvalidPairs(f"{path} holds no pairs")
    if len({pair.fold is None for pair in pairs}) > 1:
        raise InvalidPairs(f"in {path} some pairs have a fold and some have none")
    return pairs


def _csv(lines: list[str]) -> Iterator[Pair]:
    rows = csv.DictReader(lines, strict=True, skipinitialspace=True)
    columns = {"left", "right", "same"}
    if missing := columns - set(rows.fieldnames or ()):
        raise ValueError(f"line 1 must name the columns left,right,same (and fold); {sorted(missing)} missing")
    try:
        for row in rows:
            if any(not row[name] for name in columns):
                raise ValueError(f"line {rows.line_num}: left, right and same must each have a value")
            same = _SAME.get(row["same"].strip().lower())
            if same is None:
                raise ValueError(f"line {rows.line_num}: same is {row['same']!r}, and must be 1 or 0")
            fold = row.get("fold") or None
            if fold is not None and not fold.strip().isdecimal():
                raise ValueError(f"line {rows.line_num}: fold is {fold!r}, and must be a whole number")
            yield _pair(row["left"], row["right"], rows.line_num, same=same, fold=None if fold is None else int(fold))
    except csv.Error as exc:
        raise ValueError(f"line {rows.line_num}: {exc}") from exc


def _lfw(lines: list[str]) -> Iterator[Pair]:
    numbers = [int(number) for number in lines[0].split()]
    if len(numbers) > 2 or 0 in numbers:  # noqa: PLR2004 - folds and pairs
        raise ValueError("line 1 must have the number of folds and that of the pairs of each kind in a fold")
    each = numbers[-1]
    folds = numbers[0] if len(numbers) > 1 else None
    rows = [(number, line.split()) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if len(rows) != (folds or 1) * 2 * each:
        raise ValueError(f"line 1 announces {(folds or 1) * 2 * each} pairs, and {len(rows)} follow")
    for index, (number, words) in enumerate(rows):
        fold = index // (2 * each) if folds else None
        match words:
            case [name, one, other] if one.isdecimal() and other.isdecimal():
                yield _pair(_photo(name, one), _photo(name, other), number, same=True, fold=fold)
            case [name, one, second, other] if one.isdecimal() and other.isdecimal():
                yield _pair(_photo(name, one), _photo(second, other), number, same=False, fold=fold)
            case _:
                raise ValueError(f"line {number} is neither `name n1 n2` nor `name1 n1 name2 n2`")


def _photo(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


def _pair(left: str, right: str, line: int, *, same: bool, fold: int | None) -> Pair:
    left, right = left.strip(), right.strip()
    if left == right:
        raise ValueError(f"line {line} compares a photo with itself")
    return Pair(left, right, same, fold)


Embedding = NDArray[np.float32]


class Skip(StrEnum):
    """Why a photo gives no embedding."""

    MISSING = "missing"
    """There is no such file, or it may not be read."""
    UNREADABLE = "unreadable"
    """The file is no picture that decodes."""
    NO_FACE = "no_face"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The trials of the pairs that could be used, and what became of the others."""

    trials: Trials
    folds: NDArray[np.intp] | None
    """The trials' folds, where every pair has one."""
    photos: int
    """How many photos the list names."""
    skipped_photos: Mapping[str, Skip]
    skipped_pairs: int

    @property
    def reasons(self) -> dict[str, int]:
        """How many photos were skipped for each reason."""
        return dict(sorted(Counter(str(reason) for reason in self.skipped_photos.values()).items()))


def photos_of(pairs: Sequence[Pair]) -> list[str]:
    """Every photo that the pairs name, once, in their order."""
    return list(dict.fromkeys(photo for pair in pairs for photo in (pair.left, pair.right)))


def embed_photos(
    photos: Iterable[str], folder: Path, analyse: Callable[[bytes], ImageAnalysis]
) -> dict[str, Embedding | Skip]:
    """Return the embedding of each photo's primary face, float32 (D,), or why there is none.

    `analyse` returns a picture's faces, the primary one first, and raises `InvalidImage`.
    """
    return {photo: _embedding(folder / photo, analyse) for photo in photos}


def _embedding(path: Path, analyse: Callable[[bytes], ImageAnalysis]) -> Embedding | Skip:
    try:
        faces = analyse(path.read_bytes()).faces
    except OSError:
        return Skip.MISSING
    except InvalidImage:
        return Skip.UNREADABLE
    return faces[0].embedding if faces else Skip.NO_FACE


def score(pairs: Sequence[Pair], found: Mapping[str, Embedding | Skip]) -> Scored:
    """Compare the two photos of each pair; pairs of a skipped photo are skipped and counted."""
    numbers = {photo: number for number, photo in enumerate(found)}
    usable = [pair for pair in pairs if not any(isinstance(found[photo], Skip) for photo in (pair.left, pair.right))]
    cosines = [float(np.dot(found[pair.left], found[pair.right])) for pair in usable]
    folded = bool(usable) and all(pair.fold is not None for pair in usable)
    return Scored(
        Trials(
            np.array(cosines, dtype=np.float64),
            np.array([pair.same for pair in usable], dtype=bool),
            np.array([numbers[pair.left] for pair in usable], dtype=np.intp),
            np.array([numbers[pair.right] for pair in usable], dtype=np.intp),
        ),
        np.array([pair.fold for pair in usable], dtype=np.intp) if folded else None,
        photos=len(found),
        skipped_photos={photo: value for photo, value in found.items() if isinstance(value, Skip)},
        skipped_pairs=len(pairs) - len(usable),
    )
