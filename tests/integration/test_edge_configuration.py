"""The configuration that a nucleus keeps, by AWS's own IPC client against the local IPC server."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest

from facerec.edge.nucleus_configuration import NucleusConfiguration
from facerec.errors import Transient
from facerec.local.edge.ipc_server import IpcComponent, IpcServer
from facerec.processes.addresses import poll_until
from facerec.provision.edge.recipe import access_control, default_configuration
from facerec.provision.iam_edge import COMPONENT

SECONDS = 10


class NoCloud:
    """Behind the nucleus: these tests send nothing."""

    def publish(self, topic: str, payload: bytes) -> "Future[None]":
        """Refuse it."""
        raise AssertionError((topic, payload))

    def subscribe(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Refuse it."""
        raise AssertionError((topic, handler))


@pytest.fixture
def component() -> IpcComponent:
    """With the configuration of the recipe."""
    configuration = {"edge": default_configuration(), "accessControl": access_control("gate-1")}
    return IpcComponent(COMPONENT, "token", access_control("gate-1"), configuration)


@pytest.fixture
def nucleus(component: IpcComponent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IpcServer]:
    """A server that knows the component, with the variables of its process."""
    socket = tmp_path / "ipc.socket"
    monkeypatch.setenv("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", str(socket))
    monkeypatch.setenv("SVCUID", component.token)
    server = IpcServer(socket, NoCloud())
    server.add(component)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def source() -> Iterator[NucleusConfiguration]:
    """It is closed at the end."""
    made = NucleusConfiguration()
    yield made
    made.close()


def test_configuration_is_read_at_the_start_and_when_it_changes(
    nucleus: IpcServer, component: IpcComponent, source: NucleusConfiguration
) -> None:
    """In between there is nothing new; what is no setting of the edge is no change."""
    assert source.changes() == default_configuration()
    assert source.changes() is None
    changed = {**default_configuration(), "status_seconds": 5.0}
    nucleus.configure(component, {**component.configuration, "accessControl": {}})
    nucleus.configure(component, {**component.configuration, "edge": changed})
    assert poll_until(lambda: source.changes() == changed, SECONDS)
    assert source.changes() is None


def test_configuration_is_read_again_after_the_nucleus_was_away(
    nucleus: IpcServer, component: IpcComponent, source: NucleusConfiguration
) -> None:
    """A change of that time is not missed; meanwhile it raises `Transient`."""
    assert source.changes() is not None
    nucleus.stop()

    def away() -> bool:
        with suppress(Transient):
            return source.changes() is not None
        return True

    assert poll_until(away, SECONDS)
    with pytest.raises(Transient, match="the nucleus does not tell the component's configuration"):
        source.changes()
    component.configuration = {"edge": {"camera": "1"}}
    nucleus.start()
    assert source.changes() == {"camera": "1"}


@pytest.mark.usefixtures("nucleus")
def test_component_without_a_configuration_has_no_changes_of_its_own(
    component: IpcComponent, source: NucleusConfiguration
) -> None:
    """Then the environment is all."""
    component.configuration = {}
    assert source.changes() == {}


@pytest.mark.usefixtures("nucleus")
def test_wrong_token_is_named(source: NucleusConfiguration, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nucleus ends such a connection."""
    monkeypatch.setenv("SVCUID", "another")
    with pytest.raises(Transient, match="the nucleus does not tell"):
        source.changes()
