"""A gallery as one compact file to send: written and read piece by piece, whatever its size.

It begins with a magic of 8 bytes, the length of the header (4 bytes, little-endian) and the header as JSON. Pieces
follow. Each is the number of its rows and the length of its names (4 bytes each), the rows as float16, to which an
index rounds them, and the names: `[template ids, identities]` as JSON, compressed by zlib.

The reader trusts the content: the file is compared with its SHA-256 before.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

import numpy as np

from model.index.snapshot import SnapshotUnusable
from model.matching import Columns, GalleryIndex

_MAGIC = b"facsend1"
_LENGTH = struct.Struct("<I")
_PIECE = struct.Struct("<II")
_PIECE_ROWS = 8192  # 8 MB at 512 dimensions


@dataclass(frozen=True, slots=True)
class CompactHeader:
    """What the file says about itself."""

    collection: str
    model_id: str
    version: int
    dimension: int
    """0 without a template."""
    count: int
    damaged: dict[str, str]
    """The reasons of the templates that the writer had to leave out, by id."""


def write_compact(
    index: GalleryIndex, file: BinaryIO, header: CompactHeader, on_written: Callable[[int], None] = lambda _: None
) -> None:
    """Write the index, without removed templates; `on_written` gets the number of templates of each piece.

    The index must not change meanwhile. Raises OSError, and `RowsDamaged` if the index reads from a damaged file.
    """
    start = json.dumps(asdict(header)).encode()
    file.write(_MAGIC + _LENGTH.pack(len(start)) + start)
    for block in index.blocks:
        alive = np.flatnonzero(block.alive)
        for first in range(0, len(alive), _PIECE_ROWS):
            offsets = alive[first : first + _PIECE_ROWS]
            rows = np.ascontiguousarray(block.vectors.copied(offsets), "<f2")
            identities = [index.names[owner] for owner in block.owners[offsets].tolist()]
            template_ids = [block.template_ids[offset] for offset in offsets.tolist()]
            names = zlib.compress(json.dumps([template_ids, identities]).encode(), 1)
            file.write(_PIECE.pack(len(rows), len(names)))
            file.write(rows.tobytes())
            file.write(names)
            on_written(len(rows))


def read_compact(file: BinaryIO) -> tuple[CompactHeader, Iterator[Columns]]:
    """Return the header, and the pieces, which are read one by one; both raise `SnapshotUnusable`."""
    try:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise SnapshotUnusable("it is no file of this version of facerec")
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        header = CompactHeader(**json.loads(file.read(length)))
    except (ValueError, TypeError, struct.error) as exc:
        raise SnapshotUnusable(f"its header is damaged: {exc}") from exc
    return header, _pieces(file, header)


def _pieces(file: BinaryIO, header: CompactHeader) -> Iterator[Columns]:
    count = 0
    try:
        while start := file.read(_PIECE.size):
            number, length = _PIECE.unpack(start)
            rows = np.frombuffer(file.read(2 * header.dimension * number), "<f2").reshape(number, header.dimension)
            template_ids, identities = json.loads(zlib.decompress(file.read(length)))
            count += number
            yield rows.astype(np.float16, copy=False), identities, template_ids
    except (ValueError, TypeError, struct.error, zlib.error) as exc:
        raise SnapshotUnusable(f"a piece is damaged: {exc}") from exc
    if count != header.count:
        raise SnapshotUnusable(f"it holds {count} of {header.count} templates")
