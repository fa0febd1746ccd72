"""The photos of an uploaded zip, read one at a time; nothing is written to a disk, so no path can lead anywhere.

A zip is refused as a whole if it has too many entries or would be too large unpacked, by the sizes that it declares. An
entry is never read beyond its declared size. Whatever else is wrong with an entry concerns that entry alone.
"""

import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from facerec.errors import FacerecError
from facerec.text import megabytes, one_line

MAX_RATIO = 200
"""Photos are compressed already; a zip that unpacks to more times its size is none of photos."""
DIRECTORY_ENTRY_BYTES = 400
"""Room for one entry of the zip's directory, which has 46 bytes, its name and extra fields."""
_SMALLEST_DIRECTORY = 256 * 1024
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
_UNREADABLE = (BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, zlib.error)
"""What the standard library raises for a damaged or hostile zip."""


class BadZip(FacerecError):
    """The zip is refused as a whole."""


class BadEntry(FacerecError):
    """One file of the zip cannot be read."""


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """How much a zip may hold."""

    files: int
    file_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file of a zip."""

    path: str
    size: int
    problem: str | None
    """Why it is not read."""


class PhotoZip:
    """A zip whose directory has been checked; raises `BadZip`. Safe for many threads; `file` stays open."""

    def __init__(self, file: BinaryIO, limits: ZipLimits) -> None:
        self._limits = limits
        size = file.seek(0, 2)
        try:
            # The standard library reads the directory at once, and needs some 700 bytes of memory for an entry.
            most = max(_SMALLEST_DIRECTORY, limits.files * DIRECTORY_ENTRY_BYTES)
            self._zip = ZipFile(_BoundedReads(file, most, limits.files))
        except _UNREADABLE as exc:
            raise BadZip("the zip cannot be read: it is damaged, or no zip") from exc
        self._infos = list(self._files())
        if len(self._infos) > limits.files:
            raise _too_many(limits.files)
        unpacked = sum(info.file_size for info in self._infos)
        if unpacked > limits.unpacked_bytes:
            most_unpacked = megabytes(limits.unpacked_bytes)
            raise BadZip(f"the zip unpacks to {megabytes(unpacked)}, and {most_unpacked} are allowed: split it")
        if unpacked > max(size, limits.file_bytes) * MAX_RATIO:
            raise BadZip(f"the zip unpacks to more than {MAX_RATIO} times its size: no photos do")
        self.entries = [
            ZipEntry(one_line(_name(info)), info.file_size, _problem(info, limits.file_bytes)) for info in self._infos
        ]
        """Its files in the zip's order, without folders and without macOS's and hidden files."""

    def read(self, index: int) -> bytes:
        """Return a file's bytes; raises `BadEntry`."""
        info = self._infos[index]
        try:
            with self._zip.open(info) as file:
                return file.read(self._limits.file_bytes + 1)
        except _UNREADABLE as exc:
            raise BadEntry("it is damaged within the zip") from exc

    def _files(self) -> Iterator[ZipInfo]:
        for info in self._zip.infolist():
            parts = _name(info).replace("\\", "/").split("/")
            if not info.is_dir() and parts[0] != "__MACOSX" and not _is_hidden(parts[-1]):
                yield info


class _BoundedReads:
    """A file of which nothing asks for more than `most` bytes at once: only the zip's directory could."""

    def __init__(self, file: BinaryIO, most: int, max_files: int) -> None:
        self._size = file.seek(0, 2)
        self._file = file
        self._most = most
        self._max_files = max_files
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read; raises `BadZip`."""
        asked = self._size - self._file.tell() if size < 0 else size
        if asked > self._most:
            raise _too_many(self._max_files)
        return self._file.read(size)


def _too_many(limit: int) -> BadZip:
    return BadZip(f"the zip has more than {limit} files, which is the most of one job: split it")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name.strip(".") != ""


def _name(info: ZipInfo) -> str:
    """Return the path; without the mark of UTF-8 it may still be UTF-8, as macOS writes it."""
    if info.flag_bits & _UTF8_NAME:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except ValueError:
        return info.filename


def _problem(info: ZipInfo, max_bytes: int) -> str | None:
    parts = _name(info).replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or parts[0].endswith(":"):
        return "its path leads out of the zip"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted: send the zip without a password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "it is a symbolic link"
    if info.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        return "it is compressed in an unusual way: use Deflate"
    if info.file_size > max_bytes:
        return f"it is larger than {megabytes(max_bytes)}"
    return None
