"""Clients of both emulators, for the suites that adapters and their in-memory twins share."""

from collections.abc import Iterator

import pytest
from moto import mock_aws

from facerec.aws.clients import Clients
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from tests.support.emulated import EmulatedAws
from tests.support.fleet_cloud import FleetCloud, make_cloud


@pytest.fixture(scope="session")
def ministack_clients(emulator: EmulatedAws) -> Clients:
    """Clients of the emulator, shared because making them takes longer than most tests."""
    return Clients(emulator.settings)


@pytest.fixture(scope="module")
def moto_clients() -> Iterator[Clients]:
    """Clients of moto, which answers within this process while the fixture lives."""
    clients = Clients(Settings(aws=AwsSettings()))  # the environment may point at the emulator already
    with mock_aws():
        yield clients


@pytest.fixture
def cloud(ministack_clients: Clients) -> FleetCloud:
    """A cloud of the test's own."""
    return make_cloud(ministack_clients, types=("c7i.large", "m7i.large"), subnet_ids=("subnet-a", "subnet-b"))


@pytest.fixture(scope="session")
def other(emulator: EmulatedAws) -> Clients:
    """Clients of the emulator whose calls no test tampers with."""
    return Clients(emulator.settings)
