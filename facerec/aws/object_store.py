"""The object store on S3."""

from collections.abc import Iterator
from typing import BinaryIO

from boto3.exceptions import RetriesExceededError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.errors import ObjectMissing, Transient
from facerec.ports import ListedObject, StoredObject

_NOT_FOUND = 404
_PARTS = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=64 << 20, max_concurrency=8)
"""One connection to S3 gives some 100 MB a second; the parts are streamed, and need no memory of their size."""


class S3ObjectStore:
    """`ObjectStore` on S3; a call about one object may raise `Refused`."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Store an object whole or not at all (S3 puts are atomic)."""
        with translated_for_one(f"store {key!r} in bucket {bucket!r}"):
            self._clients.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes; raises `ObjectMissing`."""
        doing = f"fetch {key!r} from bucket {bucket!r}"
        with translated_for_one(doing, NoSuchKey=lambda: ObjectMissing(bucket, key)):
            return self._clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def describe(self, bucket: str, key: str) -> StoredObject:
        """Return an object's size, type and time; raises `ObjectMissing`."""
        with translated_for_one(f"look at {key!r} in bucket {bucket!r}"):
            try:
                head = self._clients.s3.head_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                if exc.response["ResponseMetadata"]["HTTPStatusCode"] == _NOT_FOUND:  # as below
                    raise ObjectMissing(bucket, key) from exc
                raise
        return StoredObject(bucket, key, head["ContentLength"], head["ContentType"], head["LastModified"])

    def exists(self, bucket: str, key: str) -> bool:
        """Whether the object exists."""
        with translated_for_one(f"look for {key!r} in bucket {bucket!r}"):
            try:
                self._clients.s3.head_object(Bucket=bucket, Key=key)
            except ClientError as exc:
                # A HEAD reply has no body, so there is no error code but the status.
                if exc.response["ResponseMetadata"]["HTTPStatusCode"] == _NOT_FOUND:
                    return False
                raise
        return True

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key that begins with the prefix, sorted."""
        with translated(f"list bucket {bucket!r}"):
            pages = self._clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def sizes(self, bucket: str, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and size of each object with the prefix; S3 lists a thousand at a time, in this order."""
        with translated(f"list bucket {bucket!r}"):
            for page in self._clients.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                yield from ((entry["Key"], entry["Size"]) for entry in page.get("Contents", []))

    def listed(self, bucket: str, after: str = "", prefix: str = "") -> Iterator[ListedObject]:
        """Yield every object with the prefix behind the key, a thousand with each call."""
        with translated(f"list bucket {bucket!r}"):
            listing = self._clients.s3.get_paginator("list_objects_v2")
            for page in listing.paginate(Bucket=bucket, Prefix=prefix, StartAfter=after):
                for entry in page.get("Contents", []):
                    yield ListedObject(entry["Key"], entry["LastModified"])

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object; removing one that does not exist is no error."""
        with translated_for_one(f"delete {key!r} from bucket {bucket!r}"):
            self._clients.s3.delete_object(Bucket=bucket, Key=key)

    def upload(self, bucket: str, key: str, file: BinaryIO, content_type: str) -> None:
        """Store a file, a large one in parts side by side; the bucket's rule removes the parts of a killed process."""
        with translated_for_one(f"store {key!r} in bucket {bucket!r}"):
            file.seek(0)
            options = {"ContentType": content_type}
            self._clients.s3.upload_fileobj(file, bucket, key, ExtraArgs=options, Config=_PARTS)

    def download(self, bucket: str, key: str, file: BinaryIO) -> None:
        """Write an object to a file, a large one in parts side by side; raises `ObjectMissing`."""
        doing = f"fetch {key!r} from bucket {bucket!r}"
        with translated_for_one(doing, NoSuchKey=lambda: ObjectMissing(bucket, key)):
            try:
                self._clients.s3.download_fileobj(bucket, key, file, Config=_PARTS)
            except ClientError as exc:
                if exc.response["ResponseMetadata"]["HTTPStatusCode"] == _NOT_FOUND:  # of a HEAD, as above
                    raise ObjectMissing(bucket, key) from exc
                raise
            except RetriesExceededError as exc:  # of the connection, within one part
                raise Transient(f"could not {doing}: {exc}") from exc
