"""Creates the buckets, queues and the table, and repairs their attributes; idempotent, in any account or emulator.

Operators' own choices survive: foreign lifecycle rules, and KMS in the place of the default encryption.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError, Transient
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.literals import BucketLocationConstraintType
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_DEFAULT_REGION = "us-east-1"
_LIFECYCLE_RULE = "facerec-expiry"
_DAY_SECONDS = 86_400
_REQUEST_RETENTION_SECONDS = 4 * _DAY_SECONDS
_DEAD_LETTER_RETENTION_SECONDS = 14 * _DAY_SECONDS
_RESPONSE_RETENTION_SECONDS = 3_600
"""Nobody waits for a result longer than a few minutes; the output bucket keeps it for days."""

_UNSUPPORTED = frozenset({"InvalidAction", "NotImplemented", "UnknownOperationException", "UnsupportedOperation"})
_FORBIDDEN, _NOT_FOUND, _MOVED, _NOT_IMPLEMENTED = 403, 404, 301, 501


class State(StrEnum):
    """What provisioning did to a resource."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(slots=True)
class Resource:
    """One resource as provisioning found or left it; `notes` say what this endpoint does not support."""

    kind: str
    name: str
    state: State = State.UNCHANGED
    notes: list[str] = field(default_factory=list)

    def touched(self) -> None:
        """An attribute was set; a resource that has just been created stays `created`."""
        if self.state is State.UNCHANGED:
            self.state = State.UPDATED


def provision(
    clients: Clients, settings: Settings, report: Callable[[Resource], None] = lambda _: None
) -> list[Resource]:
    """Make every resource that the settings name exist as it should be; returns them in the order of creation.

    `report` gets each as soon as it is done. Raises `ConfigurationError` where a name belongs to someone else, naming
    the variable to change, and `Transient` where AWS cannot be reached.
    """
    steps: list[Callable[[], Resource]] = [
        lambda: _bucket(clients, settings, "INPUT_BUCKET", settings.input_bucket, settings.retention.input_days),
        lambda: _bucket(clients, settings, "OUTPUT_BUCKET", settings.output_bucket, settings.retention.result_days),
        lambda: _bucket(clients, settings, "GALLERY_BUCKET", settings.gallery_bucket, None),
        lambda: _bucket(clients, settings, "MODEL_BUCKET", settings.model_bucket, None),
        lambda: _queue(clients, settings.dead_letter_queue, _attributes(settings, _DEAD_LETTER_RETENTION_SECONDS)),
        lambda: _request_queue(clients, settings),
        lambda: _queue(clients, settings.response_queue, _attributes(settings, _RESPONSE_RETENTION_SECONDS)),
        lambda: _table(clients, settings.templates_table),
    ]
    resources = []
    for step in steps:
        resources.append(step())
        report(resources[-1])
    return resources


def _bucket(clients: Clients, settings: Settings, variable: str, name: str, expire_days: int | None) -> Resource:
    bucket, s3 = Resource("bucket", name), clients.s3
    with translated(f"provision bucket {name!r}"):
        _create_bucket(clients, settings, variable, bucket)
        closed = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
        _aspect(
            bucket,
            "the public-access block",
            read=lambda: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            absent="NoSuchPublicAccessBlockConfiguration",
            fits=lambda current: current == closed,
            write=lambda _: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=cast("Any", closed)),
        )
        _aspect(
            bucket,
            "default encryption",
            read=lambda: s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"],
            absent="ServerSideEncryptionConfigurationNotFoundError",
            fits=lambda rules: any("ApplyServerSideEncryptionByDefault" in rule for rule in rules),
            write=lambda _: s3.put_bucket_encryption(
                Bucket=name,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
            ),
        )
        rule = _lifecycle_rule(expire_days)
        _aspect(
            bucket,
            "lifecycle rules",
            read=lambda: s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
            absent="NoSuchLifecycleConfiguration",
            fits=lambda rules: any(_same_rule(rule, other) for other in rules),
            write=lambda rules: s3.put_bucket_lifecycle_configuration(
                Bucket=name,
                LifecycleConfiguration={
                    "Rules": [rule, *(other for other in rules or [] if other.get("ID") != _LIFECYCLE_RULE)]
                },
            ),
        )
    return bucket


