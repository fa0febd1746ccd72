"""Neighbouring templates of a gallery: full blocks, and the growing one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.index.vectors import Codes, Float32Vectors, Int8Vectors, Rows, Vectors

PutAside = Callable[[NDArray[np.float32]], Rows]
"""Takes embeddings (N, D), and returns where they are from then on."""

_LONGEST = 1.001
"""The norm of a template at most, with room for rounding: the bounds of the search rest on it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring templates of a gallery; immutable but for `alive`, where a removal clears its row."""

    vectors: Vectors
    owners: NDArray[np.int32]
    """(N,), which identity, by its number."""
    template_ids: list[str]
    """At least N."""
    alive: NDArray[np.bool_]
    """(N,)."""

    def __len__(self) -> int:
        """Return the number of rows, the dead ones too."""
        return len(self.owners)


class Tail:
    """Growing arrays of the templates that are not encoded yet; a block shows those of its moment."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self.dimension = dimension
        self.count = 0
        self._embeddings = np.empty((capacity, dimension), dtype=np.float32)
        self._owners = np.empty(capacity, dtype=np.int32)
        self._alive = np.ones(capacity, dtype=np.bool_)
        self._template_ids: list[str] = []

    def extend(self, embeddings: NDArray[np.float32], owners: NDArray[np.int32], template_ids: Sequence[str]) -> None:
        """Append rows; blocks shown before do not change."""
        count = self.count + len(embeddings)
        if count > len(self._owners):
            more = max(count, 2 * len(self._owners)) - self.count
            self._embeddings = np.concatenate(
                (self._embeddings[: self.count], np.empty((more, self.dimension), np.float32))
            )
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


def encoded(block: Block, put_aside: PutAside = Float32Vectors) -> Block:
    """Return a block of float32 with 8-bit codes before its vectors, which `put_aside` is given to keep."""
    embeddings = block.vectors.take(np.arange(len(block)))
    vectors = Int8Vectors(Codes.of(embeddings), put_aside(embeddings))
    return Block(vectors, block.owners.copy(), block.template_ids, block.alive.copy())


def checked(
    embeddings: NDArray[np.float32], identities: Sequence[str], template_ids: Sequence[str], dimension: int | None
) -> NDArray[np.float32]:
    """Return embeddings that may join those of this dimension, or be the first ones; raises ValueError for others."""
    if not len(embeddings) == len(identities) == len(template_ids):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(identities)} identities and {len(template_ids)} template ids"
        )
    if len(embeddings):
        embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
        if embeddings.ndim != 2 or dimension not in {None, embeddings.shape[1]}:  # noqa: PLR2004
            raise ValueError(f"embeddings of shape {embeddings.shape}, expected (N, {dimension or 'D'})")
        if not (np.einsum("nd,nd->n", embeddings, embeddings) <= _LONGEST**2).all():
            raise ValueError("a template is not normalised")
    return embeddings
