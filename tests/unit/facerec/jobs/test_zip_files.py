"""Zips of strangers: what is read of them, and what is refused."""

import io
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest

from facerec.jobs.zip_files import BadEntry, BadZip, PhotoZip, ZipLimits

LIMITS = ZipLimits(files=100, file_bytes=10_000, unpacked_bytes=200_000)


def made(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """A zip of these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, body in members:
            archive.writestr(name, body)
    return file


def changed(file: io.BytesIO, change: Callable[[bytearray], None]) -> io.BytesIO:
    """The zip with other bytes."""
    data = bytearray(file.getvalue())
    change(data)
    return io.BytesIO(bytes(data))


def linked(name: str) -> zipfile.ZipInfo:
    """A symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_files_are_read_by_their_places() -> None:
    """Without folders, macOS's copies and hidden files."""
    opened = PhotoZip(
        made(
            ("Ada/", b""), ("Ada/1.jpg", b"one"), ("__MACOSX/Ada/._1.jpg", b"x"), (".DS_Store", b"x"), ("2.jpg", b"two")
        ),
        LIMITS,
    )
    assert [(entry.path, entry.size, entry.problem) for entry in opened.entries] == [
        ("Ada/1.jpg", 3, None),
        ("2.jpg", 3, None),
    ]
    assert [opened.read(1), opened.read(0)] == [b"two", b"one"]


def test_names_without_the_mark_of_utf8_are_read_as_utf8_if_they_are() -> None:
    """As macOS writes them; others are in the code page of the first PCs."""
    name = "Zoë Müller/1.jpg"

    def without_mark(data: bytearray) -> None:
        for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = data.index(start) + offset
            data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] & ~0x800)

    assert PhotoZip(changed(made((name, b"x")), without_mark), LIMITS).entries[0].path == name


@pytest.mark.parametrize(
    "path", ["../1.jpg", "a/../../1.jpg", "/etc/1.jpg", "..\\1.jpg", "C:\\1.jpg", "a\\..\\1.jpg", "//server/1.jpg"]
)
def test_path_that_leads_out_of_the_zip_is_a_problem_of_its_file(path: str) -> None:
    """The others are read."""
    opened = PhotoZip(made((path, b"x"), ("2.jpg", b"two")), LIMITS)
    assert [entry.problem for entry in opened.entries] == ["its path leads out of the zip", None]


def test_link_is_a_problem_of_its_file() -> None:
    """Its content is a path on the client's machine."""
    assert PhotoZip(made((linked("1.jpg"), b"/etc/passwd")), LIMITS).entries[0].problem == "it is a symbolic link"


def test_encrypted_file_is_a_problem_of_its_file() -> None:
    """There is nobody to ask for the password."""

    def encrypted(data: bytearray) -> None:
        for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(start) + offset] |= 1

    opened = PhotoZip(changed(made(("1.jpg", b"x")), encrypted), LIMITS)
    assert "encrypted" in str(opened.entries[0].problem)
    with pytest.raises(BadEntry):
        opened.read(0)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_a_problem_of_its_file(compression: int) -> None:
    """LZMA's decoder takes as much memory as the file asks for."""
    opened = PhotoZip(made(("1.jpg", b"x"), compression=compression), LIMITS)
    assert "Deflate" in str(opened.entries[0].problem)


def test_file_that_is_too_large_is_a_problem_of_its_file() -> None:
    """By its declared size."""
    opened = PhotoZip(made(("1.jpg", bytes(10_001)), ("2.jpg", bytes(10_000))), LIMITS)
    assert ["larger" in str(entry.problem) for entry in opened.entries] == [True, False]


def test_file_that_is_larger_than_it_declares_is_not_read_on() -> None:
    """A bomb may lie: only the declared bytes are unpacked, and then the checksum is wrong."""
    size = 9_000_000

    def lying(data: bytearray) -> None:
        at = data.index(b"PK\x01\x02") + 24
        data[at : at + 4] = struct.pack("<I", 5_000)

    opened = PhotoZip(changed(made(("1.jpg", bytes(size))), lying), LIMITS)
    tracemalloc.start()
    with pytest.raises(BadEntry):
        opened.read(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_damaged_file_is_a_problem_of_its_file() -> None:
    """Its checksum is wrong."""

    def damaged(data: bytearray) -> None:
        data[data.index(b"one")] ^= 1

    opened = PhotoZip(changed(made(("1.jpg", b"one"), ("2.jpg", b"two"), compression=0), damaged), LIMITS)
    with pytest.raises(BadEntry):
        opened.read(0)
    assert opened.read(1) == b"two"


def test_zip_that_unpacks_to_too_much_is_refused() -> None:
    """By the declared sizes of all files together."""
    with pytest.raises(BadZip, match=r"unpacks to 0\.21 MB, and 0\.2 MB are allowed"):
        PhotoZip(made(*((f"{number}.jpg", bytes(10_000)) for number in range(21)), compression=0), LIMITS)


def test_zip_that_unpacks_to_many_times_its_size_is_refused() -> None:
    """A bomb; photos are compressed already."""
    limits = ZipLimits(files=100, file_bytes=10_000, unpacked_bytes=10**9)
    with pytest.raises(BadZip, match="200 times"):
        PhotoZip(made(("1.jpg", bytes(10_000_000))), limits)


def test_zip_with_too_many_files_is_refused() -> None:
    """One more than allowed."""
    members = [(f"{number}.jpg", b"x") for number in range(101)]
    assert len(PhotoZip(made(*members[:100]), LIMITS).entries) == 100
    with pytest.raises(BadZip, match="more than 100 files"):
        PhotoZip(made(*members), LIMITS)


def test_zip_with_a_million_entries_is_refused_before_its_directory_is_read() -> None:
    """The directory alone would take some 700 MB of memory."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 1_000_000
    directory = entry * count
    far = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    file = io.BytesIO(directory + far + locator + end)
    assert len(file.getvalue()) > 46_000_000
    tracemalloc.start()
    with pytest.raises(BadZip, match="more than 10000 files"):
        PhotoZip(file, ZipLimits(files=10_000, file_bytes=10_000, unpacked_bytes=10**9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    "body",
    [b"", b"no zip", b"PK\x05\x06" + bytes(18), made(("a", b"x")).getvalue()[:-10]],
    ids=["nothing", "text", "empty", "cut"],
)
def test_what_is_no_zip_is_refused_or_empty(body: bytes) -> None:
    """With a sentence, not with an error of the library."""
    try:
        assert PhotoZip(io.BytesIO(body), LIMITS).entries == []
    except BadZip as exc:
        assert "cannot be read" in str(exc)  # noqa: PT017 - an empty zip is one
