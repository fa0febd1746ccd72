"""Pushes a local image into the ECR repository, with skopeo, or with docker or podman if that is missing."""

import base64
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError, FacerecError

_TRANSPORTS = ("containers-storage:", "dir:", "docker-archive:", "docker-daemon:", "oci-archive:", "oci:")
"""How skopeo names where a local image is."""
_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
"""How images name what Lambda names."""
_STDERR = 2
_LOGIN_SECONDS, _PUSH_SECONDS = 60, 3600


class LocalImage(NamedTuple):
    """An image on this machine, and what pushes it."""

    name: str
    """As the tool names it."""
    tool: Sequence[str]
    """The tool's path, and options of all its commands."""
    by_skopeo: bool


class _Registry(NamedTuple):
    host: str
    user: str
    token: str


def find_image(image: str, architecture: str) -> LocalImage:
    """Find a local image, and check that it is for this architecture of Lambda.

    `image` is a name in the storage of docker, podman or buildah, an archive, an OCI directory, or one of these with
    skopeo's prefix. Raises `ConfigurationError` if no tool is installed, and `FacerecError` for an image that is
    missing, or for another processor.
    """
    if image.startswith("-"):
        raise FacerecError(f"{image!r} is no name of an image")
    wanted = _ARCHITECTURES[architecture]
    skopeo, docker = shutil.which("skopeo"), shutil.which("docker")
    engine = docker or shutil.which("podman")
    if skopeo is not None:
        # Of an image for several processors it takes the one for ours.
        tool = (skopeo, "--override-os=linux", f"--override-arch={wanted}")
        found = LocalImage(_source(image, docker), tool, by_skopeo=True)
        told = _run([*tool, "inspect", "--config", found.name], timeout_seconds=_PUSH_SECONDS, quiet=True)
        theirs = json.loads(told)["architecture"]
    elif engine is not None:
        found = LocalImage(image, (engine,), by_skopeo=False)
        asked = [engine, "inspect", "--type=image", "--format={{.Architecture}}", image]
        theirs = _run(asked, timeout_seconds=_LOGIN_SECONDS, quiet=True).strip()
    else:
        raise ConfigurationError("neither skopeo nor docker nor podman is installed; install one (apt: skopeo)")
    if theirs != wanted:
        raise FacerecError(
            f"image {image!r} is for {theirs}, and FACEREC_SERVERLESS__ARCHITECTURE is {architecture}: build it for "
            f"linux/{wanted}, or change the setting"
        )
    return found


def push_image(clients: Clients, repository_uri: str, image: LocalImage, tag: str) -> str:
    """Push an image under a tag; returns its reference by digest, as ECR states it.

    Raises `FacerecError` with the tool's last line.
    """
    registry = _log_in(clients, repository_uri)
    destination = f"{repository_uri}:{tag}"
    (_push_with_skopeo if image.by_skopeo else _push_with_engine)(registry, image, destination)
    _, _, name = repository_uri.partition("/")
    with translated(f"look up the digest of {destination}"):
        found = clients.ecr.batch_get_image(repositoryName=name, imageIds=[{"imageTag": tag}])["images"]
    if not found:
        raise FacerecError(f"the push has ended, and ECR has no image {destination}")
    return f"{repository_uri}@{found[0]['imageId']['imageDigest']}"


def _log_in(clients: Clients, repository_uri: str) -> _Registry:
    with translated("log in to ECR"):
        [data] = clients.ecr.get_authorization_token()["authorizationData"]
    user, _, token = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return _Registry(repository_uri.partition("/")[0], user, token)


def _push_with_skopeo(registry: _Registry, image: LocalImage, destination: str) -> None:
    with tempfile.TemporaryDirectory(prefix="facerec-push-") as folder:
        authfile = f"--authfile={Path(folder) / 'auth.json'}"
        login = [*image.tool, "login", authfile, "--username", registry.user, "--password-stdin", registry.host]
        _run(login, timeout_seconds=_LOGIN_SECONDS, token=registry.token, quiet=True)
        copy = [*image.tool, "copy", authfile, image.name, f"docker://{destination}"]
        _run(copy, timeout_seconds=_PUSH_SECONDS)


def _push_with_engine(registry: _Registry, image: LocalImage, destination: str) -> None:
    login = [*image.tool, "login", "--username", registry.user, "--password-stdin", registry.host]
    _run(login, timeout_seconds=_LOGIN_SECONDS, token=registry.token, quiet=True)
    try:
        _run([*image.tool, "tag", image.name, destination], timeout_seconds=_LOGIN_SECONDS)
        _run([*image.tool, "push", destination], timeout_seconds=_PUSH_SECONDS)
    finally:
        _run([*image.tool, "logout", registry.host], timeout_seconds=_LOGIN_SECONDS)


def _source(image: str, docker: str | None) -> str:
    """Return where the image is, as skopeo names it."""
    if image.startswith(_TRANSPORTS):
        return image
    path = Path(image)
    if path.is_dir():
        return f"oci:{image}"
    if path.is_file():
        try:
            with tarfile.open(path) as archive:
                members = archive.getnames()
        except tarfile.TarError as exc:
            raise FacerecError(f"{image!r} is no archive of an image: {exc}") from exc
        return f"oci-archive:{image}" if "oci-layout" in members else f"docker-archive:{image}"
    if docker is not None and _known_to(docker, image):
        return f"docker-daemon:{image}" if ":" in image.rpartition("/")[2] else f"docker-daemon:{image}:latest"
    return f"containers-storage:{image}"


def _known_to(docker: str, image: str) -> bool:
    asked = subprocess.run(  # noqa: S603 - no shell, and the name cannot begin with a dash
        [docker, "image", "inspect", image], capture_output=True, timeout=_LOGIN_SECONDS, check=False
    )
    return asked.returncode == 0


def _run(command: Sequence[str], *, timeout_seconds: float, token: str = "", quiet: bool = False) -> str:
    """Run a tool; returns what it prints, if it is quiet. Otherwise that goes to our stderr, with its progress.

    The token goes to the tool's standard input alone.
    """
    doing = " ".join([Path(command[0]).name, next(word for word in command[1:] if not word.startswith("-"))])
    try:
        ended = subprocess.run(  # noqa: S603 - no shell
            command,
            input=token.encode(),
            stdout=subprocess.PIPE if quiet else _STDERR,  # our standard output has the reference alone
            stderr=subprocess.PIPE if quiet else None,
            timeout=timeout_seconds,
            check=True,
        )
    except subprocess.CalledProcessError as exc:
        said = (exc.stderr or b"").decode(errors="replace").strip().rpartition("\n")[2]
        reason = said or f"exit status {exc.returncode}; see above"
        raise FacerecError(f"`{doing}` failed: {reason}") from exc
    except subprocess.TimeoutExpired as exc:
        raise FacerecError(f"`{doing}` has not ended within {timeout_seconds:g} s") from exc
    except OSError as exc:
        raise FacerecError(f"`{doing}` cannot be run: {exc.strerror}") from exc
    return (ended.stdout or b"").decode(errors="replace")
