"""The primary face of a picture, and the gallery index that finds identities; pure."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.faces import Box
from model.index.blocks import Block, Embeddings, PutAside, RecentRows, Shortlist, checked
from model.index.vectors import Codes, Float32Vectors, Queries, RowsDamaged

BLOCK_ROWS = 32_768
"""Templates that are encoded in 8 bits together: 16 MB in full precision at 128 dimensions, 64 MB at 512.

The first block, and the rest of many templates added at once, may be a quarter of that. A search over ten thousand
templates of 512 dimensions then reads 5 MB instead of 20.
"""

_ROWS_AT_ONCE = 4096
"""Templates that `GalleryIndex.columns` yields at a time: 8 MB at 512 dimensions."""
_AT_ONCE = 8
"""Queries that share a pass over the templates; more would need more memory for scores, and gain little."""

Columns = tuple[Embeddings, Sequence[str], Sequence[str]]
"""Embeddings, identities and template ids, as `GalleryIndex` takes them."""


@dataclass(frozen=True, slots=True)
class Match:
    """An identity with its best template and the similarity max(0, cosine), from 0 to 1."""

    identity: str
    similarity: float
    template_id: str


def primary_order(boxes: Sequence[Box], width: int, height: int, center_weight: float) -> list[int]:
    """Return the boxes' indices, the picture's subject first.

    The rank is area - `center_weight` · squared distance from box centre to picture centre, in pixels of a picture
    of `width` by `height`: facenet-pytorch's "center_weighted_size". Equal ranks keep their order.
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
    """Enrolled templates, searchable by cosine similarity, from none to millions.

    Any number of threads may search while others add and remove: a search sees each change or not, and never waits.
    `embeddings` is (N, D), L2-normalised; row i belongs to `identities[i]` and `template_ids[i]`, which are
    unique. They are rounded to float16, so that a result does not depend on where a template was read from. Raises
    ValueError if the lengths differ, and for a template that is not normalised.

    A small gallery is compared in float32. Of a larger one, each block of up to `block_rows` is also kept as 8-bit
    codes, a quarter of the memory to read. The codes select the few templates whose cosines are computed in full
    precision. Their errors are bounded, so no template is missed (`model.index.vectors`).
    """

    def __init__(
        self,
        embeddings: Embeddings,
        identities: Sequence[str],
        template_ids: Sequence[str],
        *,
        block_rows: int = BLOCK_ROWS,
    ) -> None:
        self._block_rows = block_rows
        self._writing = threading.Lock()
        self._names: list[str] = []  # only appended to; a removal makes a new list, because searches read the old one
        self._numbers: dict[str, int] = {}
        self._living = np.zeros(0, dtype=np.int32)  # the templates of each identity, by number; grows by doubling
        self._present = self._identities = 0
        self._sealed: list[Block] = []
        self._recent = RecentRows(0, embeddings.shape[1] if embeddings.ndim > 1 else 0)
        self._where: dict[str, tuple[int, int]] | None = None
        self._removed = 0
        self._damaged = False
        self._publish()
        self._append(embeddings, identities, template_ids)

    @classmethod
    def of_blocks(cls, blocks: Sequence[Block], names: Sequence[str]) -> Self:
        """Return an index over encoded blocks and a last one of float32; `names[i]` is the identity i."""
        *sealed, last = blocks
        if not isinstance(last.vectors, Float32Vectors):
            raise TypeError("the last block is not float32")
        index = cls(last.vectors.embeddings[:0], [], [])
        index._names = list(names)
        index._numbers = {name: number for number, name in enumerate(names)}
        index._sealed = sealed
        index._recent.extend(last.vectors.embeddings, last.owners, last.template_ids)
        for block in sealed:
            index._count(block.owners[block.alive], 1)
        index._count(last.owners, 1)
        index._forget(np.arange(len(names)))
        index._seal(BLOCK_ROWS if sealed else BLOCK_ROWS // 4)
        index._publish()
        return index

    @classmethod
    def of_pieces(
        cls, pieces: Iterable[Columns], put_aside: PutAside = Float32Vectors, *, block_rows: int = BLOCK_ROWS
    ) -> Self:
        """Return the index that the construction gives for all pieces together; raises ValueError likewise.

        `put_aside` keeps the embeddings of each encoded block; by default they stay in memory.
        """
        index = cls(np.empty((0, 0), dtype=np.float32), [], [], block_rows=block_rows)
        for embeddings, identities, template_ids in pieces:
            rows = checked(embeddings, identities, template_ids, index._recent.dimension or None)
            index._extend(rows, identities, template_ids, block_rows, put_aside)
        index._seal(block_rows // 4, put_aside)
        index._publish()
        return index

    def __len__(self) -> int:
        """Return the number of templates."""
        return sum(map(len, self.blocks)) - self._removed

    @property
    def dimension(self) -> int:
        """The numbers in an embedding; 0 before the first template."""
        return self._recent.dimension

    @property
    def identities(self) -> int:
        """How many identities have a template; like a search it never waits."""
        return self._identities

    @property
    def damaged(self) -> bool:
        """Whether `RowsDamaged` was raised: the index must then be made again."""
        return self._damaged

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The templates as they are searched, including removed ones; the last block is float32."""
        return self._published[0]

    @property
    def names(self) -> Sequence[str]:
        """The identities by their numbers; empty where an identity's last template was removed."""
        return self._published[1]

    def search(self, queries: NDArray[np.float32], limit: int = 1) -> list[list[Match]]:
        """Return for each query (M, D), L2-normalised, its `limit` nearest identities, the most similar first.

        An identity appears once, with its best template; ties come in the order of enrolment. An empty gallery gives
        empty lists. No threshold is applied. A result does not depend on the other queries. Raises ValueError for a
        `limit` below 1, and `RowsDamaged` if the file of a snapshot is damaged.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, at least one match must be asked for")
        blocks, names = self._published
        shortlists = [Shortlist(query, limit) for query in queries]
        try:
            for start in range(0, len(queries), _AT_ONCE):
                _offer(blocks, queries[start : start + _AT_ONCE], shortlists[start : start + _AT_ONCE])
        except RowsDamaged:
            self._damaged = True
            raise
        return [
            [Match(names[hit.owner], min(max(0.0, -hit.distance), 1.0), hit.template_id) for hit in shortlist.hits()]
            for shortlist in shortlists
        ]

    def identity_of(self, template_id: str) -> str | None:
        """Return whose template this is, or None if it is not in the index."""
        with self._writing:
            number, offset = self._places().get(template_id, (-1, -1))
            return None if number < 0 else self._names[self.blocks[number].owners[offset]]

    def templates_of(self, identity: str) -> tuple[NDArray[np.float32], list[str]]:
        """Return the embeddings (N, D) of a person's templates, and their ids; none of an unknown identity.

        Like a search it never waits. Raises `RowsDamaged` as `search` does.
        """
        rows, template_ids = [np.empty((0, self.dimension), dtype=np.float32)], list[str]()
        for embeddings, _, own in self.columns([identity]):
            rows.append(np.asarray(embeddings, dtype=np.float32))
            template_ids.extend(own)
        return np.concatenate(rows), template_ids

    def columns(self, people: Iterable[str] | None = None) -> Iterator[Columns]:
        """Yield the templates of these people, or of all, some thousands at a time; like a search it never waits.

        Raises `RowsDamaged` as `search` does.
        """
        blocks, names = self._published
        wanted = None
        if people is not None:
            numbers = [self._numbers.get(name, len(names)) for name in people]
            wanted = np.zeros(len(names), dtype=np.bool_)
            wanted[[number for number in numbers if number < len(names)]] = True
        for block in filter(len, blocks):
            chosen = block.alive if wanted is None else wanted[block.owners] & block.alive
            offsets = np.flatnonzero(chosen)
            for start in range(0, len(offsets), _ROWS_AT_ONCE):
                piece = offsets[start : start + _ROWS_AT_ONCE]
                try:
                    embeddings = block.vectors.copied(piece)
                except RowsDamaged:
                    self._damaged = True
                    raise
                owners = [names[owner] for owner in block.owners[piece].tolist()]
                yield embeddings, owners, [block.template_ids[offset] for offset in piece.tolist()]

    def add(
        self,
        embeddings: Embeddings,
        identities: Sequence[str],
        template_ids: Sequence[str],
    ) -> None:
        """Add templates as the construction does; a template replaces one with the same id.

        It copies the new templates, and encodes the blocks that they complete.
        """
        with self._writing:
            self._append(embeddings, identities, template_ids)

    def remove(self, template_ids: Sequence[str]) -> int:
        """Remove templates; returns how many there were.

        The name of an identity without a template is forgotten. So are the templates in the last block; another block
        is rewritten when half of it is removed, and until then keeps the removed rows without a name.
        Raises `RowsDamaged` as `search` does; the templates are removed nevertheless.
        """
        with self._writing:
            before = self._removed
            removed = self._bury(template_ids)
            if self._removed != before:
                self._compact()
            return removed

    def _append(
        self,
        embeddings: Embeddings,
        identities: Sequence[str],
        template_ids: Sequence[str],
    ) -> None:
        has_rows = any(map(len, self.blocks))
        embeddings = checked(embeddings, identities, template_ids, self._recent.dimension if has_rows else None)
        if not len(embeddings):
            return
        replaced = self._bury(template_ids) if has_rows else 0
        quarter = self._block_rows // 4
        enough = self._block_rows if self._sealed and len(embeddings) < quarter else quarter
        self._extend(embeddings, identities, template_ids, enough)
        self._publish()
        if replaced:
            self._compact()

    def _extend(
        self,
        embeddings: NDArray[np.float32],
        identities: Sequence[str],
        template_ids: Sequence[str],
        enough: int,
        put_aside: PutAside = Float32Vectors,
    ) -> None:
        """Append checked rows, and encode each last block that has `enough` rows."""
        if not len(embeddings):
            return
        if not self._recent.count:
            self._recent = RecentRows(0, embeddings.shape[1])
        for name in identities:
            if name not in self._numbers:
                self._names.append(name)
                self._numbers[name] = len(self._names) - 1
        owners = np.fromiter((self._numbers[name] for name in identities), dtype=np.int32, count=len(identities))
        self._count(owners, 1)
        start = 0
        while start < len(embeddings):
            room = self._block_rows - self._recent.count if Codes.possible(embeddings.shape[1]) else len(embeddings)
            stop = min(len(embeddings), start + room)
            if self._where is not None:
                first = self._recent.count - start
                self._where |= {template_ids[row]: (len(self._sealed), first + row) for row in range(start, stop)}
            self._recent.extend(embeddings[start:stop], owners[start:stop], template_ids[start:stop])
            self._seal(enough, put_aside)
            start = stop

    def _seal(self, enough: int, put_aside: PutAside = Float32Vectors) -> None:
        """Encode the last block if it has `enough` rows."""
        if self._recent.count >= enough and Codes.possible(self._recent.dimension):
            self._sealed.append(self._recent.block().encoded(put_aside))
            self._recent = RecentRows(0, self._recent.dimension)

    def _bury(self, template_ids: Sequence[str]) -> int:
        """Clear the rows of these templates; returns how many there were."""
        where = self._places()
        owners = []
        for template_id in template_ids:
            number, offset = where.pop(template_id, (-1, -1))
            if number >= 0:
                self.blocks[number].alive[offset] = False
                owners.append(self.blocks[number].owners[offset])
        self._removed += len(owners)
        touched = np.array(owners, dtype=np.int32)
        self._count(touched, -1)
        self._forget(np.unique(touched))
        return len(owners)

    def _places(self) -> dict[str, tuple[int, int]]:
        """Return the block and the row of each template; the first call takes its time."""
        if self._where is None:
            self._where = {
                template_id: (number, offset)
                for number, block in enumerate(self.blocks)
                for offset, (template_id, alive) in enumerate(
                    zip(block.template_ids[: len(block)], block.alive.tolist(), strict=True)
                )
                if alive
            }
        return self._where

    def _forget(self, numbers: NDArray[np.integer[Any]]) -> None:
        """Clear the names of those of these identities that have no template."""
        gone = numbers[self._living[numbers] == 0].tolist()
        if gone:
            self._names = self._names.copy()
            for number in gone:
                self._numbers.pop(self._names[number], None)
                self._names[number] = ""

    def _count(self, owners: NDArray[np.int32], change: int) -> None:
        """Add `change`, 1 or -1, to the number of templates of each of these owners."""
        if len(self._living) < len(self._names):
            more = max(len(self._names), 2 * len(self._living)) - len(self._living)
            self._living = np.append(self._living, np.zeros(more, dtype=np.int32))
        touched, counts = np.unique(owners, return_counts=True)
        before = np.count_nonzero(self._living[touched])
        self._living[touched] += change * counts.astype(np.int32)
        self._present += int(np.count_nonzero(self._living[touched]) - before)

    def _compact(self) -> None:
        """Rewrite the last block without removed rows, and the others if half of their rows are removed.

        Searches that have begun continue with the old ones.
        """
        try:
            for number, block in enumerate(self.blocks):
                alive = np.flatnonzero(block.alive)
                least = len(block) - 1 if number == len(self._sealed) else len(block) // 2
                if len(alive) <= least and len(block):
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
            self._recent = RecentRows(len(alive), rows.shape[1])
            self._recent.extend(rows, owners, template_ids)
        else:
            fresh = Block(Float32Vectors(rows), owners, template_ids, np.ones(len(alive), dtype=np.bool_))
            self._sealed[number] = fresh.encoded() if len(alive) else fresh
        if self._where is not None:
            self._where |= {template_id: (number, offset) for offset, template_id in enumerate(template_ids)}
        self._removed -= len(block) - len(alive)

    def _publish(self) -> None:
        self._identities = self._present
        # One assignment: a search never reads blocks whose names it does not have.
        self._published: tuple[tuple[Block, ...], list[str]] = ((*self._sealed, self._recent.block()), self._names)


def _offer(blocks: Sequence[Block], queries: NDArray[np.float32], shortlists: list[Shortlist]) -> None:
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
