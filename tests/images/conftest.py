"""Builds every image of docker/Dockerfile once, on a stand-in for the public base image."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.containers import Pod
from tests.support.images import build, buildah, megabytes

_SIZES: dict[str, float] = {}


@pytest.fixture(scope="session")
def image() -> Iterator[Callable[[str], str]]:
    """Build an image by its target, once, and return its name; at the end no container of a build is left."""
    built: dict[str, str] = {}

    def by_target(target: str) -> str:
        if target not in built:
            built[target] = build(target)
            _SIZES[target] = megabytes(built[target])
        return built[target]

    yield by_target
    buildah("rm", "--all")


@pytest.fixture(scope="session")
def size_mb(image: Callable[[str], str]) -> Callable[[str], float]:
    """The size of an image in MB."""

    def of_target(target: str) -> float:
        image(target)
        return _SIZES[target]

    return of_target


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    """Containers on a network of their own."""
    with Pod(tmp_path) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the sizes, and what these tests cannot check."""
    terminalreporter.section("images, unpacked, with their base")
    for target, size in _SIZES.items():
        terminalreporter.write_line(f"{target:<12}{size:5.0f} MB")
    terminalreporter.write_line(
        "not checked: the public base image (Debian's python3 stands in), a Docker daemon, docker compose, arm64"
    )
