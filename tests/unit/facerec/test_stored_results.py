"""Results in the output bucket."""

from datetime import UTC, datetime
from uuid import UUID

from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import output_key
from facerec.stored_results import result_of_request, store_result, stored_result
from tests.fakes.object_store import InMemoryObjectStore
from tests.support.logs import capture_logs

REQUEST_ID = UUID(int=7)
KEY = output_key(REQUEST_ID, "a.jpg")
RESULT = RecognitionResult(
    request_id=REQUEST_ID,
    result="Ada",
    filename="a.jpg",
    outcome=Outcome.MATCH,
    completed_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def test_stored_result_is_read_back() -> None:
    """By its key, and by the request id alone."""
    store = InMemoryObjectStore()
    store_result(store, "out", RESULT)
    assert stored_result(store, "out", KEY) == RESULT
    assert result_of_request(store, "out", REQUEST_ID) == RESULT
    assert store.keys("out") == [KEY]


def test_missing_result_is_none() -> None:
    """It is no error."""
    store = InMemoryObjectStore()
    assert stored_result(store, "out", KEY) is None
    assert result_of_request(store, "out", REQUEST_ID) is None


def test_unreadable_result_is_logged() -> None:
    """A newer version stored it."""
    store = InMemoryObjectStore()
    store.put("out", KEY, b'{"version": 99}', "application/json")
    with capture_logs() as logs:
        assert stored_result(store, "out", KEY) is result_of_request(store, "out", REQUEST_ID) is None
    assert [(entry["event"], entry["key"]) for entry in logs] == [("stored_result_unreadable", KEY)] * 2
