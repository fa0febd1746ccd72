"""The access log: what is noted of a request, and that no request waits for it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from facerec.access_records import AccessRecord
from facerec.errors import Transient
from facerec.messages import RecognitionRequest, RecognitionResult
from facerec.processes.addresses import poll_until
from facerec.web.access_log import AccessLog
from tests.fakes.erasures import InMemoryAccessRecords
from tests.fakes.web_tier import FakeWebTier, answers, running, upload

LONG_AGO = datetime.now(UTC) - timedelta(days=1)


def test_search_is_noted_without_a_name() -> None:
    """With the client, the collection, the outcome and the request."""
    seen: list[RecognitionRequest] = []
    answer = answers("Ada Lovelace")

    def noting(request: RecognitionRequest) -> RecognitionResult:
        seen.append(request)
        return answer(request)

    with running(FakeWebTier(answer=noting)) as tier:
        upload(tier.app.test_client())
    (record,) = tier.accesses
    assert (record.operation, record.collection, record.outcome) == ("recognise", "default", "match")
    assert (record.faces, record.matches, record.enrolled) == (1, 1, 0)
    assert record.request_id == seen[0].request_id
    assert "Ada" not in record.to_json()


def test_refused_upload_is_no_access() -> None:
    """Nobody was searched."""
    with running(FakeWebTier(answer=answers("Ada"))) as tier:
        upload(tier.app.test_client(), b"no picture")
        tier.app.test_client().get("/healthz")
    assert [record.outcome for record in tier.accesses if record.faces] == []


def test_accesses_survive_an_outage_of_the_store() -> None:
    """They are written when it answers again; closing writes the rest."""
    records = InMemoryAccessRecords()
    records.outage = Transient("the table cannot be reached")
    log = AccessLog(records, window_seconds=0.01, backoff=lambda _failures, _jitter: 0.01)
    accesses = [
        AccessRecord(
            at=datetime.now(UTC), client="x", collection="c", operation="verify", request_id=uuid4(), outcome="done"
        )
        for _ in range(3)
    ]
    for each in accesses[:2]:
        log.note(each)
    records.outage = None
    assert poll_until(lambda: list(records.since(LONG_AGO)) == accesses[:2], 5)
    log.note(accesses[2])
    log.close(5)
    assert list(records.since(LONG_AGO)) == accesses
