"""Checks AWS's signature of a request (Signature Version 4) for the function URL, by botocore's own arithmetic.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import ReadOnlyCredentials

from facerec.errors import FacerecError

SERVICE = "lambda"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=(?P<credential>[^, ]+), *SignedHeaders=(?P<signed>[a-z0-9;_.-]+), *"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_TOLERANCE = timedelta(minutes=5)
_CONTENT_HASH = "x-amz-content-sha256"


class _Verifier(SigV4Auth):
    """Signs the headers that the client has signed, where botocore would choose them."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        headers = HTTPHeaders()
        for name, value in request.headers.items():
            headers[name.lower()] = value
        return headers


class SignatureRefused(FacerecError):
    """The request is not signed by the expected credentials; the text is for the client."""


def check_signature(
    credentials: ReadOnlyCredentials,
    region: str,
    *,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime | None = None,
) -> None:
    """Raise `SignatureRefused` unless a request is signed by these credentials.

    `headers` have lower-case names; `target` is the request target as it was sent, path and query.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", "").strip())
    if found is None:
        raise SignatureRefused("Missing Authentication Token")
    timestamp = headers.get("x-amz-date", "")
    _check_time(timestamp, now or datetime.now(UTC))
    signed = found["signed"].split(";")
    if not {"host", "x-amz-date"}.issubset(signed) or not headers.keys() >= {*signed}:
        raise SignatureRefused("The headers Host and X-Amz-Date must be signed")
    digest = hashlib.sha256(body).hexdigest()
    if headers.get(_CONTENT_HASH, digest) != digest:
        raise SignatureRefused("The value of X-Amz-Content-Sha256 is not the hash of the body")
    request = AWSRequest(
        method, f"http://{headers['host']}{target}", {name: headers[name] for name in signed}, data=body
    )
    request.context["timestamp"] = timestamp
    verifier = _Verifier(credentials, SERVICE, region)
    if not hmac.compare_digest(found["credential"].encode(), verifier.scope(request).encode()):
        raise SignatureRefused("The security token included in the request is invalid")
    expected = verifier.signature(verifier.string_to_sign(request, verifier.canonical_request(request)), request)
    if not hmac.compare_digest(found["signature"], expected):
        raise SignatureRefused("The request signature we calculated does not match the signature you provided")


def _check_time(timestamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError as exc:
        raise SignatureRefused("X-Amz-Date is missing or has a wrong form") from exc
    if abs(now - signed_at) > _TOLERANCE:
        raise SignatureRefused("Signature expired")
