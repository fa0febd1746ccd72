"""Other people who look like a face that is enrolled: the same person under another name, or a look-alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facerec.comparison import MATCHES_PER_FACE, GalleryReader, ModelThresholds
from facerec.gallery.names import same_person
from model.matching import GalleryIndex, Match


def look_alikes(index: GalleryIndex, embedding: NDArray[np.float32], identity: str, threshold: float) -> list[Match]:
    """Return other people than `identity` at or above the threshold, the most similar first; at most five.

    A person is compared by the most similar template, whatever the collection's matching is.
    """
    (found,) = index.search(embedding[None], limit=MATCHES_PER_FACE + 1)
    others = [match for match in found if match.similarity >= threshold and not same_person(match.identity, identity)]
    return others[:MATCHES_PER_FACE]


def look_alike_text(found: Sequence[Match]) -> str:
    """Return `also matches Jane Smith 0.81`; empty without anybody."""
    names = ", ".join(f"{match.identity} {match.similarity:.2f}" for match in found)
    return f"also matches {names}" if found else ""


class LookAlikes:
    """Finds look-alikes for a command that enrols many photos: each collection is read once, and kept up to date.

    The threshold is the collection's own, or the model's for its number of people.
    """

    def __init__(self, gallery: GalleryReader, thresholds: ModelThresholds) -> None:
        self._gallery = gallery
        self._thresholds = thresholds
        self._known: dict[str, tuple[GalleryIndex, float | None]] = {}

    def find(self, collection: str, embedding: NDArray[np.float32], identity: str) -> tuple[Match, ...]:
        """Return the look-alikes of a person's face; raises `Transient`."""
        index, calibrated = self._collection(collection)
        threshold = self._thresholds.threshold(index.identities).value if calibrated is None else calibrated
        return tuple(look_alikes(index, embedding, identity, threshold))

    def add(self, collection: str, embedding: NDArray[np.float32], identity: str, template_id: str) -> None:
        """Know a template that was stored since the collection was read; raises `Transient`."""
        self._collection(collection)[0].add(embedding[None], [identity], [template_id])

    def _collection(self, collection: str) -> tuple[GalleryIndex, float | None]:
        if collection not in self._known:
            self._known[collection] = self._gallery.index(collection), self._gallery.threshold(collection)
        return self._known[collection]
