"""Blocks of neighbouring templates, and the exact search over them from scores whose error is bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.index.norms import ROUNDED_TOLERANCE
from model.index.vectors import Codes, Float32Vectors, Int8Vectors, Rows, RowsDamaged, Vectors

Embeddings = NDArray[np.float32] | NDArray[np.float16]
"""(N, D), L2-normalised; an index keeps what float16 can hold of them."""
PutAside = Callable[[NDArray[np.float32]], Rows]
"""Stores embeddings (N, D), and returns where they can be read."""

_LONGEST = 1 + ROUNDED_TOLERANCE  # the bounds of the search depend on it
_GROUP = 64  # scores that are represented by their maximum while the first floor is determined
_MANY = 256
"""From so many candidates on, those that a better template of the same identity excludes are dropped first."""
_AT_ONCE = 4096  # rows compared in full precision at a time: 16 MB as float64 at 512 dimensions


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring templates of a gallery; immutable except `alive`, in which a removal clears a row."""

    vectors: Vectors
    owners: NDArray[np.int32]
    """(N,): the number of each template's identity."""
    template_ids: list[str]
    """At least N."""
    alive: NDArray[np.bool_]
    """(N,)."""

    def __len__(self) -> int:
        """Return the number of rows, including removed ones."""
        return len(self.owners)

    def encoded(self, put_aside: PutAside = Float32Vectors) -> "Block":
        """Return the block of float32 with 8-bit codes in memory; `put_aside` keeps the vectors in full precision."""
        known = self.vectors
        embeddings = known.embeddings if isinstance(known, Float32Vectors) else known.take(np.arange(len(self)))
        vectors = Int8Vectors(Codes.of(embeddings), put_aside(embeddings))
        return Block(vectors, self.owners.copy(), self.template_ids, self.alive.copy())


class RecentRows:
    """Growing arrays of the templates that are not encoded yet; a block shows the templates at its moment."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self.dimension = dimension
        self.count = 0
        self._embeddings = np.empty((capacity, dimension), dtype=np.float32)
        self._owners = np.empty(capacity, dtype=np.int32)
        self._alive = np.ones(capacity, dtype=np.bool_)
        self._template_ids: list[str] = []

    def extend(self, embeddings: NDArray[np.float32], owners: NDArray[np.int32], template_ids: Sequence[str]) -> None:
        """Append rows; earlier blocks do not change."""
        count = self.count + len(embeddings)
        if count > len(self._owners):
            capacity = max(count, 2 * len(self._owners))
            # Rows that are not used yet are not touched, so they need no memory.
            known, self._embeddings = self._embeddings, np.empty((capacity, self.dimension), np.float32)
            self._embeddings[: self.count] = known[: self.count]
            more = capacity - self.count
            self._owners = np.concatenate((self._owners[: self.count], np.empty(more, np.int32)))
            self._alive = np.concatenate((self._alive[: self.count], np.ones(more, np.bool_)))
        self._embeddings[self.count : count] = embeddings
        self._owners[self.count : count] = owners
        self._template_ids.extend(template_ids)
        self.count = count

    def block(self) -> Block:
        """Return the rows so far."""
        vectors = Float32Vectors(self._embeddings[: self.count])
        return Block(vectors, self._owners[: self.count], self._template_ids, self._alive[: self.count])


def checked(
    embeddings: Embeddings,
    identities: Sequence[str],
    template_ids: Sequence[str],
    dimension: int | None,
) -> NDArray[np.float32]:
    """Return the embeddings rounded to float16, as float32; `dimension` is the gallery's, or None if it is empty.

    Raises ValueError if the lengths differ, for another dimension, and for a norm far above 1 or NaN: the caller has
    left out what is not `normalised`.
    """
    if not len(embeddings) == len(identities) == len(template_ids):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(identities)} identities and {len(template_ids)} template ids"
        )
    if not len(embeddings):
        return np.asarray(embeddings, dtype=np.float32)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and has no norm near 1
        rows = np.ascontiguousarray(embeddings, dtype=np.float16).astype(np.float32)
    if rows.ndim != 2 or dimension not in {None, rows.shape[1]}:  # noqa: PLR2004
        raise ValueError(f"embeddings of shape {rows.shape}, expected (N, {dimension or 'D'})")
    if not (np.einsum("nd,nd->n", rows, rows) <= _LONGEST**2).all():
        raise ValueError("a template is not normalised")
    return rows


class Hit(NamedTuple):
    """A template near a query; sorts the most similar first, and ties in the order of enrolment."""

    distance: float
    """The negative cosine."""
    position: int
    """The row's number in the order of enrolment."""
    owner: int
    template_id: str


class Shortlist:
    """The `limit` nearest identities of one query (D,) among the blocks offered so far, in full precision.

    It misses no template: a template is left out only if its score, plus the largest possible error, is below the
    cosine of the `limit`-th best identity.
    """

    def __init__(self, query: NDArray[np.float32], limit: int) -> None:
        self._query = query.astype(np.float64)
        self._limit = limit
        self._best: dict[int, Hit] = {}
        self._floor = -np.inf

    def offer(self, block: Block, scores: NDArray[np.float32], error: float, first_position: int) -> None:
        """Add a block by its scores (N,), each within `error` of its cosine; raises `RowsDamaged`."""
        seen = np.inf
        if self._floor == -np.inf:
            offsets, seen = self._promising(block, scores)
            self._compare(block, offsets, scores, error, first_position)
        offsets = np.flatnonzero(scores >= self._floor - error)
        offsets = offsets[block.alive[offsets] & (scores[offsets] < seen)]
        if len(offsets) > _MANY:
            offsets = _possible_best(offsets, block.owners[offsets], scores[offsets], error)
        for start in range(0, len(offsets), _AT_ONCE):
            self._compare(block, offsets[start : start + _AT_ONCE], scores, error, first_position)

    def hits(self) -> list[Hit]:
        """Return the best template of each of the nearest identities, the most similar first."""
        return sorted(self._best.values())[: self._limit]

    def _promising(self, block: Block, scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], float]:
        """Return a few offsets with high scores, whose cosines give the first floor, and their least score.

        All offsets with at least this score are among them.
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

    def _compare(
        self, block: Block, offsets: NDArray[np.intp], scores: NDArray[np.float32], error: float, first_position: int
    ) -> None:
        """Compute the cosines at these offsets and keep the nearest identities."""
        if not len(offsets):
            return
        # Row by row in float64, not as one product: a cosine must not depend on neighbouring rows.
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
            # An identity dropped here can only return with a template at or above the floor, which is compared.
            nearest = self.hits()
            self._best = {hit.owner: hit for hit in nearest}
            self._floor = -nearest[-1].distance


def _possible_best(
    offsets: NDArray[np.intp], owners: NDArray[np.int32], scores: NDArray[np.float32], error: float
) -> NDArray[np.intp]:
    """Return the offsets that could be the best template of their identity."""
    names, numbers = np.unique(owners, return_inverse=True)
    best = np.full(len(names), -np.inf, dtype=np.float32)
    np.maximum.at(best, numbers, scores)
    return offsets[scores >= best[numbers] - 2 * error]
