"""Which face counts, and whose it is: pure functions and an index over arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.faces import Box


@dataclass(frozen=True, slots=True)
class Match:
    """An identity with its best template and the similarity max(0, cosine), from 0 to 1."""

    identity: str
    similarity: float
    template_id: str


def primary_order(boxes: Sequence[Box], width: int, height: int, center_weight: float) -> list[int]:
    """Return the boxes' indices, the picture's subject first.

    The rank is area - `center_weight` · squared distance from box centre to picture centre, all in pixels of a
    picture of `width` by `height`: facenet-pytorch's "center_weighted_size". Equal ranks keep their order.
    """
    if not boxes:
        return []
    corners = np.array([(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes])
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    offsets = (corners[:, :2] + corners[:, 2:]) / 2 - (width / 2, height / 2)
    rank = areas - center_weight * (offsets**2).sum(axis=1)
    order: list[int] = np.argsort(-rank, kind="stable").tolist()
    return order


class GalleryIndex:
    """Enrolled templates, searchable by cosine similarity; immutable and safe to search from several threads.

    `embeddings` is float32 (N, D), L2-normalised, row i belonging to `identities[i]` and `template_ids[i]`. Raises
    ValueError when the three differ in length.
    """

    def __init__(self, embeddings: NDArray[np.float32], identities: Sequence[str], template_ids: Sequence[str]) -> None:
        if not len(embeddings) == len(identities) == len(template_ids):
            raise ValueError(
                f"{len(embeddings)} embeddings, {len(identities)} identities and {len(template_ids)} template ids"
            )
        # Grouped by identity, so that the best template of each is one `reduceat` over neighbouring columns.
        numbers: dict[str, int] = {}
        owners = np.array([numbers.setdefault(identity, len(numbers)) for identity in identities], dtype=np.intp)
        order = np.argsort(owners, kind="stable")
        self._names = list(numbers)
        self._identity = owners[order]
        self._firsts = np.searchsorted(self._identity, np.arange(len(numbers)), side="left")
        self._ends = np.searchsorted(self._identity, np.arange(len(numbers)), side="right")
        self._template_ids = [template_ids[row] for row in order]
        self._embeddings = np.ascontiguousarray(embeddings[order], dtype=np.float32)

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self._template_ids)

    def search(self, queries: NDArray[np.float32], limit: int = 1) -> list[list[Match]]:
        """Return for each query (M, D), L2-normalised, its `limit` nearest identities, the most similar first.

        An identity appears once, with its best template; equals come in the order of enrolment. An empty gallery
        gives empty lists. No threshold is applied. Raises ValueError for a `limit` below 1.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, at least one match must be asked for")
        if not len(self):
            return [[] for _ in queries]
        cosines = queries @ self._embeddings.T
        if limit == 1:
            best = cosines.argmax(axis=1)
            return [[self._match(row, template)] for row, template in zip(cosines, best, strict=True)]
        return [self._nearest(row, limit) for row in cosines]

    def _nearest(self, cosines: NDArray[np.float32], limit: int) -> list[Match]:
        by_identity = np.maximum.reduceat(cosines, self._firsts)
        numbers = np.arange(len(by_identity))
        if limit < len(numbers):
            # Only the few that can be among the nearest are sorted.
            numbers = np.flatnonzero(by_identity >= np.partition(by_identity, -limit)[-limit])
        numbers = numbers[np.argsort(-by_identity[numbers], kind="stable")][:limit]
        return [
            self._match(cosines, first + cosines[first:end].argmax())
            for first, end in zip(self._firsts[numbers], self._ends[numbers], strict=True)
        ]

    def _match(self, cosines: NDArray[np.float32], template: np.intp) -> Match:
        similarity = min(max(0.0, float(cosines[template])), 1.0)
        return Match(self._names[self._identity[template]], similarity, self._template_ids[template])
