"""Creates the buckets, queues and tables, and repairs their attributes; idempotent, in any account or emulator.

Operators' own choices stay: other lifecycle rules, and KMS instead of the default encryption.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import EXPIRES_AT
from facerec.errors import ConfigurationError, Transient
from facerec.provision.buckets import provision_bucket
from facerec.provision.launch_template import provision_launch_template
from facerec.provision.resources import Resource, State, settle
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef
    from mypy_boto3_sqs.literals import QueueAttributeNameType

_DAY_SECONDS = 86_400
_REQUEST_RETENTION_SECONDS = 4 * _DAY_SECONDS
_DEAD_LETTER_RETENTION_SECONDS = 14 * _DAY_SECONDS
_RESPONSE_RETENTION_SECONDS = 3_600
"""Clients wait for a result for some minutes; the output bucket keeps it for days."""


def provision(
    clients: Clients, settings: Settings, report: Callable[[Resource], None] = lambda _: None
) -> list[Resource]:
    """Create or repair every resource that the settings name; returns them in the order of creation.

    `report` gets each as soon as it is done. Raises `ConfigurationError` for a name that is taken, with the variable to
    change, and `Transient` if AWS cannot be reached.
    """
    steps: list[Callable[[], Resource]] = [
        lambda: provision_bucket(
            clients, settings, "INPUT_BUCKET", settings.input_bucket, settings.retention.input_days
        ),
        lambda: provision_bucket(
            clients, settings, "OUTPUT_BUCKET", settings.output_bucket, settings.retention.result_days
        ),
        lambda: provision_bucket(clients, settings, "GALLERY_BUCKET", settings.gallery_bucket, None),
        lambda: provision_bucket(clients, settings, "MODEL_BUCKET", settings.model_bucket, None),
        lambda: _queue(clients, settings.dead_letter_queue, _attributes(settings, _DEAD_LETTER_RETENTION_SECONDS)),
        lambda: _request_queue(clients, settings),
        lambda: _queue(clients, settings.response_queue, _attributes(settings, _RESPONSE_RETENTION_SECONDS)),
        lambda: _queue(clients, settings.events_queue, _events_attributes(settings)),
        lambda: _table(clients, "TEMPLATES_TABLE", settings.templates_table, ("collection", "item")),
        lambda: _table(clients, "KEYS_TABLE", settings.keys_table, ("kind", "item")),
        lambda: _table(clients, "FLEET_TABLE", settings.fleet_table, ("kind", "item"), expiry=EXPIRES_AT),
    ]
    image_id = settings.instances.image_id
    if image_id is not None:
        steps.append(lambda: provision_launch_template(clients, settings, image_id))
    resources = []
    for step in steps:
        resources.append(step())
        report(resources[-1])
    return resources


def _attributes(settings: Settings, retention_seconds: int) -> dict[str, str]:
    return {
        "MessageRetentionPeriod": str(retention_seconds),
        "ReceiveMessageWaitTimeSeconds": str(settings.queue.wait_time_seconds),
        "SqsManagedSseEnabled": "true",
    }


def _events_attributes(settings: Settings) -> dict[str, str]:
    # Events that a dead Flower has received are soon visible again.
    return _attributes(settings, settings.events.retention_seconds) | {"VisibilityTimeout": "5"}


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
        # AWS returns every attribute, but a redrive policy only if there is one.
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


def _table(clients: Clients, variable: str, name: str, keys: tuple[str, str], *, expiry: str | None = None) -> Resource:
    table, dynamodb = Resource("table", name), clients.dynamodb
    with translated(f"provision table {name!r}"):
        described = _ensure_table(clients, table, keys)
        found = {key["KeyType"]: key["AttributeName"] for key in described["KeySchema"]}
        if found != {"HASH": keys[0], "RANGE": keys[1]}:
            raise ConfigurationError(
                f"table {name!r} exists with other keys, so it is not ours; "
                f"choose another name with FACEREC_NAMES__{variable} or FACEREC_PREFIX"
            )
        dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        if described.get("BillingModeSummary", {}).get("BillingMode") != "PAY_PER_REQUEST":
            dynamodb.update_table(TableName=name, BillingMode="PAY_PER_REQUEST")
            table.touched()
        settle(
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
        if expiry is not None:
            settle(
                table,
                "expiry of items",
                read=lambda: dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
                absent="",
                fits=lambda ttl: ttl.get("TimeToLiveStatus") in {"ENABLING", "ENABLED"},
                write=lambda _: dynamodb.update_time_to_live(
                    TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": expiry}
                ),
            )
    return table


def _ensure_table(clients: Clients, table: Resource, keys: tuple[str, str]) -> "TableDescriptionTypeDef":
    """Return the table's description; create the table if it does not exist."""
    dynamodb = clients.dynamodb
    try:
        return dynamodb.describe_table(TableName=table.name)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException:
        table.state = State.CREATED
    try:
        return dynamodb.create_table(
            TableName=table.name,
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            KeySchema=[
                {"AttributeName": keys[0], "KeyType": "HASH"},
                {"AttributeName": keys[1], "KeyType": "RANGE"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )["TableDescription"]
    except dynamodb.exceptions.ResourceInUseException:
        table.state = State.UNCHANGED  # another provisioning has just created it
        return dynamodb.describe_table(TableName=table.name)["Table"]
