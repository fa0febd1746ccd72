"""The artefact of the Greengrass component: a ZIP archive with all that a device installs, so that it needs no index.

`artefact.json` describes it, and `install.sh` is its Install step. `wheels` has facerec and the packages of the extra
`edge` in their tested versions, `requirements.txt` their hashes, and `model` the model. Equal inputs: equal archives.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Self

import facerec
from facerec.errors import ConfigurationError, FacerecError
from facerec.provision.edge.recipe import ARTEFACT, Architecture
from model.artefact import HEADER, Artefact, file_sha256

_DESCRIPTION = "artefact.json"
_MACHINES: Mapping[Architecture, str] = {"x86_64": "x86_64", "arm64": "aarch64"}
_GLIBC = ("manylinux_2_28", "manylinux2014")
"""The oldest systems: Debian 11, Ubuntu 20.04, Amazon Linux 2023."""
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the archive: the first that a ZIP archive can state."""
_EARLIEST_SECONDS = "315532800"
"""The same in seconds since 1970, for the build of our wheel."""
_SHOWN_LINES = 12
_STORED = (".whl", ".onnx")
"""What compression does not make smaller."""
_OF_THE_WHEEL = ("LICENSE", "README.md", "pyproject.toml", "setup.cfg", "autoscale", "facerec", "model", "tasks")


class PipFailed(FacerecError):
    """pip found no wheel that fits; the text ends with its last lines."""

    several_lines = True


@dataclass(frozen=True, slots=True)
class EdgeArtefact:
    """What an archive has in it."""

    facerec: str
    """Its version."""
    architecture: Architecture
    pythons: tuple[str, ...]
    """The versions of Python that its wheels are for, such as `3.13`, the preferred one first."""
    model: str | None
    """The model's id, or none: then the device pulls the model."""
    files: Mapping[str, str]
    """The sha256 of each other file by its name."""

    @classmethod
    def read(cls, archive: Path) -> Self:
        """Read the description of an archive; raises `FacerecError` for anything else."""
        try:
            with zipfile.ZipFile(archive) as file:
                found = json.loads(file.read(_DESCRIPTION))
            return cls(**{**found, "pythons": tuple(found["pythons"])})
        except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as exc:
            raise FacerecError(f"{archive} is no archive of `facerec edge package`") from exc


def archive_name(architecture: Architecture) -> str:
    """Return the file name of the archive for a processor."""
    return f"{ARTEFACT}-{architecture}.zip"


def build_artefact(
    archive: Path,
    architecture: Architecture,
    *,
    pythons: Sequence[str],
    wheel: Path | None,
    constraints: Path,
    model: Artefact | None,
) -> EdgeArtefact:
    """Write the archive for one processor, with the wheel, or one that is made of the checkout.

    pip downloads the packages from its index, or takes them from its cache. Raises `ConfigurationError` without
    a checkout, `PipFailed` if a package has no wheel for the device, and `ArtefactInvalid` for a damaged model.
    """
    if model is not None:
        model.verify()
    with tempfile.TemporaryDirectory(prefix="facerec-edge-") as made:
        folder = Path(made)
        wheels = folder / "wheels"
        ours = _built_wheel(wheels) if wheel is None else wheel
        for python in pythons:
            _download(wheels, ours, architecture, python, constraints)
        files = {f"wheels/{path.name}": path for path in sorted(wheels.iterdir())}
        (folder / "requirements.txt").write_text("".join(_requirements(files.values())), encoding="utf-8")
        (folder / "pythons").write_text("".join(f"{python}\n" for python in pythons), encoding="utf-8")
        files |= {name: folder / name for name in ("requirements.txt", "pythons")}
        if model is not None:
            files |= {f"model/{name}": model.directory / name for name in (HEADER, *model.files)}
        with resources.as_file(resources.files("facerec.provision.edge") / "install.sh") as script:
            files["install.sh"] = script
            stamps = {name: file_sha256(path) for name, path in sorted(files.items())}
            described = EdgeArtefact(
                facerec.__version__, architecture, tuple(pythons), model.model_id if model else None, stamps
            )
            _write(archive, files, described)
    return described


def _built_wheel(wheels: Path) -> Path:
    checkout = checkout_folder()
    if checkout is None:
        raise ConfigurationError("this is no checkout of facerec, of which a wheel could be made: name one by --wheel")
    with tempfile.TemporaryDirectory(prefix="facerec-wheel-") as made:
        # Of a copy: setuptools would take removed modules from the checkout's folder `build`.
        for name in _OF_THE_WHEEL:
            source, target = checkout / name, Path(made) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), made)
    [wheel] = wheels.iterdir()
    return wheel


def checkout_folder() -> Path | None:
    """Return the checkout from which this code runs, if it does."""
    folder = Path(facerec.__file__).parents[1]
    return folder if (folder / "setup.cfg").is_file() and (folder / "constraints.txt").is_file() else None


def _download(wheels: Path, ours: Path, architecture: Architecture, python: str, constraints: Path) -> None:
    platforms = [f"--platform={glibc}_{_MACHINES[architecture]}" for glibc in _GLIBC]
    _pip(
        *("download", "--dest", str(wheels), "--constraint", str(constraints), "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", python, *platforms, f"{ours.resolve()}[edge]"),
    )


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": _EARLIEST_SECONDS}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - pip
    if done.returncode:
        told = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[-_SHOWN_LINES:])
        raise PipFailed(f"pip could not make the wheels:\n{told}")


def _requirements(wheels: Iterable[Path]) -> Iterator[str]:
    """Yield a line per package with the hashes of its wheels, as pip checks them."""
    hashes: dict[str, list[str]] = {}
    for wheel in wheels:
        name, version, *_ = wheel.name.split("-")
        hashes.setdefault(f"{name}=={version}", []).append(f"--hash=sha256:{file_sha256(wheel)}")
    for pinned, known in sorted(hashes.items()):
        yield f"{pinned} {' '.join(sorted(known))}\n"


def _write(archive: Path, files: Mapping[str, Path], described: EdgeArtefact) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(described), indent=2) + "\n"
    with zipfile.ZipFile(archive, "w", compresslevel=6) as file:
        file.writestr(_entry(_DESCRIPTION), text)
        for name, path in sorted(files.items()):
            with path.open("rb") as source, file.open(_entry(name), "w") as target:
                shutil.copyfileobj(source, target)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    return entry
