"""A gallery index as one file: written once, then verified and mapped by every process that opens it.

Every section begins on a page: for each block the templates as float16, to which an index rounds them, their codes,
scales and owners; then the template ids and the names as JSON. A table of contents with a checksum of each
section follows, and a trailer of 24 bytes with its length. The float16 rows of an encoded block are not read when the
file is opened: a search reads the few rows that it needs, and checks each against the bound of its code.
"""

import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.artefact import staged_file
from model.index.blocks import Block
from model.index.norms import ROUNDED_TOLERANCE, normalised
from model.index.vectors import Codes, Float32Vectors, Int8Vectors, Rows, RowsDamaged
from model.matching import GalleryIndex

Answer = TypeVar("Answer")

_MAGIC = b"facidx02"
_TRAILER = struct.Struct("<8sQII")
"""The magic, the length of the table of contents, its checksum, and padding."""
_PIECE_ROWS = 8192


class SnapshotUnusable(Exception):
    """The snapshot is missing, damaged, or of another gallery."""


class SnapshotMissing(SnapshotUnusable):
    """The snapshot is missing."""


class FileRows:
    """`Rows` in a file, which are not kept in memory. The path may be replaced meanwhile."""

    def __init__(self, file: BinaryIO, start: int, dimension: int) -> None:
        self._file = file  # closed when the last reader is gone
        self._start = start
        self._dimension = dimension

    def take(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows at these offsets; raises `RowsDamaged` if they cannot be read."""
        size = 2 * self._dimension
        handle = self._file.fileno()
        try:
            found = b"".join([os.pread(handle, size, self._start + offset * size) for offset in offsets.tolist()])
        except OSError as exc:
            raise RowsDamaged(str(exc)) from exc
        if len(found) != size * len(offsets):
            raise RowsDamaged("the file has been cut short")
        return np.frombuffer(found, dtype="<f2").astype(np.float32).reshape(len(offsets), self._dimension)


class Spool:
    """Keeps embeddings as float16 in an unnamed file in the directory while an index is made.

    The file exists until the last index that reads from it is gone. If the disk is full the embeddings stay in memory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: Any = None

    def put_aside(self, embeddings: NDArray[np.float32]) -> Rows:
        """Store embeddings (N, D) and return where to read them."""
        try:
            if self._file is None:
                self._directory.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - see FileRows
            start = self._file.seek(0, os.SEEK_END)
            left = np.ascontiguousarray(embeddings, "<f2").view(np.uint8).data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            return Float32Vectors(embeddings)
        return FileRows(self._file, start, embeddings.shape[1])


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """What a snapshot says about itself."""

    key: str
    version: int
    notes: Any
    """What the writer added, as JSON has it; None if nothing."""


def write(index: GalleryIndex, path: Path, key: str, version: int, notes: Any = None) -> None:
    """Write the index with the caller's key, version and notes; the file appears whole or not at all.

    Removed templates are left out, and so are the names of identities without a template. The index must not change
    meanwhile. Raises OSError, and `RowsDamaged` if the index reads from a file that is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(path) as file:
        _Writer(file).write(index, key, version, notes)


def read_header(path: Path) -> SnapshotHeader:
    """Return what the snapshot says about itself; raises `SnapshotUnusable`."""
    return _opened(path, lambda reader: _header(reader.contents()), keep_open=False)


def read_template_ids(path: Path) -> list[str]:
    """Return the ids of the snapshot's templates; raises `SnapshotUnusable`."""
    return _opened(path, lambda reader: reader.template_ids(reader.contents()), keep_open=False)


def open_snapshot(path: Path, key: str) -> tuple[GalleryIndex, SnapshotHeader]:
    """Return the index that was written with this key; raises `SnapshotUnusable`."""

    def read(reader: "_Reader") -> tuple[GalleryIndex, SnapshotHeader]:
        contents = reader.contents()
        header = _header(contents)
        if header.key != key:
            raise SnapshotUnusable(f"it is of {header.key!r}, not of {key!r}")
        return reader.index(contents), header

    return _opened(path, read, keep_open=True)


def _opened(path: Path, read: "Callable[[_Reader], Answer]", *, keep_open: bool) -> Answer:
    """Return what `read` finds in the file; raises `SnapshotUnusable`."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise SnapshotMissing(f"{path} does not exist") from exc
    except OSError as exc:
        raise SnapshotUnusable(f"{path}: {exc}") from exc
    try:
        found = read(_Reader(file))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as exc:
        file.close()
        raise SnapshotUnusable(f"{path}: {exc}") from exc
    except SnapshotUnusable:
        file.close()
        raise
    if not keep_open:
        file.close()
    return found


class _Writer:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, index: GalleryIndex, key: str, version: int, notes: Any) -> None:
        named = np.zeros(len(index.names), dtype=np.bool_)
        for block in index.blocks:
            named[block.owners[block.alive]] = True
        numbers = (np.cumsum(named) - 1).astype("<i4")
        blocks = [
            self._block(block, numbers) for block in index.blocks if block.alive.any() or block is index.blocks[-1]
        ]
        template_ids = [
            block.template_ids[offset] for block in index.blocks for offset in np.flatnonzero(block.alive).tolist()
        ]
        contents = {
            "key": key,
            "version": version,
            "notes": notes,
            "dimension": _dimension(index.blocks[-1]),
            "blocks": blocks,
            "template_ids": self._section([json.dumps(template_ids).encode()]),
            "names": self._section(
                [json.dumps([index.names[number] for number in np.flatnonzero(named).tolist()]).encode()]
            ),
        }
        table = json.dumps(contents).encode()
        self._file.write(table + _TRAILER.pack(_MAGIC, len(table), zlib.crc32(table), 0))

    def _block(self, block: Block, numbers: NDArray[np.int32]) -> dict[str, Any]:
        alive = np.flatnonzero(block.alive)
        pieces = (alive[start : start + _PIECE_ROWS] for start in range(0, len(alive), _PIECE_ROWS))
        written = {
            "count": len(alive),
            "rows": self._section(np.ascontiguousarray(block.vectors.copied(piece), "<f2") for piece in pieces),
            "owners": self._section([numbers[block.owners[alive]]]),
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
        """Write the parts, beginning on the next page; returns start, length and checksum."""
        self._file.write(bytes(-self._file.tell() % mmap.PAGESIZE))
        start, checksum = self._file.tell(), 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
            self._file.write(part)
        return [start, self._file.tell() - start, checksum]


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Private and writable, because OpenVINO takes no other array; it is never written to.
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def contents(self) -> Any:
        magic, length, checksum, _ = _TRAILER.unpack(self._map[-_TRAILER.size :])
        table = self._map[-_TRAILER.size - length : -_TRAILER.size]
        if magic != _MAGIC and magic[:6] == _MAGIC[:6]:
            raise SnapshotUnusable("another version of facerec wrote it")
        if magic != _MAGIC or zlib.crc32(table) != checksum:
            raise SnapshotUnusable("the table of contents is damaged")
        return json.loads(table)

    def template_ids(self, contents: Any) -> list[str]:
        template_ids: list[str] = json.loads(bytes(self._section(contents["template_ids"])))
        if len(template_ids) != sum(block["count"] for block in contents["blocks"]):
            raise SnapshotUnusable("the template ids are not as many as the templates")
        return template_ids

    def index(self, contents: Any) -> GalleryIndex:
        template_ids = self.template_ids(contents)
        names = json.loads(bytes(self._section(contents["names"])))
        if not all(isinstance(name, str) for name in names):
            raise SnapshotUnusable("a name is no text")
        blocks, first = [], 0
        for block in contents["blocks"]:
            own = template_ids[first : first + block["count"]]
            blocks.append(self._block(block, own, contents["dimension"]))
            first += block["count"]
        for found in blocks:
            if len(found) and not 0 <= found.owners.min() <= found.owners.max() < len(names):
                raise SnapshotUnusable("a template has no name")
        index = GalleryIndex.of_blocks(blocks, names)
        self._let_go()
        return index

    def _block(self, block: Any, template_ids: list[str], dimension: int) -> Block:
        count = block["count"]
        owners = np.frombuffer(self._section(block["owners"]), dtype="<i4").astype(np.int32)
        alive = np.ones(count, dtype=np.bool_)
        if "codes" not in block:
            rows = np.frombuffer(self._section(block["rows"]), dtype="<f2").astype(np.float32)
            rows = rows.reshape(count, dimension)
            if not normalised(rows, ROUNDED_TOLERANCE).all():
                raise SnapshotUnusable("a template does not have the length 1")
            return Block(Float32Vectors(rows), owners, template_ids, alive)
        codes = Codes(
            np.frombuffer(self._section(block["codes"]), dtype=np.int8).reshape(count, dimension),
            np.frombuffer(self._section(block["scales"]), dtype="<f4").astype(np.float32),
            float(block["largest_error"]),
            float(block["largest_norm"]),
        )
        vectors = Int8Vectors(codes, FileRows(self._file, block["rows"][0], dimension))
        self._let_go()  # the kernel has packed the codes
        return Block(vectors, owners, template_ids, alive)

    def _let_go(self) -> None:
        """Give back the memory of the sections that were read; a later read comes from the file."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _section(self, section: list[int]) -> memoryview:
        start, length, checksum = section
        found = memoryview(self._map)[start : start + length]
        if len(found) != length or zlib.crc32(found) != checksum:
            raise SnapshotUnusable("a section is damaged")
        return found


def _header(contents: Any) -> SnapshotHeader:
    return SnapshotHeader(str(contents["key"]), int(contents["version"]), contents.get("notes"))


def _dimension(block: Block) -> int:
    return int(block.vectors.take(np.arange(0)).shape[1])
