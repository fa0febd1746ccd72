"""Photo pairs become scored trials: each photo is detected, cropped and embedded once, as the worker does it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.pairs import Pair
from model.evaluation import Trials
from model.faces import ImageAnalysis
from model.header import InvalidImage

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
