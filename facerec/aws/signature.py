"""Checks AWS's signature of a request (Signature Version 4) by botocore's own arithmetic.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import ReadOnlyCredentials

from facerec.errors import FacerecError

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^, ]+), *SignedHeaders=(?P<signed>[a-z0-9;_.-]+), *"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_CREDENTIAL = re.compile(r"(?P<access_key>[^/]+)/[0-9]{8}/(?P<region>[a-z0-9-]+)/[^/]+/aws4_request")
_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_TOLERANCE = timedelta(minutes=5)
_CONTENT_HASH = "x-amz-content-sha256"


class SignatureRefused(FacerecError):
    """The request is not signed by the expected credentials; the text is for the client."""


class SignatureStale(SignatureRefused):
    """The signature is right, and was made more than five minutes ago, or by a clock that is ahead."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers."""

    method: str
    target: str
    """The request target as it was sent: path and query."""
    headers: Mapping[str, str]
    """With lower-case names."""
    body_sha256: str
    """The hash of the body as it came, in hex."""


class _Verifier(SigV4Auth):
    """Signs what the client has signed: its choice of headers, and the body that came."""

    def __init__(self, credentials: ReadOnlyCredentials, service: str, region: str, body_sha256: str) -> None:
        super().__init__(credentials, service, region)
        self._body_sha256 = body_sha256

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name, value in request.headers.items():
            headers[name.lower()] = value
        return headers

    def payload(self, request: AWSRequest) -> str:
        del request  # it has no body here
        return self._body_sha256


def access_key_of(authorization: str) -> str | None:
    """Return the access key id of an `Authorization` header, or `None` if it is no signature."""
    found = _AUTHORIZATION.fullmatch(authorization.strip())
    credential = _CREDENTIAL.fullmatch(found["credential"]) if found else None
    return credential["access_key"] if credential else None


def check_signature(
    credentials: ReadOnlyCredentials,
    request: SignedRequest,
    *,
    service: str,
    region: str | None = None,
    now: datetime | None = None,
) -> None:
    """Raise `SignatureRefused` unless a request to the service is signed by these credentials.

    Without `region` the client may have signed for any.
    """
    headers = request.headers
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", "").strip())
    if found is None:
        raise SignatureRefused("Missing Authentication Token")
    signed = found["signed"].split(";")
    if not {"host", "x-amz-date"}.issubset(signed) or not headers.keys() >= {*signed}:
        raise SignatureRefused("The headers Host and X-Amz-Date must be signed")
    if headers.get(_CONTENT_HASH, request.body_sha256) != request.body_sha256:
        raise SignatureRefused("The value of X-Amz-Content-Sha256 is not the hash of the body")
    credential = _CREDENTIAL.fullmatch(found["credential"])
    if credential is None:
        raise SignatureRefused("The security token included in the request is invalid")
    checked = AWSRequest(
        request.method, f"http://{headers['host']}{request.target}", {name: headers[name] for name in signed}
    )
    checked.context["timestamp"] = timestamp = headers["x-amz-date"]
    verifier = _Verifier(credentials, service, region or credential["region"], request.body_sha256)
    if not hmac.compare_digest(found["credential"].encode(), verifier.scope(checked).encode()):
        raise SignatureRefused("The security token included in the request is invalid")
    expected = verifier.signature(verifier.string_to_sign(checked, verifier.canonical_request(checked)), checked)
    if not hmac.compare_digest(found["signature"], expected):
        raise SignatureRefused("The request signature we calculated does not match the signature you provided")
    _check_time(timestamp, now or datetime.now(UTC))


def _check_time(timestamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError as exc:
        raise SignatureRefused("X-Amz-Date is missing or has a wrong form") from exc
    if abs(now - signed_at) > _TOLERANCE:
        raise SignatureStale("Signature expired")
