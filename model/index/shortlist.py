"""The nearest identities of one query, found exactly from scores whose error is bounded."""

from typing import NamedTuple

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


class Hit(NamedTuple):
    """A template near a query; sorts the most similar first, and equals in the order of enrolment."""

    distance: float
    """The cosine's negative."""
    position: int
    """Counts rows in the order of enrolment."""
    owner: int
    template_id: str


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
        seen = np.inf
        if self._floor == -np.inf:
            offsets, seen = self._promising(block, scores)
            self._look_at(block, offsets, scores, error, first_position)
        offsets = np.flatnonzero(scores >= self._floor - error)
        offsets = offsets[block.alive[offsets] & (scores[offsets] < seen)]
        if len(offsets) > _MANY:
            offsets = _possible_best(offsets, block.owners[offsets], scores[offsets], error)
        for start in range(0, len(offsets), _AT_ONCE):
            self._look_at(block, offsets[start : start + _AT_ONCE], scores, error, first_position)

    def hits(self) -> list[Hit]:
        """Return the best template of each of the nearest identities, the most similar first."""
        return sorted(self._best.values())[: self._limit]

    def _promising(self, block: Block, scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], float]:
        """A few offsets with high scores, whose cosines give a floor to begin with, and the score that they all reach.

        All that reach this score are among them.
        """
        groups = scores[: len(scores) // _GROUP * _GROUP].reshape(-1, _GROUP)
        wanted = 2 * self._limit
        heads = groups.max(axis=1) if len(groups) > wanted else scores
        if len(heads) <= wanted:
            return np.arange(0), np.inf
        least = np.partition(heads, -wanted)[-wanted]
        offsets = np.flatnonzero(scores >= least)
        offsets = offsets[block.alive[offsets]]
        return (offsets, least) if len(offsets) <= _MANY else (offsets[:_MANY], np.inf)

    def _look_at(
        self, block: Block, offsets: NDArray[np.intp], scores: NDArray[np.float32], error: float, first_position: int
    ) -> None:
        if not len(offsets):
            return
        # Row by row in float64, not as one product: a cosine depends on query and template, not on their neighbours.
        cosines = np.vecdot(block.vectors.take(offsets).astype(np.float64), self._query)
        if not (np.abs(cosines - scores[offsets]) <= error).all():
            raise RowsDamaged("a template's embedding contradicts its code")
        near = cosines >= self._floor
        offsets, cosines = offsets[near], cosines[near]
        owners = block.owners[offsets].tolist()
        for offset, cosine, owner in zip(offsets.tolist(), cosines.tolist(), owners, strict=True):
            hit = Hit(-cosine, first_position + offset, owner, block.template_ids[offset])
            known = self._best.get(owner)
            if known is None or hit < known:
                self._best[owner] = hit
        if len(self._best) >= self._limit:
            # An identity that falls out here can only come back by a template at or above the floor, which is seen.
            nearest = self.hits()
            self._best = {hit.owner: hit for hit in nearest}
            self._floor = -nearest[-1].distance


def _possible_best(
    offsets: NDArray[np.intp], owners: NDArray[np.int32], scores: NDArray[np.float32], error: float
) -> NDArray[np.intp]:
    """The offsets that could be their identity's best template."""
    names, numbers = np.unique(owners, return_inverse=True)
    best = np.full(len(names), -np.inf, dtype=np.float32)
    np.maximum.at(best, numbers, scores)
    return offsets[scores >= best[numbers] - 2 * error]
