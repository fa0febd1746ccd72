"""Faults under load: every photo gets its right answer, and one answer only.

The faults are those of `python -m benchmarks.faults`, which runs them for longer, and with the real engine.
"""

import threading
from functools import partial

import httpx
import pytest

from tests.e2e.faults.conftest import FaultySystem
from tests.support.faults import cases
from tests.support.faults.outcomes import Row
from tests.support.faults.proxied_system import ProxiedSystem
from tests.support.faults.rules import Harm, Rule, of

FAILURES = (
    Rule(Harm.RESET_BEFORE, share=0.07),
    Rule(Harm.RESET_AFTER, share=0.07),
    Rule(Harm.REFUSE, share=0.2, matches=of("s3"), code="SlowDown"),
    Rule(Harm.REFUSE, share=0.05, matches=of("sqs"), code="ThrottlingException", status=400),
)


def assert_harmless(row: Row, dead: int = 0) -> None:
    """Check that no photo is lost, wrong or answered twice, and that `dead` dead letters with reasons are left."""
    assert (row["lost"], row["wrong"], row["duplicates_visible"]) == (0, 0, 0), str(row)
    assert (row["dlq"], row["dlq_amiss"]) == (dead, 0), str(row)


def test_failing_aws_calls_lose_no_answer(faulty_system: FaultySystem) -> None:
    """The proxy resets connections before and after a call, and answers as S3 and SQS do when they throttle."""
    _, row = faulty_system.upload_during(cases.rules(*FAILURES), least=30, lasts=True)
    assert_harmless(row)
    assert {harmed.split()[0] for harmed in faulty_system.system.proxy.harmed} == {
        "reset_before",
        "reset_after",
        "refuse",
    }


def test_killed_workers_lose_nothing(faulty_system: FaultySystem) -> None:
    """Each is killed while it has a task, which SQS delivers again."""

    def harm(system: ProxiedSystem, over: threading.Event) -> None:
        system.proxy.rules = (Rule(Harm.DELAY, seconds=0.3, matches=of("s3")),)  # a task lasts beyond the kill
        try:
            cases.kill_workers(system, over, kills=2, pause_seconds=1)
        finally:
            system.proxy.rules = ()

    _, row = faulty_system.upload_during(harm)
    assert_harmless(row)
    assert row["redelivered"] > 0


def test_fault_without_load_is_reported_as_not_injected(faulty_system: FaultySystem) -> None:
    """Without tasks no worker is killed and no queue is deleted."""
    before = [worker.pid for worker in faulty_system.system.workers]
    with pytest.raises(cases.NotInjected, match="held no task"):
        cases.kill_workers(faulty_system.system, threading.Event(), kills=1, pause_seconds=0, idle_seconds=1)
    assert [worker.pid for worker in faulty_system.system.workers] == before
    with pytest.raises(cases.NotInjected, match="no task was in the queue"):
        cases.recreate_queue(faulty_system.system, threading.Event(), seconds=0, lead_seconds=0)
    _, row = faulty_system.upload_during(cases.nothing, least=2)  # the queue is there, and the workers work
    assert_harmless(row)


def test_killed_web_process_keeps_every_result(faulty_system: FaultySystem) -> None:
    """Clients send again when their connection breaks. Results from before the kill can still be fetched."""
    outcomes, row = faulty_system.upload_during(partial(cases.kill_web, lead_seconds=1))
    assert_harmless(row)
    for outcome in outcomes[:5]:
        stored = httpx.get(f"{faulty_system.system.url}api/v1/results/{outcome.request_id}", trust_env=False)
        assert (stored.status_code, stored.json()["filename"]) == (200, outcome.photo.filename)


def test_frozen_aws_loses_nothing(faulty_system: FaultySystem) -> None:
    """Connections stay open, and no call is answered for longer than a long poll."""
    _, row = faulty_system.upload_during(partial(cases.freeze_aws, seconds=3, lead_seconds=0.5))
    assert_harmless(row)


def test_duplicate_deliveries_are_answered_once(faulty_system: FaultySystem) -> None:
    """The proxy sends tasks and results twice, and drops some deletes."""
    _, row = faulty_system.upload_during(partial(cases.duplicate, seconds=1), lasts=True)
    assert_harmless(row)
    assert faulty_system.system.proxy.harmed["twice sqs.SendMessage"] > 0


def test_poison_alone_is_dead_lettered(faulty_system: FaultySystem) -> None:
    """Its client gets 500, its dead letter has the reason, and the photos beside it are answered."""
    outcomes, row = faulty_system.upload_during(cases.nothing, poisoned=10)
    assert_harmless(row, dead=2)
    told = [outcome.told for outcome in outcomes if outcome.photo.answer is None]
    assert [status for status, _ in filter(None, told)] == [500, 500]


def test_deleted_queue_loses_nothing_once_it_is_back(faulty_system: FaultySystem) -> None:
    """The web process sends the tasks again whose clients still wait."""
    _, row = faulty_system.upload_during(partial(cases.recreate_queue, seconds=1, lead_seconds=0.5))
    assert_harmless(row)
