"""Builds the functions as a zip archive for Lambda's runtime python3.12: `make lambda-zip`.

    python -m deploy.lambda_zip.build --architecture x86_64

The archive holds the packages of the extra `lambda` in their tested versions, facerec, and the artefact of the pack
`open` in the folder `artefact` (`FACEREC_MODEL__DIR=/var/task/artefact`). Equal inputs give equal archives. The build
fails if the archive is larger, unpacked, than Lambda allows. The last line is one JSON object.
"""

import argparse
import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.lambda_zip.hollow import drop_unneeded, hollow
from deploy.lambda_zip.slim import files, size_bytes, slim
from facerec.settings import Settings
from model.artefact import Artefact, ArtefactError

CHECKOUT = Path(__file__).parents[2]
LIMIT_BYTES = 262_144_000
"""What Lambda allows a function and its layers, unpacked: 250 MB, by which AWS means 2**20 bytes each."""
PACK = "open"
PYTHON = "3.12"
"""The version of the managed runtime; SnapStart needs 3.12 or newer."""
PLATFORMS = {
    architecture: [f"manylinux_2_28_{architecture}", f"manylinux2014_{architecture}"]
    for architecture in ("x86_64", "aarch64")
}
_OPENCV = "opencv_python_headless.libs"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the archive: the first that a zip archive can state."""


def main() -> None:
    """Build it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=["x86_64", "arm64"], default="x86_64")
    parser.add_argument("--model", type=Path, help="folder of the artefact (default: that of the settings)")
    parser.add_argument(
        "--python", default=shutil.which(f"python{PYTHON}"), help="Python of the runtime's version, for the bytecode"
    )
    parser.add_argument("--compiler", default=os.environ.get("CC", "cc"), help="C compiler for the architecture")
    parser.add_argument("--dist", type=Path, default=CHECKOUT / "dist")
    options = parser.parse_args()
    folder = CHECKOUT / "build" / f"lambda-{options.architecture}"
    shutil.rmtree(folder, ignore_errors=True)
    installed = collect(folder, options.architecture, options.model or Settings.load().model.dir, options.compiler)
    bytecode = compile_all(folder, options.python)
    check_size(folder)
    archive = options.dist / f"lambda-{options.architecture}.zip"
    write_archive(folder, archive)
    figures = {
        "zip": str(archive),
        "zip_mb": round(archive.stat().st_size / 1e6, 1),
        "unzipped_mb": round(size_bytes(folder) / 1e6, 1),
        "limit_mb": round(LIMIT_BYTES / 1e6, 1),
        "installed_mb": round(installed / 1e6, 1),
        "bytecode": bytecode,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    print(json.dumps(figures))


def collect(folder: Path, architecture: str, model: Path, compiler: str) -> int:
    """Fill the folder; return the bytes of the packages before anything was removed from them."""
    try:
        artefact = Artefact.load(model)
        artefact.verify()
    except ArtefactError as exc:
        raise SystemExit(str(exc)) from exc
    if artefact.pack != PACK:
        raise SystemExit(f"{model} holds the pack {artefact.pack}: run `facerec model build --pack {PACK}`")
    install(folder, requirements(CHECKOUT / "setup.cfg"), architecture)
    installed = size_bytes(folder)
    _say(f"installed {installed / 1e6:.0f} MB; removed {slim(folder) / 1e6:.0f} MB that never run")
    replaced = [
        *hollow(folder, _OPENCV, compiler),
        *(path.name for path in drop_unneeded(folder, folder / "pillow.libs")),
    ]
    _say(f"hollowed or dropped {', '.join(replaced)}")
    for package in ("facerec", "model"):
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "artefact").mkdir()
    for name in ("model.json", *artefact.files):
        shutil.copyfile(model / name, folder / "artefact" / name)
    return installed


def requirements(setup: Path) -> list[str]:
    """Return what the functions need: the core's requirements and those of the extra `lambda`."""
    config = configparser.ConfigParser()
    config.read(setup, encoding="utf-8")
    both = config["options"]["install_requires"], config["options.extras_require"]["lambda"]
    return [line for text in both for line in text.split("\n") if line and not line.startswith("#")]


def install(folder: Path, packages: list[str], architecture: str) -> None:
    """Install the packages for the runtime into a folder, in the versions of constraints.txt."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--quiet"]
    command += ["--target", str(folder), "--no-compile", "--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", PYTHON, "--constraint", str(CHECKOUT / "constraints.txt")]
    for platform in PLATFORMS["aarch64" if architecture == "arm64" else architecture]:
        command += ["--platform", platform]
    if subprocess.run([*command, *packages], check=False).returncode:
        raise SystemExit("pip could not install the packages of the functions")


def compile_all(folder: Path, python: str | None) -> bool:
    """Write the bytecode, which the runtime cannot, since its folder is read-only; return whether there is a Python.

    The files state no time and are not checked against their sources.
    """
    if python is None or subprocess.run([python, "-V"], check=False, capture_output=True).returncode:
        _say(f"there is no python{PYTHON}, so the archive has no bytecode: functions start more than a second later")
        return False
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*command, "-s", str(folder), "-p", "/var/task", str(folder)], check=True)
    return True


def check_size(folder: Path) -> None:
    """Raise `SystemExit` with the largest parts if Lambda would refuse the folder."""
    total = size_bytes(folder)
    if total > LIMIT_BYTES:
        parts = {path.name: size_bytes(path) for path in folder.iterdir() if path.is_dir()}
        largest = sorted(parts, key=lambda name: -parts[name])[:5]
        listed = ", ".join(f"{name} {parts[name] / 1e6:.0f} MB" for name in largest)
        raise SystemExit(f"{total} bytes unpacked, and Lambda takes {LIMIT_BYTES}: the largest are {listed}")


def write_archive(folder: Path, archive: Path) -> None:
    """Write the folder as a zip archive that depends on nothing but its files."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", compresslevel=6) as file:
        for path in files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EARLIEST)
            entry.external_attr = (0o755 if path.suffix == ".so" else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, path.read_bytes())


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
