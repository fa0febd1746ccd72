"""Messages: round trips, other versions, unreadable ones."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.errors import InvalidMessage
from facerec.message_base import ObjectRef
from facerec.messages import Face, Outcome, RecognitionRequest, RecognitionResult, ResultBox, ResultMatch

ratios = st.floats(0, 1)
pixels = st.floats(-1e4, 1e4)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
times = st.datetimes(timezones=st.just(UTC))
requests = st.builds(
    RecognitionRequest,
    request_id=st.uuids(),
    input=st.builds(ObjectRef, bucket=names, key=names, size=st.integers(0, 2**40)),
    filename=names,
    collection=st.from_regex(r"[A-Za-z0-9_.-]{0,63}[A-Za-z0-9_-]", fullmatch=True),
    threshold=st.none() | ratios,
    reply_to=st.none() | names,
    submitted_at=times,
)
faces = st.builds(
    Face,
    box=st.builds(ResultBox, x_min=pixels, y_min=pixels, x_max=pixels, y_max=pixels),
    probability=ratios,
    landmarks=st.lists(st.tuples(pixels, pixels), min_size=5, max_size=5).map(tuple),
    matches=st.lists(st.builds(ResultMatch, identity=names, similarity=ratios, threshold=ratios), max_size=3).map(
        tuple
    ),
)
results = st.builds(
    RecognitionResult,
    request_id=st.uuids(),
    result=names,
    filename=names,
    outcome=st.sampled_from(Outcome),
    detail=st.none() | names,
    retryable=st.booleans(),
    faces=st.lists(faces, max_size=3).map(tuple),
    threshold_source=st.none() | st.sampled_from(["request", "collection", "model"]),
    threshold=st.none() | ratios,
    identities=st.none() | st.integers(0, 10**7),
    false_names=st.none() | ratios,
    threshold_extrapolated=st.booleans(),
    more_faces=st.integers(0, 10**4),
    timings_ms=st.dictionaries(names, st.floats(0, 1e6), max_size=4),
    attempt=st.integers(1, 99),
    completed_at=times,
)


@given(requests)
def test_request_round_trip_keeps_everything(request: RecognitionRequest) -> None:
    """As text and as decoded JSON."""
    assert RecognitionRequest.parse(request.to_json()) == request
    assert RecognitionRequest.parse(json.loads(request.to_json())) == request


@given(results)
def test_result_round_trip_keeps_everything(result: RecognitionResult) -> None:
    """The web tier reads what the worker writes."""
    assert RecognitionResult.parse(result.to_json()) == result


@given(requests, st.dictionaries(st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), st.integers()))
def test_unknown_fields_are_ignored(request: RecognitionRequest, extra: dict[str, int]) -> None:
    """A newer writer may add fields."""
    assert RecognitionRequest.parse(json.loads(request.to_json()) | extra) == request


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        b"\xff\xfe",
        "{}",
        '{"version": 2}',
        {"version": 1, "request_id": "not-a-uuid"},
    ],
)
def test_unreadable_message_is_invalid(message: str | bytes | dict[str, object]) -> None:
    """The error has the reason for the dead-letter queue."""
    with pytest.raises(InvalidMessage, match=r"unreadable RecognitionRequest: ."):
        RecognitionRequest.parse(message)


@given(requests, results)
def test_messages_are_ascii(request: RecognitionRequest, result: RecognitionResult) -> None:
    """SQS refuses characters that XML cannot have, such as U+FFFF; escaped, every name can be sent."""
    assert request.to_json().isascii()
    assert result.to_json().isascii()


def test_unknown_version_is_invalid() -> None:
    """It is not guessed at."""
    good = RecognitionRequest(
        request_id=UUID(int=7),
        input=ObjectRef(bucket="b", key="k", size=1),
        filename="a.jpg",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(InvalidMessage, match="version"):
        RecognitionRequest.parse(json.loads(good.to_json()) | {"version": 99})


def test_time_without_zone_is_invalid() -> None:
    """It cannot be compared between machines."""
    with pytest.raises(InvalidMessage, match="submitted_at"):
        RecognitionRequest.parse(
            {
                "request_id": str(UUID(int=7)),
                "input": {"bucket": "b", "key": "k", "size": 1},
                "filename": "a.jpg",
                "submitted_at": "2026-01-01T00:00:00",
            }
        )


def test_result_of_the_previous_version_is_read() -> None:
    """It lacks the fields that were added since."""
    result = RecognitionResult(
        request_id=uuid4(), result="Ada", filename="a.jpg", outcome=Outcome.MATCH, completed_at=datetime.now(UTC)
    )
    added = ("retryable", "threshold", "identities", "false_names", "threshold_extrapolated", "more_faces")
    older = {name: value for name, value in json.loads(result.to_json()).items() if name not in added}
    assert RecognitionResult.parse(older) == result


def test_operation_of_a_request_is_kept() -> None:
    """Each kind is told from the others by its name; a request of an earlier version asks for recognition."""
    ref = {"bucket": "in", "key": "k", "size": 1}
    request: dict[str, object] = {
        "version": 2,
        "request_id": str(uuid4()),
        "filename": "a.jpg",
        "submitted_at": "2026-03-01T12:00:00Z",
        "input": ref,
    }
    kinds: dict[str, dict[str, object]] = {
        "compare": {"target": ref},
        "verify": {"identity": "Ada"},
        "search_template": {"template_id": "0" * 32},
        "enrol": {"identity": "Ada", "faces": "only"},
        "reject": {"identity": "Ada"},
        "detect": {},
    }
    for kind, fields in kinds.items():
        read = RecognitionRequest.parse(request | {"operation": {"kind": kind} | fields})
        assert read.operation.kind == kind
        assert RecognitionRequest.parse(read.to_json()) == read
    assert RecognitionRequest.parse(request | {"version": 1}).operation.kind == "recognise"


@pytest.mark.parametrize(
    "operation",
    [{"kind": "sing"}, {"kind": "verify"}, {"kind": "verify", "identity": "Ada", "template_id": "0" * 32}],
)
def test_unknown_operation_is_invalid(operation: dict[str, str]) -> None:
    """So is a verification with nothing, or with two things, to compare with."""
    request: dict[str, object] = {
        "request_id": str(uuid4()),
        "filename": "a.jpg",
        "submitted_at": "2026-03-01T12:00:00Z",
        "input": {"bucket": "in", "key": "k", "size": 1},
        "operation": operation,
    }
    with pytest.raises(InvalidMessage, match="operation"):
        RecognitionRequest.parse(request)
