"""Faults under load: every photo is answered in the end, rightly and once, whatever broke meanwhile.

The faults are those of `python -m benchmarks.faults`, which runs them for longer, and with the real engine.
"""

import threading
from functools import partial

import httpx
import pytest

from tests.e2e.faults.conftest import Disturbed
from tests.support.faults import cases
from tests.support.faults.rig import Rig
from tests.support.faults.rules import Harm, Rule, of
from tests.support.faults.verdict import Row

FAILURES = (
    Rule(Harm.RESET_BEFORE, share=0.07),
    Rule(Harm.RESET_AFTER, share=0.07),
    Rule(Harm.REFUSE, share=0.2, matches=of("s3"), code="SlowDown"),
    Rule(Harm.REFUSE, share=0.05, matches=of("sqs"), code="ThrottlingException", status=400),
)


def assert_harmless(row: Row, dead: int = 0) -> None:
    """Nothing is lost, wrong, or seen twice, and only so many, with their reasons, are among the dead letters."""
    assert (row["lost"], row["wrong"], row["duplicates_visible"]) == (0, 0, 0), str(row)
    assert (row["dlq"], row["dlq_amiss"]) == (dead, 0), str(row)


def test_an_aws_that_fails_now_and_then_costs_nobody_an_answer(disturbed: Disturbed) -> None:
    """Connections reset before and after the call was carried out, and S3's and SQS's own refusals."""
    _, row = disturbed.suffer(cases.rules(*FAILURES), least=30, lasts=True)
    assert_harmless(row)
    assert {harmed.split()[0] for harmed in disturbed.rig.proxy.harmed} == {"reset_before", "reset_after", "refuse"}


def test_killed_workers_lose_nothing(disturbed: Disturbed) -> None:
    """One after the other, with a task in hand; what they held is delivered again."""

    def harm(rig: Rig, over: threading.Event) -> None:
        rig.proxy.rules = (Rule(Harm.DELAY, seconds=0.3, matches=of("s3")),)  # a task lasts beyond the kill
        try:
            cases.kill_workers(rig, over, kills=2, pause_seconds=1)
        finally:
            rig.proxy.rules = ()

    _, row = disturbed.suffer(harm)
    assert_harmless(row)
    assert row["redelivered"] > 0


def test_without_load_no_harm_is_claimed(disturbed: Disturbed) -> None:
    """Workers without a task and an empty queue have nothing to lose: neither is touched."""
    before = [worker.pid for worker in disturbed.rig.workers]
    with pytest.raises(cases.NotHarmed, match="no task in hand"):
        cases.kill_workers(disturbed.rig, threading.Event(), kills=1, pause_seconds=0, idle_seconds=1)
    assert [worker.pid for worker in disturbed.rig.workers] == before
    with pytest.raises(cases.NotHarmed, match="no task was in the queue"):
        cases.recreate_queue(disturbed.rig, threading.Event(), seconds=0, lead_seconds=0)
    _, row = disturbed.suffer(cases.nothing, least=2)  # the queue is there, and the workers work
    assert_harmless(row)


def test_a_killed_web_process_comes_back_with_every_result(disturbed: Disturbed) -> None:
    """Clients whose connection broke send again; what was answered before is still fetchable."""
    stories, row = disturbed.suffer(partial(cases.kill_web, lead_seconds=1))
    assert_harmless(row)
    for story in stories[:5]:
        stored = httpx.get(f"{disturbed.rig.url}api/v1/results/{story.request_id}", trust_env=False)
        assert (stored.status_code, stored.json()["filename"]) == (200, story.photo.filename)


def test_an_aws_that_freezes_is_waited_for(disturbed: Disturbed) -> None:
    """Connections stand, and nothing answers for longer than a long poll."""
    _, row = disturbed.suffer(partial(cases.freeze_aws, seconds=3, lead_seconds=0.5))
    assert_harmless(row)


def test_what_is_delivered_twice_is_answered_once(disturbed: Disturbed) -> None:
    """Tasks and results that are sent twice, and deletes that SQS has forgotten."""
    _, row = disturbed.suffer(partial(cases.duplicate, seconds=1), lasts=True)
    assert_harmless(row)
    assert disturbed.rig.proxy.harmed["twice sqs.SendMessage"] > 0


def test_poison_alone_is_put_aside(disturbed: Disturbed) -> None:
    """Its client is told, its message is kept with the reason, and its neighbours are answered."""
    stories, row = disturbed.suffer(cases.nothing, poisoned=10)
    assert_harmless(row, dead=2)
    told = [story.told for story in stories if story.photo.answer is None]
    assert [status for status, _ in filter(None, told)] == [500, 500]


def test_a_queue_that_is_deleted_and_created_again_loses_nothing(disturbed: Disturbed) -> None:
    """The web process sends again what its clients still wait for."""
    _, row = disturbed.suffer(partial(cases.recreate_queue, seconds=1, lead_seconds=0.5))
    assert_harmless(row)
