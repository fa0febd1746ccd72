"""Fixtures for all tests: an environment of their own, an emulated AWS, and the real model artefact."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from facerec.local.emulator import EmulatorKind
from facerec.local.functions.runtime_emulator import fetch_runtime_emulator
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, emulated_aws
from tests.support.logs import make_capturable
from tests.support.processes import CHECKOUT, facerec
from tests.support.workers import Worker, WorkerTier

# How long an example takes depends on what else the machine does; speed is measured in benchmarks.
hypothesis.settings.register_profile("facerec", deadline=None)
hypothesis.settings.load_profile("facerec")


_TIERS = ("e2e", "integration", "browser", "contracts", "unit")
"""The folders in the order of their tests: the slow ones start first, so that all processes end at about one time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow folders first."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(CHECKOUT / "tests").parts[0]
    return _TIERS.index(folder) if folder in _TIERS else len(_TIERS)


make_capturable()


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """No test sees the user's AWS account or settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "FACEREC_")):
                patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture(autouse=True)
def _no_configured_logs() -> Iterator[None]:
    """A test that configures the logs of this process must undo it: later tests could not capture records."""
    yield
    configured = structlog.get_config()["cache_logger_on_first_use"]
    if configured:
        structlog.reset_defaults()
    make_capturable()
    if configured:
        pytest.fail("this test has configured structlog and has not reset it")


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """One emulated AWS for the whole session, provisioned under the default names; the environment points at it."""
    with emulated_aws(EmulatorKind.MINISTACK, tmp_path_factory.mktemp("emulator"), services="iot,iot-data") as aws:
        yield aws


@pytest.fixture
def fresh(emulator: EmulatedAws) -> Settings:
    """Settings whose buckets, queues and tables are this test's own, and empty."""
    return emulator.fresh()


@pytest.fixture
def tier(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> WorkerTier:
    """The resources of an app tier of this test's own."""
    return WorkerTier(emulator, fresh, tmp_path)


@pytest.fixture
def start(tier: WorkerTier) -> Iterator[Callable[..., Worker]]:
    """Starts workers of the tier, ready on return; all that still run at the end are killed."""
    started: list[Worker] = []

    def start(**variables: str) -> Worker:
        worker = Worker(tier.environ | variables)
        started.append(worker)
        worker.wait_for("worker_ready")
        return worker

    yield start
    for worker in started:
        worker.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def artefact_dir() -> Path:
    """The default pack's artefact, kept in the checkout's cache: built on first use, and again when inputs change."""
    return _built("open", CHECKOUT / ".cache" / "model")


@pytest.fixture(scope="session")
def classic_dir() -> Path:
    """The artefact of the pack `classic`."""
    return _built("classic", CHECKOUT / ".cache" / "packs" / "classic")


@pytest.fixture(scope="session")
def accurate_dir() -> Path:
    """The artefact of the pack `accurate`, whose licence allows research and tests."""
    return _built("accurate", CHECKOUT / ".cache" / "packs" / "accurate")


def _built(pack: str, directory: Path) -> Path:
    cache = CHECKOUT / ".cache"
    cache.mkdir(exist_ok=True)
    # The download, which is checked by its hash, is shared with the user's own builds.
    variables = {"FACEREC_MODEL__DIR": str(directory), "FACEREC_MODEL__LICENCE": "research"}
    with (cache / "model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests must not build at once
        command = facerec("model", "build", "--pack", pack)
        subprocess.run(command, cwd=CHECKOUT, env=os.environ | variables, check=True)
    return directory


@pytest.fixture(scope="session")
def runtime_emulator() -> Path:
    """AWS's Runtime Interface Emulator, downloaded at first use into the user's own folder of downloads."""
    cache = Settings().model.cache_dir
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".runtime-emulator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_runtime_emulator(cache)
