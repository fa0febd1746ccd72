"""Fixtures of the tests around a reconciler."""

from collections.abc import Iterator

import pytest
from structlog.typing import EventDict

from autoscale.reconciler import Reconciler
from tests.support.fleet_world import FleetWorld, make_reconciler
from tests.support.logs import capture_logs


@pytest.fixture
def world() -> FleetWorld:
    """Nothing waits, nothing runs."""
    return FleetWorld()


@pytest.fixture
def reconciler(world: FleetWorld) -> Reconciler:
    """An autoscaler that has just been started."""
    return make_reconciler(world)


@pytest.fixture
def logs() -> Iterator[list[EventDict]]:
    """What is logged."""
    with capture_logs() as records:
        yield records
