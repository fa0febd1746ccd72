"""The real system for the end-to-end tests: started as a user starts it, on a state directory of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.local_system import LocalSystem


@pytest.fixture(scope="session")
def system(artefact_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """One worker and one web process with the sample people enrolled."""
    model = {"FACEREC_MODEL__DIR": str(artefact_dir)}
    with LocalSystem(tmp_path_factory.mktemp("system"), environ=model) as running:
        running.run("enrol", "--folder", "examples/gallery")
        yield running
