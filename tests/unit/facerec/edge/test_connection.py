"""What a link knows of its connection, and which message it gives up."""

import pytest

from facerec.edge import connection as module
from facerec.edge.connection import Blame, Connection
from tests.support.logs import capture_logs

FACES = "facerec/gate/faces"


def test_each_reason_of_an_outage_is_logged_once() -> None:
    """Also when two of them alternate; the problem is the last one."""
    connection = Connection(client_id="gate-1")
    with capture_logs() as logs:
        for reason in ("refused", "no route", "refused", "no route", "refused"):
            connection.failed(reason)
        assert connection.state.problem == "refused"
        connection.connected()
        connection.failed("refused")
    assert [(log["event"], log.get("reason")) for log in logs] == [
        ("iot_core_unreachable", "refused"),
        ("iot_core_unreachable", "no route"),
        ("iot_core_reachable_again", None),
        ("iot_core_unreachable", "refused"),
    ]


def test_state_counts_reconnections_and_forgets_the_outage() -> None:
    """The first connection is none."""
    connection = Connection()
    assert not connection.wait_connected(0)
    for times in range(3):
        connection.connected()
        assert connection.state.reconnections == times
        connection.failed("lost")
    connection.connected()
    assert connection.state.problem is None
    assert connection.wait_connected(0)


def test_flapping_is_the_problem_until_a_minute_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ends within a minute, not two in an hour."""
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    connection = Connection()
    connection.ended_by_server("two clients")
    now += 61
    connection.ended_by_server("two clients")
    connection.connected()
    assert connection.state.problem is None
    now += 1
    connection.ended_by_server("two clients")
    connection.connected()
    assert connection.state.problem == "two clients"
    now += 61
    assert connection.state.problem is None


def test_refused_subscription_is_the_problem_of_a_connection_until_it_is_granted() -> None:
    """The link is connected nevertheless."""
    connection = Connection()
    connection.subscribed("clients/gate", "not allowed")
    connection.connected()
    assert connection.state.connected
    assert connection.state.problem == "no messages of clients/gate come: not allowed"
    connection.subscribed("clients/gate", None)
    assert connection.state.problem is None


@pytest.mark.parametrize(("weight", "times"), [(Blame.SAID, 3), (Blame.SILENT, 30)])
def test_message_is_given_up_after_as_many_disconnects_as_its_blame_needs(weight: int, times: int) -> None:
    """A reason counts for more than a lost connection."""
    blame = Blame()
    assert [blame.add(FACES, b"poison", weight) for _ in range(times)] == [False] * (times - 1) + [True]


def test_message_is_not_given_up_when_others_get_through() -> None:
    """An acknowledgement, or another first message, begins the count again."""
    blame = Blame()
    for _ in range(2 * 30):
        assert not blame.add(FACES, b"large", Blame.SAID)
        blame.clear()
        assert not blame.add(FACES, b"large", Blame.SAID)
        assert not blame.add(FACES, b"another", Blame.SAID)
