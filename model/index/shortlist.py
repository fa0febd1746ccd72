"""The nearest identities of one query, found exactly from scores whose error is bounded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.index.blocks import Block
from model.index.vectors import RowsDamaged

_GROUP = 64
"""Scores whose maximum stands for them while the first floor is sought."""
_MANY = 256
"""From so many candidates on, those that a better template of their identity rules out are dropped first."""
_AT_ONCE = 4096
"""Rows that are looked at in full precision at a time: 16 MB as float64 at 512 dimensions."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A template near a query; `position` counts rows in the order of enrolment."""

    cosine: float
    position: int
    owner: int
    template_id: str

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts the most similar first and equals in the order of enrolment."""
        return -self.cosine, self.position


class Shortlist:
    """The `limit` nearest identities of one query (D,) among the blocks offered so far, in full precision.

    No template is missed: one that is left out has a score that, even with the largest possible error, is below the
    cosine of the `limit`-th best identity.
    """

    def __init__(self, query: NDArray[np.float32], limit: int) -> None:
        self._query = query.astype(np.float64)
        self._limit = limit
        self._best: dict[int, Hit] = {}
        self._floor = -np.inf

    def offer(self, block: Block, scores: NDArray[np.float32], error: float, first_position: int) -> None:
        """Take in a block by its scores (N,), none of which misses its cosine by more than `error`."""
        if self._floor == -np.inf:
            self._look_at(block, self._promising(block, scores), scores, error, first_position)
        offsets = np.flatnonzero(scores >= self._floor - error)
        offsets = offsets[block.alive[offsets]]
        if len(offsets) > _MANY:
            offsets = _possible_best(offsets, block.owners[offsets], scores[offsets], error)
        for start in range(0, len(offsets), _AT_ONCE):
            self._look_at(block, offsets[start : start + _AT_ONCE], scores, error, first_position)

    def hits(self) -> list[Hit]:
        """Return the best template of each of the nearest identities, the most similar first."""
        return sorted(self._best.values(), key=lambda hit: hit.rank)[: self._limit]

    def _promising(self, block: Block, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """A few offsets with high scores, whose cosines give a floor to begin with."""
        groups = scores[: len(scores) // _GROUP * _GROUP].reshape(-1, _GROUP)
        wanted = 2 * self._limit
        heads = groups.max(axis=1) if len(groups) > wanted else scores
        if len(heads) <= wanted:
            return np.arange(0)
        offsets = np.flatnonzero(scores >= np.partition(heads, -wanted)[-wanted])
        return offsets[block.alive[offsets]][:_MANY]

    def _look_at(
        self, block: Block, offsets: NDArray[np.intp], scores: NDArray[np.float32], error: float, first_position: int
    ) -> None:
        # Row by row in float64, not as one product: a cosine depends on query and template, not on their neighbours.
        cosines = np.vecdot(block.vectors.take(offsets).astype(np.float64), self._query)
        if not (np.abs(cosines - scores[offsets]) <= error).all():
            raise RowsDamaged("a template's embedding contradicts its code")
        owners = block.owners[offsets].tolist()
        for offset, cosine, owner in zip(offsets.tolist(), cosines.tolist(), owners, strict=True):
            known = self._best.get(owner)
            if known is None or cosine > known.cosine:
                self._best[owner] = Hit(cosine, first_position + offset, owner, block.template_ids[offset])
        if len(self._best) >= self._limit:
            # An identity that falls out here can only come back by a template at or above the floor, which is seen.
            self._best = {hit.owner: hit for hit in self.hits()}
            self._floor = min(hit.cosine for hit in self._best.values())


def _possible_best(
    offsets: NDArray[np.intp], owners: NDArray[np.int32], scores: NDArray[np.float32], error: float
) -> NDArray[np.intp]:
    """The offsets that could be their identity's best template."""
    names, numbers = np.unique(owners, return_inverse=True)
    best = np.full(len(names), -np.inf, dtype=np.float32)
    np.maximum.at(best, numbers, scores)
    return offsets[scores >= best[numbers] - 2 * error]
