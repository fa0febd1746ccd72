"""Worker processes whose queues vanish, whose AWS throttles or refuses single calls, and whose clients have gone."""

import itertools
import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import output_key
from facerec.provision.provisioning import provision
from tests.fakes import engine as fake
from tests.support.emulated import EmulatedAws
from tests.support.faults.faulty_aws import FaultyAws, faulty_aws
from tests.support.faults.rules import Harm, Rule
from tests.support.workers import Worker, WorkerTier

LONG_HIDDEN = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30"}
BRIEF_POLLS = {"FACEREC_QUEUE__WAIT_TIME_SECONDS": "1"}
"""One that its dead worker has left open may swallow a message."""


@pytest.fixture
def proxy(emulator: EmulatedAws) -> Iterator[FaultyAws]:
    """What stands between a worker and AWS."""
    with faulty_aws(emulator.url) as proxy:
        yield proxy


def refuse_answers(proxy: FaultyAws) -> None:
    """No result is published from now on."""
    proxy.rules = (Rule(Harm.REFUSE, matches=lambda call: b"MessageBody" in call.body and b"resp-queue" in call.body),)


def refuse_a_third(proxy: FaultyAws) -> None:
    """Of all calls to SQS."""
    calls = itertools.count()
    third = Rule(
        Harm.REFUSE,
        matches=lambda call: b"QueueUrl" in call.body and next(calls) % 3 == 0,
        status=400,
        code="RequestThrottled",
    )
    proxy.rules = (third,)


def test_worker_survives_the_deletion_of_its_queues(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """When they are created again, it takes tasks, answers, and writes dead letters."""
    worker = start()
    tier.answers(tier.upload())
    settings = tier.settings
    for queue in (settings.request_queue, settings.dead_letter_queue, settings.response_queue):
        tier.clients.sqs.delete_queue(QueueUrl=tier.url(queue))
    worker.wait_for("queue_unreachable")
    provision(tier.clients, settings)
    good, culprit = tier.answers(tier.upload(), tier.upload(fake.SEGFAULT))
    assert (good.outcome, culprit.outcome) == (Outcome.UNKNOWN, Outcome.FAILED)
    assert tier.dead_letter()["MessageAttributes"]["request_id"]["StringValue"] == str(culprit.request_id)
    worker.wait_for("queue_reachable_again")
    assert worker.stop() == 0


def test_throttling_loses_and_repeats_nothing(tier: WorkerTier, start: Callable[..., Worker], proxy: FaultyAws) -> None:
    """SQS refuses a third of all calls: each task is answered in its first delivery."""
    refuse_a_third(proxy)
    worker = start(**LONG_HIDDEN, FACEREC_AWS__ENDPOINT_URL=proxy.url)
    answers = tier.answers(*[tier.upload(b"x" * size) for size in range(1, 31)])
    assert [answer.faces[0].box.x_max for answer in answers] == list(range(1, 31))
    assert {answer.attempt for answer in answers} == {1}
    assert worker.stop() == 0
    assert tier.left(tier.settings.request_queue) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stored_result_is_published_and_not_computed_again(
    tier: WorkerTier, start: Callable[..., Worker], proxy: FaultyAws, number: int
) -> None:
    """A worker that cannot answer is killed, or stopped and gives the task back; another one answers."""
    refuse_answers(proxy)
    timings = {} if number == signal.SIGKILL else LONG_HIDDEN
    first = start(**BRIEF_POLLS, **timings, FACEREC_AWS__ENDPOINT_URL=proxy.url)
    request = tier.upload()
    first.wait_for('"service_unreachable"', str(request.request_id))
    key = output_key(request.request_id, request.filename)
    stored = RecognitionResult.parse(tier.store.get(tier.settings.output_bucket, key))
    assert first.stop(number) == (-number if number == signal.SIGKILL else 0)
    second = start()
    (answer,) = tier.answers(request)
    assert answer == stored
    line = json.loads(second.wait_for('"recognised"', str(request.request_id)))
    assert line["attempt"] > line["computed_in_attempt"] == 1
    assert (tier.model_dir / fake.BATCHES).read_text().splitlines() == ["1"]


def test_task_without_a_client_is_done_last(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """Clients that wait are answered first, also if the others came before them."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    late = [tier.upload(submitted_at=yesterday) for _ in range(5)]
    fresh = [tier.upload() for _ in range(5)]
    worker = start(FACEREC_WORKER__CONCURRENCY="1")
    answers = tier.answers(*fresh, *late)
    assert max(a.completed_at for a in answers[:5]) < min(a.completed_at for a in answers[5:])
    assert worker.stop() == 0
    assert tier.left(tier.settings.request_queue) == 0
