"""Provisioning, held to the same behaviour on both emulators."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from facerec.aws.clients import Clients
from facerec.errors import ConfigurationError
from facerec.local.emulator import EmulatorKind
from facerec.provision.buckets import provision_bucket
from facerec.provision.provisioning import provision
from facerec.provision.resources import Resource, State
from facerec.settings import Settings
from facerec.settings.resources import QueueSettings, RetentionSettings
from facerec.settings.tiers import ServerlessSettings
from tests.support.emulated import EmulatedAws, clients_over_tls, emulated_aws

RESOURCES = 15


@pytest.fixture(scope="module", params=EmulatorKind)
def aws(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """Each emulator in turn."""
    with emulated_aws(request.param, tmp_path_factory.mktemp(str(request.param))) as found:
        yield found


@pytest.fixture
def settings(aws: EmulatedAws) -> Settings:
    """Names of their own, provisioned."""
    return aws.fresh()


@pytest.fixture
def clients(settings: Settings) -> Clients:
    """Clients of the emulator."""
    return Clients(settings)


@pytest.fixture
def over_tls(settings: Settings) -> Clients:
    """Clients whose endpoint is https."""
    return clients_over_tls(settings)


def queue_attributes(clients: Clients, name: str) -> dict[str, str]:
    """Every attribute of a queue."""
    url = clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    attributes = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {str(name): value for name, value in attributes.items()}


def test_creates_all_then_changes_nothing(aws: EmulatedAws) -> None:
    """The first run creates each resource, and notes only what its endpoint rules out; the second is idle."""
    settings = aws.settings.changed(prefix="twice")
    clients = Clients(settings)
    reported: list[Resource] = []
    first = provision(clients, settings, reported.append)
    left_out = f"the policy that refuses unencrypted connections is left out, because {aws.url} is unencrypted"
    assert {r.state for r in first} == {State.CREATED}
    assert [r.notes for r in first] == [[left_out] if r.kind == "bucket" else [] for r in first]
    assert reported == first
    assert [r.name for r in first] == [
        "twice-in-bucket",
        "twice-out-bucket",
        "twice-gallery-bucket",
        "twice-model-bucket",
        "twice-req-queue-dlq",
        "twice-req-queue",
        "twice-faces-queue-dlq",
        "twice-faces-queue",
        "twice-resp-queue",
        "twice-events-queue",
        "twice-templates",
        "twice-api-keys",
        "twice-people",
        "twice-jobs",
        "twice-fleet",
    ]
    assert [r.state for r in provision(clients, settings)] == [State.UNCHANGED] * RESOURCES


def test_changed_settings_reach_existing_resources(clients: Clients, settings: Settings) -> None:
    """A longer visibility timeout and retention update the queues and the bucket concerned, and nothing else."""
    other = settings.changed(
        queue=QueueSettings(visibility_timeout_seconds=45, max_receives=2),
        retention=RetentionSettings(result_days=30),
    )
    updated = {r.name for r in provision(clients, other) if r.state is State.UPDATED}
    assert updated == {settings.request_queue, settings.faces_queue, settings.output_bucket}
    attributes = queue_attributes(clients, settings.request_queue)
    assert attributes["VisibilityTimeout"] == "45"
    assert int(json.loads(attributes["RedrivePolicy"])["maxReceiveCount"]) == 2
    rules = clients.s3.get_bucket_lifecycle_configuration(Bucket=settings.output_bucket)["Rules"]
    assert [rule["Expiration"]["Days"] for rule in rules] == [30]


def test_request_queue_hides_messages_as_long_as_its_function_needs(clients: Clients, settings: Settings) -> None:
    """Once functions take the tasks, the request queue has six times their time limit."""
    provision(clients, settings.changed(app_tier="both", serverless=ServerlessSettings(timeout_seconds=10)))
    assert queue_attributes(clients, settings.request_queue)["VisibilityTimeout"] == "60"
    assert queue_attributes(clients, settings.faces_queue)["VisibilityTimeout"] == "60"


def test_repairs_what_was_undone(clients: Clients, settings: Settings) -> None:
    """An opened bucket is closed again, and a foreign lifecycle rule stays."""
    clients.s3.delete_public_access_block(Bucket=settings.input_bucket)
    foreign = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 3}}
    clients.s3.put_bucket_lifecycle_configuration(
        Bucket=settings.gallery_bucket,
        LifecycleConfiguration={"Rules": [foreign]},  # type: ignore[list-item] # a literal
    )
    updated = {r.name for r in provision(clients, settings) if r.state is State.UPDATED}
    assert updated == {settings.input_bucket, settings.gallery_bucket}
    block = clients.s3.get_public_access_block(Bucket=settings.input_bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values())
    rules = clients.s3.get_bucket_lifecycle_configuration(Bucket=settings.gallery_bucket)["Rules"]
    assert {rule["ID"] for rule in rules} == {"theirs", "facerec-expiry"}


def test_buckets_are_hardened(clients: Clients, settings: Settings) -> None:
    """Closed, encrypted, and nothing unfinished stays; uploads and results expire."""
    expiries = {}
    for name in buckets(settings):
        block = clients.s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
        assert list(block.values()) == [True] * 4
        (encryption,) = clients.s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        assert encryption["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        (rule,) = clients.s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
        expiries[name] = rule.get("Expiration", {}).get("Days")
    assert list(expiries.values()) == [settings.retention.input_days, settings.retention.result_days, None, None]


def buckets(settings: Settings) -> tuple[str, ...]:
    """The names of all buckets."""
    return settings.input_bucket, settings.output_bucket, settings.gallery_bucket, settings.model_bucket


def provision_buckets(clients: Clients, settings: Settings) -> list[Resource]:
    """Provision the buckets alone."""
    days = (settings.retention.input_days, settings.retention.result_days, None, None)
    return [provision_bucket(clients, settings, "", *bucket) for bucket in zip(buckets(settings), days, strict=True)]


def statements(clients: Clients, bucket: str) -> list[dict[str, Any]]:
    """The statements of a bucket's policy."""
    found: list[dict[str, Any]] = json.loads(clients.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    return found


def test_bucket_with_an_encrypted_endpoint_refuses_unencrypted_connections(
    over_tls: Clients, settings: Settings
) -> None:
    """By a policy, which a second run leaves as it is."""
    assert [(r.state, r.notes) for r in provision_buckets(over_tls, settings)] == [(State.UPDATED, [])] * 4
    assert {r.state for r in provision_buckets(over_tls, settings)} == {State.UNCHANGED}
    for name in buckets(settings):
        (statement,) = statements(over_tls, name)
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Resource"] == [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_bucket_with_an_unencrypted_endpoint_takes_objects(clients: Clients, settings: Settings) -> None:
    """A policy that refuses unencrypted connections would lock everybody out, and moto applies policies."""
    for name in buckets(settings):
        clients.s3.put_object(Bucket=name, Key="a/b", Body=b"photo")
        assert clients.s3.get_object(Bucket=name, Key="a/b")["Body"].read() == b"photo"


def test_policy_stays_where_a_run_comes_unencrypted(clients: Clients, over_tls: Clients, settings: Settings) -> None:
    """The buckets are not opened by it."""
    provision_buckets(over_tls, settings)
    assert {r.state for r in provision_buckets(clients, settings)} == {State.UNCHANGED}
    assert len(statements(over_tls, settings.input_bucket)) == 1


def test_a_foreign_statement_of_a_bucket_policy_stays(over_tls: Clients, settings: Settings) -> None:
    """Beside ours, which comes back where it was changed."""
    clients = over_tls
    provision_buckets(clients, settings)
    name = settings.input_bucket
    theirs = {
        "Sid": "Theirs",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:DeleteObject",
        "Resource": f"arn:aws:s3:::{name}/*",
    }
    weakened = theirs | {"Sid": "FacerecTlsOnly"}
    policy = {"Version": "2012-10-17", "Statement": [theirs, weakened]}
    clients.s3.put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
    assert {r.name for r in provision_buckets(clients, settings) if r.state is State.UPDATED} == {name}
    found = statements(clients, name)
    assert found[0] == theirs
    assert [(one["Sid"], one["Action"]) for one in found[1:]] == [("FacerecTlsOnly", "s3:*")]


def test_items_of_the_fleets_table_expire(clients: Clients, settings: Settings) -> None:
    """By the attribute that the history writes; templates never do."""
    read = clients.dynamodb.describe_time_to_live
    found = read(TableName=settings.fleet_table)["TimeToLiveDescription"]
    assert (found["TimeToLiveStatus"], found["AttributeName"]) == ("ENABLED", "expires_at")
    assert read(TableName=settings.templates_table)["TimeToLiveDescription"]["TimeToLiveStatus"] == "DISABLED"


def test_dead_letters_of_the_request_queue_are_caught(clients: Clients, settings: Settings) -> None:
    """The request queue's redrive policy names the dead-letter queue."""
    policy = json.loads(queue_attributes(clients, settings.request_queue)["RedrivePolicy"])
    assert policy["deadLetterTargetArn"] == queue_attributes(clients, settings.dead_letter_queue)["QueueArn"]
    assert int(policy["maxReceiveCount"]) == settings.queue.max_receives


def test_size_limits_of_queues_are_repaired(clients: Clients, settings: Settings) -> None:
    """A dead letter has room for its reason beside the longest task."""
    names = (settings.request_queue, settings.faces_queue, settings.response_queue, settings.dead_letter_queue)
    for name in names:
        url = clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        clients.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "1024"})
    smaller = settings.changed(queue=QueueSettings(max_message_bytes=65_536))
    assert {r.name for r in provision(clients, smaller) if r.state is State.UPDATED} == {*names}
    limits = [int(queue_attributes(clients, name)["MaximumMessageSize"]) for name in names]
    assert limits == [65_536, 65_536, 65_536, 262_144]


