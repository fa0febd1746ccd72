"""What our SQS transport adds to kombu's, as far as it needs no queue; the rest is in the worker's tests."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.session import get_session
from kombu.asynchronous.aws.connection import AsyncHTTPResponse
from kombu.asynchronous.http import Request, Response

from facerec.aws.sqs.queue import pause_seconds, redelivery_seconds
from facerec.celery_sqs.receiver import Receiver, check_task


def response(status: int, body: bytes = b"{}") -> AsyncHTTPResponse:
    """An HTTP response as kombu's asynchronous client hands it over."""
    return AsyncHTTPResponse(Response(Request("http://queue"), status, buffer=BytesIO(body)))


class HttpClient:
    """Keeps requests instead of sending them."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def add_request(self, request: Any) -> None:
        """Take a request."""
        self.requests.append(request)


def receiver(outcomes: list[str | None], session: boto3.Session | None = None) -> tuple[Any, HttpClient]:
    """A receiver that notes its outcomes, and where its requests go."""
    session = session or boto3.Session("id", "secret", region_name="us-east-1")
    http = HttpClient()
    return Receiver(sqs_connection=session.client("sqs"), http=http, wait_seconds=20, on_outcome=outcomes.append), http


@pytest.mark.parametrize("status", [400, 403, 408, 500, 503, 504, 599])
def test_a_failed_receive_is_an_empty_one(status: int) -> None:
    """No answer of the broker's raises in the event loop; each failure is told."""
    outcomes: list[str | None] = []
    made, _ = receiver(outcomes)
    assert made._on_list_ready(None, None, "ReceiveMessage", response(status, b"")) == {}
    assert len(outcomes) == 1
    assert str(status) in (outcomes[0] or "")


def test_a_page_is_no_empty_receive() -> None:
    """A proxy between us and SQS answers with 200, too."""
    outcomes: list[str | None] = []
    made, _ = receiver(outcomes)
    assert made._on_list_ready(None, None, "ReceiveMessage", response(200, b"<html>Sign in</html>")) == {}
    assert "proxy" in (outcomes[0] or "")


def test_a_good_receive_is_told_as_such() -> None:
    """It ends the pauses."""
    outcomes: list[str | None] = []
    made, _ = receiver(outcomes)
    answer = made._on_list_ready(None, None, "ReceiveMessage", response(200, b'{"Messages": [{"Body": "x"}]}'))
    assert answer["Messages"][0]["Body"] == "x"
    assert outcomes == [None]


def test_receives_are_signed_with_renewed_credentials() -> None:
    """The credentials of an instance role change every few hours; each request takes those of its time."""
    keys = iter(["FIRST", "SECOND"])

    def renew() -> dict[str, str]:
        # Always about to expire, so that each signature renews them.
        expiry = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        return {"access_key": next(keys), "secret_key": "s", "token": "t", "expiry_time": expiry}

    botocore_session = get_session()
    botocore_session._credentials = RefreshableCredentials.create_from_metadata(  # type: ignore[attr-defined]
        {"access_key": "ZEROTH", "secret_key": "s", "token": "t", "expiry_time": datetime.now(UTC).isoformat()},
        refresh_using=renew,
        method="test",
    )
    made, http = receiver([], boto3.Session(botocore_session=botocore_session, region_name="us-east-1"))
    for _ in range(2):
        made.receive_message("queue", "http://queue", callback=lambda _: None)
    signatures = [str(dict(request.headers)["Authorization"]) for request in http.requests]
    assert [key for key, signature in zip(["FIRST", "SECOND"], signatures, strict=True) if key in signature] == [
        "FIRST",
        "SECOND",
    ]


@pytest.mark.parametrize(("receives", "longest"), [(1, 5), (2, 15), (3, 45), (4, 120), (30, 120)])
def test_redelivery_pauses_grow_and_spread(receives: int, longest: int) -> None:
    """From half the pause to the whole, so that tasks that failed together do not come back together."""
    assert redelivery_seconds(receives, 0) == longest
    assert redelivery_seconds(receives, 1) == round(longest / 2)


def test_pauses_between_failed_receives_grow_to_ten_seconds() -> None:
    """A broker that is back is noticed within that time."""
    assert [pause_seconds(failures, 0) for failures in (1, 2, 3, 10, 100_000)] == [0.5, 1, 2, 10, 10]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (None, [[], {}, {}]),
        ({}, [[], {}, {}]),
        ({"task": "facerec.recognise"}, [[], {}, {}]),
        ({"task": "facerec.recognise", "id": 5}, [[], {}, {}]),
        ({"task": "facerec.recognise", "id": "x"}, "text"),
        ({"task": "facerec.recognise", "id": "x"}, []),
        ({"task": "facerec.recognise", "id": "x"}, [{}, [], {}]),
        ({"task": "facerec.recognise", "id": "x"}, [[], {}, "embed"]),
        ({"task": "somebody.elses", "id": "x"}, [[], {}, {}]),
    ],
)
def test_refuses_what_is_no_task(headers: Any, body: Any) -> None:
    """Such a message would hold a place in the worker for ever."""
    with pytest.raises((TypeError, ValueError)):
        check_task(SimpleNamespace(headers=headers, decode=lambda: body), ["facerec.recognise"])


def test_accepts_a_task() -> None:
    """Celery's second protocol."""
    task = SimpleNamespace(headers={"task": "facerec.recognise", "id": "x"}, decode=lambda: [[1], {}, {"chain": None}])
    check_task(task, ["facerec.recognise"])
