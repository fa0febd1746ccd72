"""Which requests are signed, by botocore's own signer."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from facerec.aws.signature import SignatureRefused, SignatureStale, SignedRequest, access_key_of, check_signature

OURS = Credentials("facerec-local", "secret")
HOST = "127.0.0.1:9000"


def signed(
    target: str = "/a%20b/?x=1&a=%2F&a=",
    body: bytes = b'{"request_id": "1"}',
    *,
    credentials: Credentials = OURS,
    service: str = "lambda",
    **headers: str,
) -> dict[str, str]:
    """The headers of a signed POST, in lower case as a server sees them."""
    request = AWSRequest("POST", f"http://{HOST}{target}", {"Content-Type": "application/json", **headers}, data=body)
    SigV4Auth(credentials, service, "us-east-1").add_auth(request)
    return {"host": HOST, **{name.lower(): value for name, value in request.headers.items()}}


def check(
    headers: Mapping[str, str],
    target: str = "/a%20b/?x=1&a=%2F&a=",
    body: bytes = b'{"request_id": "1"}',
    *,
    method: str = "POST",
    now: datetime | None = None,
    region: str | None = "us-east-1",
) -> None:
    """Check the request."""
    request = SignedRequest(method, target, headers, hashlib.sha256(body).hexdigest())
    check_signature(OURS.get_frozen_credentials(), request, service="lambda", region=region, now=now)


def test_signed_request_is_accepted() -> None:
    """Headers that a proxy adds later do not matter."""
    check(signed() | {"x-forwarded-for": "10.0.0.1"})
    check(signed("/", b""), "/", b"")


def test_example_of_aws_is_accepted() -> None:
    """The request `get-vanilla` of AWS's test suite for Signature Version 4, whose signature is published."""
    published = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY").get_frozen_credentials()
    headers = {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        ),
    }
    request = SignedRequest("GET", "/", headers, hashlib.sha256(b"").hexdigest())
    assert access_key_of(headers["authorization"]) == "AKIDEXAMPLE"
    at = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    for region in ("us-east-1", None):
        check_signature(published, request, service="service", region=region, now=at)
    with pytest.raises(SignatureStale):
        check_signature(published, request, service="service", now=at + timedelta(minutes=6))


@pytest.mark.parametrize(
    ("headers", "changes"),
    [
        (signed(), {"body": b'{"request_id": "2"}'}),
        (signed(), {"target": "/other"}),
        (signed(), {"target": "/a%20b/?x=2&a=%2F&a="}),
        (signed(), {"method": "PUT"}),
        (signed(), {"now": datetime.now(UTC) + timedelta(minutes=6)}),
        (signed() | {"content-type": "text/plain"}, {}),
        (signed() | {"host": "other:9000"}, {}),
        (signed() | {"x-amz-date": "yesterday"}, {}),
        (signed() | {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, {}),
        (signed(credentials=Credentials("facerec-local", "other")), {}),
        (signed(credentials=Credentials("other", "secret")), {}),
        (signed(service="s3"), {}),
        (signed(), {"region": "eu-central-1"}),
        ({name: value for name, value in signed().items() if name != "authorization"}, {}),
        (signed() | {"authorization": "Bearer 1"}, {}),
    ],
)
def test_other_request_is_refused(headers: dict[str, str], changes: dict[str, object]) -> None:
    """Changed, late, of another service, or by other credentials."""
    with pytest.raises(SignatureRefused):
        check(headers, **changes)  # type: ignore[arg-type] # one of several types each


@pytest.mark.parametrize("header", ["", "Bearer 1", "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=1"])
def test_other_authorization_has_no_access_key(header: str) -> None:
    """Nor has a credential without its scope."""
    assert access_key_of(header) is None
