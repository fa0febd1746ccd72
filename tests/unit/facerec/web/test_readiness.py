"""The checks of a web process, `/healthz` and `/readyz`."""

import threading

import pytest
from flask.testing import FlaskClient

from facerec.errors import ConfigurationError, QueueMissing
from facerec.web.readiness import Readiness
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.web_tier import FakeWebTier, answers, running


@pytest.fixture
def tier() -> FakeWebTier:
    """A web tier whose worker knows Jane."""
    return FakeWebTier(answer=answers("Jane"))


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def test_health_is_ok_whatever_else_fails(client: FlaskClient) -> None:
    """Health is ok whatever else fails."""
    response = client.get("/healthz")
    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_readiness_names_each_check_with_its_reason(tier: FakeWebTier) -> None:
    """So that an operator need not read logs."""

    def missing() -> None:
        raise QueueMissing("facerec-req-queue")

    tier.checks |= {"store": lambda: None, "queue": missing}
    with running(tier):
        response = tier._app().test_client().get("/readyz")
    assert response.status_code == 503
    assert response.json
    assert response.json["status"] == "unready"
    assert response.json["checks"]["store"] == "ok"
    assert response.json["checks"]["inbox"] == "ok"
    assert "facerec-req-queue" in response.json["checks"]["queue"]


def test_readiness_is_ok_once_the_inbox_reads(tier: FakeWebTier) -> None:
    """Readiness is ok once the inbox reads."""
    assert tier._app().test_client().get("/readyz").status_code == 503
    with running(tier):
        assert tier._app().test_client().get("/readyz").status_code == 200


def test_readiness_does_not_wait_for_a_check_that_hangs() -> None:
    """Nor does it start the check twice."""
    begun, release = [], threading.Event()

    def hang() -> None:
        begun.append(1)
        release.wait(30)

    readiness = Readiness({"store": hang, "queue": lambda: None}, answer_seconds=0.1)
    for _ in range(2):
        problems = readiness.problems()
        assert problems["store"] == "no answer in time"
        assert problems["queue"] is None
    assert len(begun) == 1
    release.set()


def test_readiness_runs_a_check_at_most_once_per_second() -> None:
    """Readiness runs a check at most once per second."""
    looks, now = [], [0.0]
    readiness = Readiness({"store": lambda: looks.append(1)}, clock=lambda: now[0])
    for _ in range(100):
        assert readiness.problems() == {"store": None}
    assert len(looks) == 1
    now[0] += 1.5
    readiness.problems()
    assert len(looks) == 2


def test_check_with_a_fault_makes_the_process_unready() -> None:
    """Check with a fault makes the process unready."""

    def broken() -> None:
        raise KeyError("x")

    problem = Readiness({"store": broken}).problems()["store"]
    assert problem is not None
    assert "KeyError" in problem


def test_readiness_fails_without_a_bucket() -> None:
    """Readiness fails without a bucket."""
    store = InMemoryObjectStore(["other"])
    problem = Readiness({"store": lambda: store.keys("facerec-in-bucket")}).problems()["store"]
    assert problem is not None
    assert "provision" in problem
    with pytest.raises(ConfigurationError):
        store.put("facerec-in-bucket", "a", b"", "text/plain")
