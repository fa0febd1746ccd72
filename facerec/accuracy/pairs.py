"""Accuracy on labelled pairs of photos: the list is read, its photos embedded once, and the trials assessed."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.errors import FacerecError
from model.evaluation import (
    FoldAccuracy,
    Interval,
    Ranking,
    Trials,
    bootstrap,
    fold_accuracy,
    method,
    pairs_needed,
    share_interval,
    threshold_at,
)
from model.faces import ImageAnalysis
from model.header import InvalidImage

_SAME = dict.fromkeys(("1", "true", "yes", "same"), True) | dict.fromkeys(("0", "false", "no", "different"), False)


class InvalidPairs(FacerecError):
    """A list of pairs is unreadable; the text names the line and its fault."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos by their paths within a folder, and whether they show the same person."""

    left: str
    right: str
    same: bool
    fold: int | None = None


def read_pairs(path: Path) -> list[Pair]:
    """Read a list as CSV or in LFW's form, which begins with numbers; raises `InvalidPairs`."""
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
    """The file is missing or not readable."""
    UNREADABLE = "unreadable"
    """The file does not decode as a picture."""
    NO_FACE = "no_face"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The trials of the usable pairs, and what was skipped."""

    trials: Trials
    folds: NDArray[np.intp] | None
    """The trials' folds, if every pair has one."""
    photos: int
    """The number of photos that the list names."""
    skipped_photos: Mapping[str, Skip]
    skipped_pairs: int


def photos_of(pairs: Sequence[Pair]) -> list[str]:
    """Return every photo that the pairs name, once, in their order."""
    return list(dict.fromkeys(photo for pair in pairs for photo in (pair.left, pair.right)))


def embed_photos(
    photos: Iterable[str], folder: Path, analyse: Callable[[bytes], ImageAnalysis]
) -> dict[str, Embedding | Skip]:
    """Return the embedding of each photo's primary face, float32 (D,), or the reason to skip it.

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


TARGETS = (1e-2, 1e-3, 1e-4)
"""The reported false match rates."""
_PAIRS_DRAWN = 200_000_000
"""Pairs times draws of a bootstrap: 1000 draws for up to 200 000 pairs, fewer for more, 100 at least."""
_NOISE = 1e-9  # of rounding, in rates that are the same


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its interval; `None` for a single pair, and if every draw of the bootstrap gives the same."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Both rates at a threshold; a rate is `None` without a pair of its kind."""

    threshold: float
    fmr: Measured | None
    tar: Measured | None


_RATES = tuple(field.name for field in fields(OperatingPoint))


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """Figures of one set of trials; `None` if the trials cannot give them."""

    genuine_pairs: int
    impostor_pairs: int
    auc: Measured | None
    eer: Measured | None
    at_fmr: dict[float, OperatingPoint | None]
    """By target; `None` without impostor pairs."""
    at_threshold: OperatingPoint
    """At the threshold in use."""
    folds: FoldAccuracy | None
    intervals: str
    """The method of the intervals."""

    def weak(self, target: float) -> bool:
        """Whether there are fewer than 10/FMR impostor pairs: the rate rests on few false matches, or on none."""
        return self.impostor_pairs < pairs_needed(target)

    def to_json(self) -> dict[str, Any]:
        """Return the figures for `json.dumps`."""
        plain = asdict(self)
        plain["at_fmr"] = {
            f"{target:g}": (dict.fromkeys(_RATES) if point is None else asdict(point))
            | {"weak": self.weak(target), "impostor_pairs_needed": pairs_needed(target)}
            for target, point in self.at_fmr.items()
        }
        return plain


def assess(
    trials: Trials, folds: NDArray[np.intp] | None, threshold: float, targets: Sequence[float] = TARGETS
) -> AccuracyReport:
    """Return the figures; `folds` number the trials for LFW's protocol, `threshold` is the one in use."""
    genuine, impostor = len(trials.genuine), len(trials.impostor)
    auc = eer = None
    if genuine and impostor:
        curve = Ranking(trials).curve()
        ranges = bootstrap(trials, lambda drawn: (drawn.auc, drawn.eer), draws=_draws(len(trials.cosines)))
        auc, eer = (
            Measured(value, interval if interval.high - interval.low > _NOISE else None)
            for value, interval in zip((curve.auc, curve.eer), ranges, strict=True)
        )
    return AccuracyReport(
        genuine_pairs=genuine,
        impostor_pairs=impostor,
        auc=auc,
        eer=eer,
        at_fmr={
            target: operating_point(trials, threshold_at(trials.impostor, target)) if impostor else None
            for target in targets
        },
        at_threshold=operating_point(trials, threshold),
        folds=None if folds is None or len(np.unique(folds)) == 1 else fold_accuracy(trials, folds),
        intervals=method(trials),
    )


def operating_point(trials: Trials, threshold: float) -> OperatingPoint:
    """Return both rates at a threshold with their intervals."""
    return OperatingPoint(
        threshold, _share(trials.where(~trials.same), threshold), _share(trials.where(trials.same), threshold)
    )


def _share(trials: Trials, threshold: float) -> Measured | None:
    hits = trials.cosines >= threshold
    if not len(hits):
        return None
    return Measured(float(hits.mean()), share_interval(hits, trials, draws=_draws(len(hits))))


def _draws(pairs: int) -> int:
    return min(1000, max(100, _PAIRS_DRAWN // pairs))