def _create_bucket(clients: Clients, settings: Settings, variable: str, bucket: Resource) -> None:
    taken = ConfigurationError(
        f"bucket {bucket.name!r} belongs to another account or region, and bucket names are global; "
        f"choose another with FACEREC_NAMES__{variable} or FACEREC_PREFIX"
    )
    try:
        clients.s3.head_bucket(Bucket=bucket.name)
    except ClientError as exc:
        # A HEAD reply has no body, so there is no error code but the status.
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in {_FORBIDDEN, _MOVED}:
            raise taken from exc
        if status != _NOT_FOUND:
            raise
    else:
        return
    try:
        if settings.aws.region == _DEFAULT_REGION:  # the one region that S3 refuses to be named
            clients.s3.create_bucket(Bucket=bucket.name)
        else:
            region = cast("BucketLocationConstraintType", settings.aws.region)
            clients.s3.create_bucket(Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": region})
    except clients.s3.exceptions.BucketAlreadyExists as exc:
        raise taken from exc
    except clients.s3.exceptions.BucketAlreadyOwnedByYou:
        return  # another provisioning was quicker
    bucket.state = State.CREATED


def _lifecycle_rule(expire_days: int | None) -> Any:
    rule: dict[str, Any] = {
        "ID": _LIFECYCLE_RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    return rule if expire_days is None else rule | {"Expiration": {"Days": expire_days}}


def _same_rule(wanted: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    # An empty filter comes back in more than one form.
    compared = wanted.keys() - {"Filter"}
    return all(wanted[key] == other.get(key) for key in compared) and not other.get("Filter", {}).get("Prefix")


def _attributes(settings: Settings, retention_seconds: int) -> dict[str, str]:
    return {
        "MessageRetentionPeriod": str(retention_seconds),
        "ReceiveMessageWaitTimeSeconds": str(settings.queue.wait_time_seconds),
        "SqsManagedSseEnabled": "true",
    }


def _request_queue(clients: Clients, settings: Settings) -> Resource:
    with translated(f"find queue {settings.dead_letter_queue!r}"):
        url = clients.sqs.get_queue_url(QueueName=settings.dead_letter_queue)["QueueUrl"]
        dead_letters = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    attributes = _attributes(settings, _REQUEST_RETENTION_SECONDS) | {
        "VisibilityTimeout": str(settings.queue.visibility_timeout_seconds),
        "RedrivePolicy": json.dumps(
            {"deadLetterTargetArn": dead_letters["QueueArn"], "maxReceiveCount": settings.queue.max_receives}
        ),
    }
    return _queue(clients, settings.request_queue, attributes)


def _queue(clients: Clients, name: str, wanted: dict[str, str]) -> Resource:
    queue, sqs = Resource("queue", name), clients.sqs
    with translated(
        f"provision queue {name!r}",
        AWS_SimpleQueueService_QueueDeletedRecently=lambda: Transient(
            f"queue {name!r} was deleted within the last minute; AWS allows it again after 60 seconds"
        ),
    ):
        try:
            url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        except sqs.exceptions.QueueDoesNotExist:
            url = sqs.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"]  # type: ignore[arg-type] # names are literals
            queue.state = State.CREATED
        read = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        current = cast("dict[str, str]", read)
        differing = {key: value for key, value in wanted.items() if not _same_attribute(current.get(key), value)}
        if "KmsMasterKeyId" in current:
            differing.pop("SqsManagedSseEnabled", None)
        # AWS always tells every attribute, but a redrive policy only where there is one.
        for unknown in sorted(differing.keys() - current.keys() - {"RedrivePolicy"}):
            queue.notes.append(f"this endpoint does not support {unknown}")
            del differing[unknown]
        if differing:
            attributes = cast("dict[QueueAttributeNameType, str]", differing)
            sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
            queue.touched()
    return queue


def _same_attribute(current: str | None, wanted: str) -> bool:
    if current is None or not wanted.startswith("{"):
        return current == wanted
    read, asked = json.loads(current), json.loads(wanted)
    # Some endpoints return the count as text.
    return {key: str(value) for key, value in read.items()} == {key: str(value) for key, value in asked.items()}


def _table(clients: Clients, name: str) -> Resource:
    table, dynamodb = Resource("table", name), clients.dynamodb
    with translated(f"provision table {name!r}"):
        try:
            described = dynamodb.describe_table(TableName=name)["Table"]
        except dynamodb.exceptions.ResourceNotFoundException:
            described = dynamodb.create_table(
                TableName=name,
                AttributeDefinitions=[
                    {"AttributeName": "collection", "AttributeType": "S"},
                    {"AttributeName": "item", "AttributeType": "S"},
                ],
                KeySchema=[
                    {"AttributeName": "collection", "KeyType": "HASH"},
                    {"AttributeName": "item", "KeyType": "RANGE"},
                ],
                BillingMode="PAY_PER_REQUEST",
            )["TableDescription"]
            table.state = State.CREATED
        keys = {key["KeyType"]: key["AttributeName"] for key in described["KeySchema"]}
        if keys != {"HASH": "collection", "RANGE": "item"}:
            raise ConfigurationError(
                f"table {name!r} exists with other keys, so it is not ours; "
                "choose another name with FACEREC_NAMES__TEMPLATES_TABLE or FACEREC_PREFIX"
            )
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        if described.get("BillingModeSummary", {}).get("BillingMode") != "PAY_PER_REQUEST":
            dynamodb.update_table(TableName=name, BillingMode="PAY_PER_REQUEST")
            table.touched()
        _aspect(
            table,
            "point-in-time recovery",
            read=lambda: dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"],
            absent="",
            fits=lambda backups: (
                backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus") == "ENABLED"
            ),
            write=lambda _: dynamodb.update_continuous_backups(
                TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
            ),
        )
    return table


def _aspect(
    resource: Resource,
    what: str,
    *,
    read: Callable[[], Any],
    absent: str,
    fits: Callable[[Any], bool],
    write: Callable[[Any], object],
) -> None:
    """Read one attribute and write it where it does not fit; an endpoint that lacks the operation earns a note."""
    try:
        try:
            current = read()
        except ClientError as exc:
            if exc.response["Error"]["Code"] != absent:
                raise
            current = None
        if current is not None and fits(current):
            return
        write(current)
        resource.touched()
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ContinuousBackupsUnavailableException":
            resource.notes.append(f"{what} is not available yet; provision again in a minute")
            return
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        if exc.response["Error"]["Code"] not in _UNSUPPORTED and status != _NOT_IMPLEMENTED:
            raise
        resource.notes.append(f"this endpoint does not support {what}")
