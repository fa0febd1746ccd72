"""A gallery index as one file: written once, verified and mapped by every process that opens it.

Every section begins on a page: for each block the templates in full precision, their codes, scales and owners; then
the template ids and the names as JSON. A table of contents with a checksum of each section follows, and a trailer of 24
bytes that says how long it is. Full precision is not read on opening, nor kept in memory: the search reads the few rows
that it wants from the file, and checks each of them against the bound of its code.
"""

import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from model.index.blocks import Block, PutAside, Tail, checked, encoded
from model.index.vectors import Codes, Float32Vectors, Int8Vectors, Rows, RowsDamaged
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


_MAGIC = b"facidx01"
_TRAILER = struct.Struct("<8sQII")
"""The magic, the length of the contents, their checksum, nothing."""
_PIECE_ROWS = 8192


class SnapshotUnusable(Exception):
    """There is no such snapshot, or it is damaged, or of something else."""


class SnapshotMissing(SnapshotUnusable):
    """There is no such snapshot."""


class FileRows:
    """`Rows` in a file; a read leaves nothing in this process's memory. The file may be replaced meanwhile."""

    def __init__(self, file: BinaryIO, start: int, dimension: int) -> None:
        self._file = file  # closed with the last that reads from it
        self._start = start
        self._dimension = dimension

    def take(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows at these offsets; raises `RowsDamaged` when they cannot be read."""
        size = 4 * self._dimension
        handle = self._file.fileno()
        try:
            found = b"".join([os.pread(handle, size, self._start + offset * size) for offset in offsets.tolist()])
        except OSError as exc:
            raise RowsDamaged(str(exc)) from exc
        if len(found) != size * len(offsets):
            raise RowsDamaged("the file has been cut short")
        return np.frombuffer(found, dtype="<f4").reshape(len(offsets), self._dimension)


class Spool:
    """Puts embeddings aside, into a file without a name in the directory, while an index is made that is then written.

    The file goes with the last index that reads from it. What the disk does not take stays in memory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: Any = None

    def put_aside(self, embeddings: NDArray[np.float32]) -> Rows:
        """Return where the embeddings (N, D) are from now on."""
        try:
            if self._file is None:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - see FileRows
            start = self._file.seek(0, os.SEEK_END)
            left = np.ascontiguousarray(embeddings, "<f4").data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            return Float32Vectors(embeddings)
        return FileRows(self._file, start, embeddings.shape[1])


def write(index: GalleryIndex, path: Path, key: str, version: int) -> None:
    """Write what the index holds under a key and a version of the caller's; the file appears whole or not at all.

    Raises OSError when it cannot be written, and `RowsDamaged` when the index is over a file that has rotted. Removed
    templates are left out. The index must not change meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            _Writer(file).write(index, key, version)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def open_snapshot(path: Path, key: str) -> tuple[GalleryIndex, int]:
    """Return the index that was last written under this key, and its version; raises `SnapshotUnusable`."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SnapshotMissing(f"{path} is not there") from exc
    except OSError as exc:
        raise SnapshotUnusable(f"{path}: {exc}") from exc
    try:
        reader = _Reader(file)
        contents = reader.contents(key)
        return reader.index(contents), int(contents["version"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as exc:
        file.close()
        raise SnapshotUnusable(f"{path}: {exc}") from exc
    except SnapshotUnusable:
        file.close()
        raise


class _Writer:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, index: GalleryIndex, key: str, version: int) -> None:
        blocks = [self._block(block) for block in index.blocks if block.alive.any() or block is index.blocks[-1]]
        template_ids = [
            block.template_ids[offset] for block in index.blocks for offset in np.flatnonzero(block.alive).tolist()
        ]
        contents = {
            "key": key,
            "version": version,
            "dimension": _dimension(index.blocks[-1]),
            "blocks": blocks,
            "template_ids": self._section([json.dumps(template_ids).encode()]),
            "names": self._section([json.dumps(list(index.names)).encode()]),
        }
        table = json.dumps(contents).encode()
        self._file.write(table + _TRAILER.pack(_MAGIC, len(table), zlib.crc32(table), 0))

    def _block(self, block: Block) -> dict[str, Any]:
        alive = np.flatnonzero(block.alive)
        pieces = (alive[start : start + _PIECE_ROWS] for start in range(0, len(alive), _PIECE_ROWS))
        written = {
            "count": len(alive),
            "rows": self._section(np.ascontiguousarray(block.vectors.copied(piece), "<f4") for piece in pieces),
            "owners": self._section([block.owners[alive].astype("<i4")]),
        }
        if isinstance(block.vectors, Int8Vectors):
            codes = block.vectors.codes
            written |= {
                "codes": self._section([codes.codes[alive]]),
                "scales": self._section([codes.scales[alive].astype("<f4")]),
                "largest_error": codes.largest_error,
                "largest_norm": codes.largest_norm,
            }
        return written

    def _section(self, parts: Any) -> list[int]:
        """Write the parts from the next page on; returns start, length and checksum."""
        self._file.write(bytes(-self._file.tell() % mmap.PAGESIZE))
        start, checksum = self._file.tell(), 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
            self._file.write(part)
        return [start, self._file.tell() - start, checksum]


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Private and writable, as OpenVINO takes no other array; nobody writes.
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def contents(self, key: str) -> Any:
        magic, length, checksum, _ = _TRAILER.unpack(self._map[-_TRAILER.size :])
        table = self._map[-_TRAILER.size - length : -_TRAILER.size]
        if magic != _MAGIC or zlib.crc32(table) != checksum:
            raise SnapshotUnusable("the table of contents is damaged")
        contents = json.loads(table)
        if contents["key"] != key:
            raise SnapshotUnusable(f"it is of {contents['key']!r}, not of {key!r}")
        return contents

    def index(self, contents: Any) -> GalleryIndex:
        template_ids = json.loads(bytes(self._section(contents["template_ids"])))
        names = json.loads(bytes(self._section(contents["names"])))
        blocks, first = [], 0
        for block in contents["blocks"]:
            own = template_ids[first : first + block["count"]]
            blocks.append(self._block(block, own, contents["dimension"]))
            first += block["count"]
        index = GalleryIndex.of_blocks(blocks, names)
        self._let_go()
        return index

    def _block(self, block: Any, template_ids: list[str], dimension: int) -> Block:
        count = block["count"]
        owners = np.frombuffer(self._section(block["owners"]), dtype="<i4").astype(np.int32)
        alive = np.ones(count, dtype=np.bool_)
        if "codes" not in block:
            rows = np.frombuffer(self._section(block["rows"]), dtype="<f4").astype(np.float32)
            return Block(Float32Vectors(rows.reshape(count, dimension)), owners, template_ids, alive)
        codes = Codes(
            np.frombuffer(self._section(block["codes"]), dtype=np.int8).reshape(count, dimension),
            np.frombuffer(self._section(block["scales"]), dtype="<f4").astype(np.float32),
            block["largest_error"],
            block["largest_norm"],
        )
        vectors = Int8Vectors(codes, FileRows(self._file, block["rows"][0], dimension))
        self._let_go()  # the kernel has packed the codes
        return Block(vectors, owners, template_ids, alive)

    def _let_go(self) -> None:
        """Give back the memory of what has been read; whoever reads it again gets it from the file."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _section(self, section: list[int]) -> memoryview:
        start, length, checksum = section
        found = memoryview(self._map)[start : start + length]
        if len(found) != length or zlib.crc32(found) != checksum:
            raise SnapshotUnusable("a section is damaged")
        return found


def _dimension(block: Block) -> int:
    return int(block.vectors.take(np.arange(0)).shape[1])
