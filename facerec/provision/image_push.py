"""Pushes a local image into the ECR repository, with skopeo, or with docker or podman if that is missing."""

import base64
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
_STDERR = 2
_LOGIN_SECONDS, _PUSH_SECONDS = 60, 3600


class _Registry(NamedTuple):
    host: str
    user: str
    token: str


def push_image(clients: Clients, repository_uri: str, image: str, tag: str) -> str:
    """Push an image under a tag; returns its reference by digest, as ECR states it.

    `image` is a name in the storage of docker, podman or buildah, an archive, an OCI directory, or one of these with
    skopeo's prefix. Raises `ConfigurationError` if no tool is installed, and `FacerecError` with a tool's last line.
    """
    if image.startswith("-"):
        raise FacerecError(f"{image!r} is no name of an image")
    registry = _log_in(clients, repository_uri)
    destination = f"{repository_uri}:{tag}"
    skopeo = shutil.which("skopeo")
    engine = shutil.which("docker") or shutil.which("podman")
    if skopeo is not None:
        _push_with_skopeo(skopeo, registry, _source(image, shutil.which("docker")), destination)
    elif engine is not None:
        _push_with_engine(engine, registry, image, destination)
    else:
        raise ConfigurationError("neither skopeo nor docker nor podman is installed; install one (apt: skopeo)")
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


def _push_with_skopeo(skopeo: str, registry: _Registry, source: str, destination: str) -> None:
    with tempfile.TemporaryDirectory(prefix="facerec-push-") as folder:
        authfile = f"--authfile={Path(folder) / 'auth.json'}"
        login = [skopeo, "login", authfile, "--username", registry.user, "--password-stdin", registry.host]
        _run(login, timeout_seconds=_LOGIN_SECONDS, token=registry.token)
        _run([skopeo, "copy", authfile, source, f"docker://{destination}"], timeout_seconds=_PUSH_SECONDS)


def _push_with_engine(engine: str, registry: _Registry, image: str, destination: str) -> None:
    login = [engine, "login", "--username", registry.user, "--password-stdin", registry.host]
    _run(login, timeout_seconds=_LOGIN_SECONDS, token=registry.token)
    try:
        _run([engine, "tag", image, destination], timeout_seconds=_LOGIN_SECONDS)
        _run([engine, "push", destination], timeout_seconds=_PUSH_SECONDS)
    finally:
        _run([engine, "logout", registry.host], timeout_seconds=_LOGIN_SECONDS)


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


def _run(command: Sequence[str], *, timeout_seconds: float, token: str | None = None) -> None:
    """Run a tool, whose own progress goes to our stderr; the token goes to its standard input alone."""
    doing = " ".join([Path(command[0]).name, command[1]])
    try:
        subprocess.run(  # noqa: S603 - no shell
            command,
            input=None if token is None else token.encode(),
            stdin=subprocess.DEVNULL if token is None else None,
            stdout=_STDERR if token is None else subprocess.DEVNULL,  # our standard output has the reference alone
            stderr=None if token is None else subprocess.PIPE,
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
