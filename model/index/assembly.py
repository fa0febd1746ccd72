"""A gallery index from templates that come piece by piece: a large one is never in memory twice."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.index.blocks import Block, PutAside, Tail, checked, encoded
from model.index.vectors import Codes, Float32Vectors
from model.matching import BLOCK_ROWS, GalleryIndex

Columns = tuple[NDArray[np.float32], Sequence[str], Sequence[str]]
"""Embeddings, identities and template ids, as `GalleryIndex` takes them."""


def assembled(
    pieces: Iterable[Columns], put_aside: PutAside = Float32Vectors, *, block_rows: int = BLOCK_ROWS
) -> GalleryIndex:
    """Return the index that all pieces together give at its construction.

    `put_aside` is given the embeddings of each encoded block; by default they stay in memory. Raises ValueError as the
    construction does, and what the pieces raise.
    """
    names: dict[str, int] = {}
    sealed: list[Block] = []
    tail = Tail(0, 0)
    for embeddings, identities, template_ids in pieces:
        rows = checked(embeddings, identities, template_ids, tail.dimension or None)
        if not len(rows):
            continue
        if not tail.dimension:
            tail = Tail(0, rows.shape[1])
        owners = np.fromiter((names.setdefault(name, len(names)) for name in identities), np.int32, len(identities))
        start = 0
        while start < len(rows):
            stop = start + (block_rows - tail.count if Codes.possible(tail.dimension) else len(rows))
            tail.extend(rows[start:stop], owners[start:stop], template_ids[start:stop])
            tail = _sealed(tail, sealed, put_aside, block_rows)
            start = stop
    # What is left over is one block of few, or of many that came at once.
    tail = _sealed(tail, sealed, put_aside, block_rows // 4)
    return GalleryIndex.of_blocks([*sealed, tail.block()], list(names), block_rows=block_rows)


def _sealed(tail: Tail, sealed: list[Block], put_aside: PutAside, enough: int) -> Tail:
    """The tail, or an empty one once it is long enough to be encoded and has been added to the sealed blocks."""
    if tail.count < enough or not Codes.possible(tail.dimension):
        return tail
    sealed.append(encoded(tail.block(), put_aside))
    return Tail(0, tail.dimension)
