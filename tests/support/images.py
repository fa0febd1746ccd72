"""Builds the images of docker/ with buildah, on a stand-in for the public base image. It needs root on Debian.

The stand-in is Debian's own python3. It and buildah's storage are kept in .cache/images.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facerec import __version__
from tests.support.processes import CHECKOUT

DOCKERFILE = CHECKOUT / "docker" / "Dockerfile"
CACHE = (CHECKOUT / ".cache").resolve() / "images"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_BASE = "localhost/facerec-base"
_UNUSED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")
_BASE_SECONDS, _BUILD_SECONDS = 900, 1800


def buildah(*arguments: str, seconds: float = 60) -> str:
    """Run buildah on the storage in .cache to its end, and return its standard output; fail with its last lines."""
    storage = ("--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run"), "--storage-driver", "overlay")
    done = subprocess.run(
        ["buildah", *storage, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, f"buildah {arguments[0]}:\n{(done.stdout + done.stderr)[-6000:]}"
    return done.stdout


def build(name: str, target: str | None = None, **arguments: str) -> str:
    """Build a target, by default that of the same name, and return the image; pip is configured as on this machine."""
    image = f"localhost/facerec-{name}"
    with tempfile.TemporaryDirectory() as folder:
        pip = Path(folder) / "pip.conf"
        pip.write_text(_pip_configuration())
        options = [
            f"--build-arg={key}={value}"
            for key, value in {"PYTHON_IMAGE": _base(), "VERSION": __version__, **arguments}.items()
        ]
        options += [f"--secret=id=pip.conf,src={pip}", f"--secret=id=ca.pem,src={_CERTIFICATES}"]
        buildah(
            *("build", "--isolation=chroot", "--network=host", "--format=docker", "--layers"),
            # This version of buildah does not see that `FROM model-${MODEL}` uses a stage.
            "--skip-unused-stages=false",
            *options,
            *(f"--file={DOCKERFILE}", f"--target={target or name}", f"--tag={image}", "."),
            seconds=_BUILD_SECONDS,
        )
    return image


def megabytes(image: str) -> float:
    """The unpacked size of an image with its base, in millions of bytes."""
    with mounted(image) as root:
        links: set[tuple[int, int]] = set()
        total = 0
        for folder, _, files in os.walk(root):
            for file in files:
                state = (Path(folder) / file).lstat()
                if (state.st_dev, state.st_ino) not in links:
                    links.add((state.st_dev, state.st_ino))
                    total += state.st_size
        return total / 1e6


def configuration(image: str) -> Mapping[str, Any]:
    """An image's user, environment, entry point, command, health check and labels, in Docker's form."""
    found: Mapping[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    return found


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The root file system of an image, which nothing should write to."""
    container = buildah("from", "--pull-never", image).strip()
    try:
        yield Path(buildah("mount", container).strip())
    finally:
        buildah("rm", container)


def _base() -> str:
    """Make the stand-in for the public base image, unless it is there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if _BASE in buildah("images", "--format", "{{.Name}}").split():
        return _BASE
    # The archive and the release that this machine itself installs from.
    sources = subprocess.check_output(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        text=True,
    )
    archive, release, _ = next(line.split() for line in sources.splitlines() if line.endswith(" main"))
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = Path(folder) / "root"
        subprocess.run(
            [
                *("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"),
                *(release, str(root), archive),
            ],
            timeout=_BASE_SECONDS,
            check=True,
            capture_output=True,
        )
        with tarfile.open(Path(folder) / "root.tar", "w") as archived:
            archived.add(root, ".", filter=lambda one: None if one.name[2:].startswith(_UNUSED) else one)
        (Path(folder) / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
        (Path(folder) / ".dockerignore").write_text("root\n")
        buildah("build", "--isolation=chroot", f"--tag={_BASE}", folder, seconds=_BASE_SECONDS)
    return _BASE


def _pip_configuration() -> str:
    """What this machine's pip is configured with, as far as it holds inside a build: no files of this machine."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], cwd=CHECKOUT, text=True)
    kept = {"index-url", "extra-index-url", "proxy", "timeout", "trusted-host"}
    settings = {"cert": "/run/secrets/ca.pem"}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        addresses = " ".join(one for one in value.strip("'\"").split() if not one.startswith("file:"))
        if key in kept and addresses:
            settings[key] = addresses
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