def test_works_outside_the_default_region(aws: EmulatedAws) -> None:
    """S3 wants the region named everywhere but in us-east-1."""
    region = aws.settings.aws.model_copy(update={"region": "eu-central-1"})
    elsewhere = aws.settings.changed(prefix="far-away", aws=region)
    assert {r.state for r in provision(Clients(elsewhere), elsewhere)} == {State.CREATED}


def test_a_table_of_other_keys_is_refused(clients: Clients, settings: Settings) -> None:
    """A table that is not ours is left alone, and the error names the variable to change."""
    clients.dynamodb.create_table(
        TableName=f"{settings.prefix}-theirs",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    named = settings.names.model_copy(update={"templates_table": f"{settings.prefix}-theirs"})
    with pytest.raises(ConfigurationError, match="FACEREC_NAMES__TEMPLATES_TABLE"):
        provision(clients, settings.changed(names=named))


def test_a_name_of_another_account_is_refused(aws: EmulatedAws) -> None:
    """Bucket names are global: the error names the variable that chooses another."""
    if aws.kind is EmulatorKind.MOTO:
        pytest.skip("moto lets an account use another one's bucket")
    theirs = boto3.client("s3", endpoint_url=aws.url, aws_access_key_id="111111111111", aws_secret_access_key="x")
    theirs.create_bucket(Bucket="contested-gallery-bucket")
    settings = aws.settings.changed(prefix="contested")
    with pytest.raises(ConfigurationError, match="FACEREC_NAMES__GALLERY_BUCKET or FACEREC_PREFIX"):
        provision(Clients(settings), settings)


def test_an_endpoint_without_an_operation_earns_a_note(clients: Clients, settings: Settings) -> None:
    """What the endpoint cannot do is said, and the rest is done."""

    def lacking(**_: object) -> tuple[object, object]:
        return SimpleNamespace(status_code=501), {
            "Error": {"Code": "NotImplemented", "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": 501},
        }

    clients.s3.meta.events.register("before-call.s3.GetPublicAccessBlock", lacking)  # type: ignore[arg-type] # the stub forgets that this hook answers
    assert [(r.state, r.notes[0]) for r in provision_buckets(clients, settings)] == [
        (State.UNCHANGED, "this endpoint does not support the public-access block")
    ] * 4


def test_several_at_once_agree(aws: EmulatedAws) -> None:
    """Provisionings that run side by side all succeed, and leave nothing to do."""
    settings = aws.settings.changed(prefix="crowd")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(provision, Clients(settings), settings) for _ in range(4)]
    assert all(len(future.result()) == RESOURCES for future in futures)
    assert {r.state for r in provision(Clients(settings), settings)} == {State.UNCHANGED}
