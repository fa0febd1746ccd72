"""The worker's most frequent AWS calls, for a fifth of boto3's CPU time (ADR 16).

boto3 gives the credentials and the signature; libcurl sends the request. After an error, another status than 200 or a
proxy's page, boto3 makes the call again, with its retries and its errors. So this module has only calls that may be
made twice.
"""

import base64
import json
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import pycurl
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path

from facerec.aws.clients import REQUEST_ID_HEADERS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_OK = 200
_UNRESERVED = "/~"
"""Characters of a key that S3's signature does not encode, beside letters, digits and `_.-`."""
_CHECKSUM = "x-amz-checksum-crc32"


class QuickS3:
    """A client of S3 with a quick `get_object` and `put_object`; all other methods are boto3's.

    These two methods take only the parameters below. The answer of `get_object` has only a body.
    """

    def __init__(self, client: "S3Client", session: boto3.Session) -> None:
        self._client = client
        self._calls = _Calls(client, session)
        self._buckets: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        """boto3's method."""
        return getattr(self._client, name)

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's signature
        """Get an object as boto3 does; compares the body's checksum if S3 has one."""
        answer = self._calls.answer("GET", self._url(Bucket, Key), {"x-amz-checksum-mode": "ENABLED"})
        if answer is None or not _checksum_matches(*answer):
            return {"Body": self._client.get_object(Bucket=Bucket, Key=Key)["Body"]}
        return {"Body": BytesIO(answer[1])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803 - as above
        """Put an object as boto3 does; S3 compares the body's SHA-256, which is signed."""
        if self._calls.answer("PUT", self._url(Bucket, Key), {"Content-Type": ContentType}, Body) is None:
            self._client.put_object(Bucket=Bucket, Key=Key, Body=Body, ContentType=ContentType)

    def _url(self, bucket: str, key: str) -> str:
        start = self._buckets.get(bucket)
        if start is None:
            # Only boto3 knows whether the bucket has its own host or a path, and in which partition.
            signed = self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
            start = self._buckets[bucket] = signed.partition("?")[0].removesuffix("k")
        return start + quote(key, safe=_UNRESERVED)


class QuickSqs:
    """A client of SQS with quick calls for batches; all other methods are boto3's."""

    def __init__(self, client: "SQSClient", session: boto3.Session) -> None:
        self._client = client
        self._calls = _Calls(client, session)
        self._url = f"{client.meta.endpoint_url}/"

    def __getattr__(self, name: str) -> Any:
        """boto3's method."""
        return getattr(self._client, name)

    def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[Any]) -> Any:  # noqa: N803 - boto3's signature
        """Send messages as boto3 does."""
        answer = self._answer("SendMessageBatch", QueueUrl, Entries)
        return self._client.send_message_batch(QueueUrl=QueueUrl, Entries=Entries) if answer is None else answer

    def delete_message_batch(self, *, QueueUrl: str, Entries: Sequence[Any]) -> Any:  # noqa: N803 - as above
        """Delete messages as boto3 does."""
        answer = self._answer("DeleteMessageBatch", QueueUrl, Entries)
        return self._client.delete_message_batch(QueueUrl=QueueUrl, Entries=Entries) if answer is None else answer

    def _answer(self, operation: str, queue_url: str, entries: Sequence[Any]) -> dict[str, Any] | None:
        headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        body = json.dumps({"QueueUrl": queue_url, "Entries": entries}).encode()
        answer = self._calls.answer("POST", self._url, headers, body)
        try:
            found = None if answer is None else json.loads(answer[1])
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


class _Calls:
    """Signed requests to one service; safe for many threads: each call uses a curl handle alone."""

    def __init__(self, client: Any, session: boto3.Session) -> None:
        meta = client.meta
        self._signer: type[SigV4Auth] = S3SigV4Auth if meta.service_model.signing_name == "s3" else SigV4Auth
        self._service = meta.service_model.signing_name
        self._region = meta.region_name
        self._session = session
        self._connect_ms = round(meta.config.connect_timeout * 1000)
        self._stalled_seconds = round(meta.config.read_timeout)
        self._agent = f"User-Agent: {meta.config.user_agent}"
        self._idle: deque[Any] = deque()

    def answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """Return the head and the body of AWS's answer with status 200, or `None` without such an answer."""
        credentials = self._session.get_credentials()
        if credentials is None:
            return None
        request = AWSRequest(method=method, url=url, data=body, headers=headers)
        self._signer(credentials.get_frozen_credentials(), self._service, self._region).add_auth(request)
        try:
            curl = self._idle.pop()
        except IndexError:
            curl = pycurl.Curl()
        head, received = BytesIO(), BytesIO()
        self._set_up(curl)
        # With `Expect` curl would wait for an answer before it sends the body.
        fields = [f"{name}: {value}" for name, value in request.headers.items()]
        curl.setopt(pycurl.HTTPHEADER, [*fields, self._agent, "Expect:"])
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.WRITEHEADER, head)
        curl.setopt(pycurl.WRITEDATA, received)
        if body is None:
            curl.setopt(pycurl.HTTPGET, 1)
        else:
            curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.CUSTOMREQUEST, method)
        try:
            curl.perform()
            status = curl.getinfo(pycurl.RESPONSE_CODE)
        except pycurl.error:
            curl.close()
            return None
        curl.reset()  # frees the photo, keeps the connections
        self._idle.append(curl)
        answered = status == _OK and any(
            f"\n{name}:".encode() in head.getvalue().lower() for name in REQUEST_ID_HEADERS
        )
        return (head.getvalue(), received.getvalue()) if answered else None

    def _set_up(self, curl: Any) -> None:
        curl.setopt(pycurl.NOSIGNAL, 1)  # no signals in threads
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PATH_AS_IS, 1)  # the path must stay as it was signed
        curl.setopt(pycurl.CAINFO, get_cert_path(True))  # as boto3 does
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, self._connect_ms)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.LOW_SPEED_TIME, self._stalled_seconds)


def _checksum_matches(head: bytes, body: bytes) -> bool:
    """Whether the body matches the checksum in the head, if there is one for the whole body (no `-`, as for parts)."""
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.lower() == _CHECKSUM and "-" not in value:
            return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() == value.strip()
    return True
