"""Templates that workers embed with another model, one request for each."""

import threading
from collections import Counter
from datetime import UTC, datetime

import pytest

from facerec.commands import reembedding
from facerec.commands.reembedding import reembed
from facerec.errors import Transient
from facerec.message_base import ObjectRef
from facerec.messages import Enrolment, Outcome, RecognitionRequest, RecognitionResult
from facerec.ports import TemplateEntry
from facerec.settings import Settings
from tests.fakes.web_tier import FakeWebTier, result_for

MODEL = "open-128-0123456789abcdef"


class _StutteringQueue:
    """A task queue that cannot be reached at the first attempt for each template."""

    def __init__(self, tier: FakeWebTier) -> None:
        self.tier = tier
        self.attempts = Counter[str]()
        self._lock = threading.Lock()

    def submit(self, request: RecognitionRequest) -> None:
        """Refuse the first time."""
        with self._lock:
            self.attempts[request.filename] += 1
            first = self.attempts[request.filename] == 1
        if first:
            raise Transient("could not send a task: unreachable")
        self.tier.tasks.submit(request)


def _rebuilt(request: RecognitionRequest) -> RecognitionResult:
    made = Enrolment(status="rebuilt", detail="", identity="Ada")
    return result_for(request, "", outcome=Outcome.DONE).model_copy(update={"enrolments": (made,)})


def _entries(count: int) -> tuple[TemplateEntry, ...]:
    return tuple(
        TemplateEntry(
            template_id=f"{number:032x}",
            collection="default",
            identity="Ada",
            model_id="other",
            source=f"{number}.jpg",
            photo=ObjectRef(bucket="gallery", key=f"{number}.jpg", size=1) if number else None,
            probability=0.9,
            enrolled_at=datetime.now(UTC),
        )
        for number in range(count)
    )


def test_failed_call_is_tried_again() -> None:
    """An outage of the queue or of the store ends no migration; a template without a photo needs no worker."""
    tier = FakeWebTier(answer=_rebuilt)
    queue = _StutteringQueue(tier)
    reports = list(reembed(Settings(), tier.store, queue, _entries(5), MODEL, window=4))
    assert Counter(report.status for report in reports) == {"rebuilt": 4, "no_photo": 1}
    assert set(queue.attempts.values()) == {2}


def test_lasting_outage_ends_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is not asked; the command can be run again."""
    monkeypatch.setattr(reembedding, "_ANSWER_SECONDS", 0.3)
    tier = FakeWebTier()
    tier.tasks.outage = Transient("could not send a task: unreachable")
    with pytest.raises(Transient, match="unreachable"):
        list(reembed(Settings(), tier.store, tier.tasks, _entries(50)[1:], MODEL, window=4))
