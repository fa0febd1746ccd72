"""`facerec dlq` against the emulator, with dead letters that a real worker wrote."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from facerec.cli import cli
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import output_key
from tests.fakes import engine as fake
from tests.support.workers import Worker, WorkerTier

Dlq = Callable[..., Result]


@pytest.fixture
def dlq(tier: WorkerTier, monkeypatch: pytest.MonkeyPatch) -> Dlq:
    """Runs `facerec dlq …` on them."""
    monkeypatch.setenv("FACEREC_PREFIX", tier.settings.prefix)
    return lambda *arguments, **options: CliRunner().invoke(cli, ["dlq", *arguments], **options)


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    """A worker with the fake engine."""
    return start()


def test_redriven_task_is_recognised_again_and_answered(tier: WorkerTier, dlq: Dlq, worker: Worker) -> None:
    """From the crash over `list` and `show` to a new result in place of the failure."""
    request = tier.upload(fake.SEGFAULT, "crash.jpg")
    (failed,) = tier.answers(request)
    identifier = str(request.request_id)
    table = dlq("list").stdout
    assert all(words in table for words in (identifier, "crash.jpg", "SIGSEGV"))
    shown = dlq("show", identifier).stdout
    assert "outcome: failed" in shown
    assert "input stored  yes" in shown

    assert dlq("redrive", identifier, "--dry-run").exit_code == 0
    assert dlq("redrive", "--all", input="n\n").exit_code == 1
    assert (tier.left(tier.settings.dead_letter_queue), tier.left(tier.settings.request_queue)) == (1, 0)

    tier.store.put(request.input.bucket, request.input.key, b"a good picture", "image/jpeg")
    sent = dlq("redrive", "--reason-matches", "sigsegv", "--yes")
    assert sent.exit_code == 0, sent.output
    (answer,) = tier.answers(request)
    assert (failed.outcome, answer.outcome, answer.attempt) == (Outcome.FAILED, Outcome.UNKNOWN, 1)
    stored = tier.store.get(tier.settings.output_bucket, output_key(request.request_id, request.filename))
    assert RecognitionResult.parse(stored) == answer
    assert tier.left(tier.settings.dead_letter_queue) == 0
