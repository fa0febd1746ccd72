"""Which face counts, and whose it is: pure functions and an index over arrays."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.faces import Box
from model.index.blocks import Block, Tail, checked, encoded
from model.index.shortlist import Shortlist
from model.index.vectors import Codes, Float32Vectors, Queries, RowsDamaged

BLOCK_ROWS = 32_768
"""Templates in full precision, 16 MB at 128 dimensions, 64 at 512; so many together are encoded in 8 bits.

The first block may be a quarter of that, and so may what is left over when many come at once: ten thousand templates
of 512 dimensions are then 5 MB to read for a search, not 20.
"""

_AT_ONCE = 8
"""Queries that share a pass over the templates; more would cost more memory for scores, and gain little."""


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
    """Enrolled templates, searchable by cosine similarity; one interface from none to millions of them.

    Any number of threads may search while others add and remove: a search sees each of their changes or does not, and
    waits for none. `embeddings` is float32 (N, D), L2-normalised, row i belonging to `identities[i]` and
    `template_ids[i]`, which are unique. Raises ValueError when the three differ in length, and for a template that is
    not normalised.

    A small gallery is float32 arithmetic. Of a larger one each block of up to `block_rows` is also kept as 8-bit codes,
    a quarter of the memory to read; these choose the few templates whose cosines are then computed in full precision.
    The errors of the codes are bounded, so nothing is missed (`model.index.vectors`).
    """

    exact = True
    """Whether the result is always that of comparing every template in full precision."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        identities: Sequence[str],
        template_ids: Sequence[str],
        *,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._block_rows = block_rows
        self._writing = threading.Lock()
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._living = np.zeros(0, dtype=np.int32)  # templates that each identity has, by its number; grows by doubling
        self._present = self._identities = 0
        self._sealed: list[Block] = []
        self._tail = Tail(0, embeddings.shape[1] if embeddings.ndim > 1 else 0)
        self._where: dict[str, tuple[int, int]] | None = None
        self._removed = 0
        self._damaged = False
        self._publish()
        self._append(embeddings, identities, template_ids)

    @classmethod
    def of_blocks(cls, blocks: Sequence[Block], names: Sequence[str], *, block_rows: int = BLOCK_ROWS) -> Self:
        """Return an index over full blocks and, last or alone, one of float32; `names[i]` is the identity i."""
        *sealed, last = blocks
        if not isinstance(last.vectors, Float32Vectors):
            raise TypeError("the last block is not float32")
        index = cls(last.vectors.embeddings[:0], [], [], block_rows=block_rows)
        index._names = list(names)
        index._numbers = {name: number for number, name in enumerate(names)}
        index._sealed = sealed
        index._tail.extend(last.vectors.embeddings, last.owners, last.template_ids)
        for block in sealed:
            index._count(block.owners[block.alive], 1)
        index._count(last.owners, 1)
        index._seal(0)
        index._publish()
        return index

    def __len__(self) -> int:
        """Return the number of templates."""
        return sum(map(len, self._blocks)) - self._removed

    @property
    def identities(self) -> int:
        """How many identities have a template; as current as a search, and as free of waiting."""
        return self._identities

    @property
    def damaged(self) -> bool:
        """Whether `RowsDamaged` has been raised: the index is to be made anew."""
        return self._damaged

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The templates as they are searched, the removed ones too; the last block is float32."""
        return self._blocks

    @property
    def names(self) -> Sequence[str]:
        """The identities by their numbers, also those whose templates are all removed."""
        return self._names

    def search(self, queries: NDArray[np.float32], limit: int = 1) -> list[list[Match]]:
        """Return for each query (M, D), L2-normalised, its `limit` nearest identities, the most similar first.

        An identity appears once, with its best template; equals come in the order of enrolment. An empty gallery
        gives empty lists. No threshold is applied. A result depends on the query and the gallery, not on the other
        queries. Raises ValueError for a `limit` below 1, and `RowsDamaged` when the file of a snapshot has rotted.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, at least one match must be asked for")
        shortlists = [Shortlist(query, limit) for query in queries]
        try:
            for start in range(0, len(queries), _AT_ONCE):
                self._offer(queries[start : start + _AT_ONCE], shortlists[start : start + _AT_ONCE])
        except RowsDamaged:
            self._damaged = True
            raise
        return [
            [
                Match(self._names[hit.owner], min(max(0.0, -hit.distance), 1.0), hit.template_id)
                for hit in shortlist.hits()
            ]
            for shortlist in shortlists
        ]

    def add(self, embeddings: NDArray[np.float32], identities: Sequence[str], template_ids: Sequence[str]) -> None:
        """Add templates as at the construction; one whose id is there already takes the other's place.

        Costs a copy of the new templates, and the encoding of the blocks that they complete.
        """
        with self._writing:
            self._append(embeddings, identities, template_ids)

    def remove(self, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many were there. A block is rewritten when half of it is gone.

        Raises `RowsDamaged` as `search` does; they are removed all the same.
        """
        with self._writing:
            before = self._removed
            removed = self._bury(template_ids)
            if self._removed != before:
                self._compact()
            return removed

    def _offer(self, queries: NDArray[np.float32], shortlists: list[Shortlist]) -> None:
        blocks = self._blocks
        if not any(map(len, blocks)):
            return
        prepared = Queries.of(queries)
        position = 0
        for block in filter(len, blocks):
            scores = block.vectors.scores(prepared)
            errors = block.vectors.errors(prepared).tolist()
            for shortlist, row, error in zip(shortlists, scores, errors, strict=True):
                shortlist.offer(block, row, error, position)
            position += len(block)

    def _append(self, embeddings: NDArray[np.float32], identities: Sequence[str], template_ids: Sequence[str]) -> None:
        there = any(map(len, self._blocks))
        embeddings = checked(embeddings, identities, template_ids, self._tail.dimension if there else None)
        if not len(embeddings):
            return
        replaced = self._bury(template_ids) if there else 0
        if not self._tail.count:
            self._tail = Tail(0, embeddings.shape[1])
        for name in identities:
            if name not in self._numbers:
                self._names.append(name)
                self._numbers[name] = len(self._names) - 1
        owners = np.fromiter((self._numbers[name] for name in identities), dtype=np.int32, count=len(identities))
        self._count(owners, 1)
        start = 0
        while start < len(embeddings):
            room = self._block_rows - self._tail.count if Codes.possible(embeddings.shape[1]) else len(embeddings)
            stop = min(len(embeddings), start + room)
            if self._where is not None:
                first = self._tail.count - start
                self._where |= {template_ids[row]: (len(self._sealed), first + row) for row in range(start, stop)}
            self._tail.extend(embeddings[start:stop], owners[start:stop], template_ids[start:stop])
            self._seal(len(embeddings))
            start = stop
        self._publish()
        if replaced:
            self._compact()

    def _seal(self, added: int) -> None:
        """Encode the last block if it is full, or a quarter full and either the first or of `added` many at once."""
        quarter = self._block_rows // 4
        enough = self._block_rows if self._sealed and added < quarter else quarter
        if self._tail.count >= enough and Codes.possible(self._tail.dimension):
            self._sealed.append(encoded(self._tail.block()))
            self._tail = Tail(0, self._tail.dimension)

    def _bury(self, template_ids: Sequence[str]) -> int:
        """Clear the rows of these templates, as far as they are there."""
        if self._where is None:
            self._where = {
                template_id: (number, offset)
                for number, block in enumerate(self._blocks)
                for offset, (template_id, alive) in enumerate(
                    zip(block.template_ids[: len(block)], block.alive.tolist(), strict=True)
                )
                if alive
            }
        owners = []
        for template_id in template_ids:
            number, offset = self._where.pop(template_id, (-1, -1))
            if number >= 0:
                self._blocks[number].alive[offset] = False
                owners.append(self._blocks[number].owners[offset])
        self._removed += len(owners)
        self._count(np.array(owners, dtype=np.int32), -1)
        return len(owners)

    def _count(self, owners: NDArray[np.int32], change: int) -> None:
        """Count one template more or less, as `change` says, for each of these owners."""
        if len(self._living) < len(self._names):
            more = max(len(self._names), 2 * len(self._living)) - len(self._living)
            self._living = np.append(self._living, np.zeros(more, dtype=np.int32))
        touched, counts = np.unique(owners, return_counts=True)
        before = np.count_nonzero(self._living[touched])
        self._living[touched] += change * counts.astype(np.int32)
        self._present += int(np.count_nonzero(self._living[touched]) - before)

    def _compact(self) -> None:
        """Rewrite the blocks that are half dead; searches that have begun go on with the old ones."""
        try:
            for number, block in enumerate(self._blocks):
                alive = np.flatnonzero(block.alive)
                if 2 * len(alive) <= len(block) and len(block):
                    self._rewrite(number, block, alive)
        except RowsDamaged:
            self._damaged = True
            raise
        finally:
            self._publish()

    def _rewrite(self, number: int, block: Block, alive: NDArray[np.intp]) -> None:
        template_ids = [block.template_ids[offset] for offset in alive]
        rows, owners = block.vectors.copied(alive), block.owners[alive]
        if number == len(self._sealed):
            self._tail = Tail(len(alive), rows.shape[1])
            self._tail.extend(rows, owners, template_ids)
        else:
            fresh = Block(Float32Vectors(rows), owners, template_ids, np.ones(len(alive), dtype=np.bool_))
            self._sealed[number] = encoded(fresh) if len(alive) else fresh
        if self._where is not None:
            self._where |= {template_id: (number, offset) for offset, template_id in enumerate(template_ids)}
        self._removed -= len(block) - len(alive)

    def _publish(self) -> None:
        self._identities = self._present
        self._blocks: tuple[Block, ...] = (*self._sealed, self._tail.block())
