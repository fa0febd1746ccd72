"""Creates the buckets, queues and tables, and repairs their attributes; idempotent, in any account or emulator.

Operators' own choices stay: other lifecycle rules, and KMS instead of the default encryption.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import EXPIRES_AT
from facerec.aws.sqs import queue_attributes
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import ConfigurationError, QueueMissing
from facerec.provision.buckets import provision_bucket
from facerec.provision.launch_template import provision_launch_template
from facerec.provision.resources import Resource, State, settle
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef
    from mypy_boto3_sqs.literals import QueueAttributeNameType


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
        lambda: provision_bucket(
            clients, settings, "GALLERY_BUCKET", settings.gallery_bucket, settings.retention.photo_days
        ),
        lambda: provision_bucket(clients, settings, "MODEL_BUCKET", settings.model_bucket, None),
        lambda: _queue(clients, settings.dead_letter_queue, queue_attributes.dead_letter_queue(settings)),
        lambda: _work_queue(
            clients, settings, settings.request_queue, settings.dead_letter_queue, queue_attributes.request_queue
        ),
        lambda: _queue(clients, settings.faces_dead_letter_queue, queue_attributes.dead_letter_queue(settings)),
        lambda: _work_queue(
            clients, settings, settings.faces_queue, settings.faces_dead_letter_queue, queue_attributes.faces_queue
        ),
        lambda: _queue(clients, settings.response_queue, queue_attributes.response_queue(settings)),
        lambda: _queue(clients, settings.events_queue, queue_attributes.events_queue(settings)),
        lambda: _table(clients, "TEMPLATES_TABLE", settings.templates_table, ("collection", "item")),
        lambda: _table(clients, "KEYS_TABLE", settings.keys_table, ("kind", "item")),
        lambda: _table(clients, "PEOPLE_TABLE", settings.people_table, ("kind", "item"), expiry=EXPIRES_AT),
        lambda: _table(clients, "JOBS_TABLE", settings.jobs_table, ("kind", "item"), expiry=EXPIRES_AT),
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


def _work_queue(
    clients: Clients,
    settings: Settings,
    name: str,
    dead_letters: str,
    wanted: Callable[[Settings, str], dict[str, str]],
) -> Resource:
    arn = SqsQueue(clients.sqs, dead_letters).attributes("QueueArn")["QueueArn"]
    return _queue(clients, name, wanted(settings, arn))


def _queue(clients: Clients, name: str, wanted: dict[str, str]) -> Resource:
    resource, queue = Resource("queue", name), SqsQueue(clients.sqs, name)
    try:
        current = queue.attributes()
    except QueueMissing:
        queue.create(wanted)
        resource.state = State.CREATED
        current = queue.attributes()
    unsupported = queue_attributes.unsupported(current, wanted)
    resource.notes += [f"this endpoint does not support {attribute}" for attribute in unsupported]
    differing = queue_attributes.differing(current, wanted)
    changes = {attribute: value for attribute, value in differing.items() if attribute not in unsupported}
    if changes:
        attributes = cast("dict[QueueAttributeNameType, str]", changes)
        queue.call("repair", lambda url: clients.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes))
        resource.touched()
    return resource


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
