"""Each tier on an emulated AWS that lets it do what its policy allows, and nothing else."""

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from facerec.api_keys import Scope, issue
from facerec.aws.clients import Clients
from facerec.aws.dynamodb import Table
from facerec.aws.dynamodb.api_keys import DynamoApiKeys
from facerec.aws.dynamodb.fleet_history import DynamoFleetHistory
from facerec.aws.dynamodb.sessions import DynamoSessions
from facerec.aws.dynamodb.templates import DynamoTemplateStore
from facerec.aws.dynamodb.worker_reports import DynamoWorkerReports
from facerec.aws.object_store import S3ObjectStore
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue
from facerec.cli import cli
from facerec.errors import ConfigurationError
from facerec.gallery.cache import GalleryCache
from facerec.gallery.published import PublishedSnapshots
from facerec.messages import Outcome
from facerec.operations import Enrol, Reject, Verify
from facerec.processes.addresses import free_port, poll_until
from facerec.provision.iam_policies import policy
from facerec.provision.iam_statements import Place
from facerec.provision.provisioning import provision
from facerec.session_records import begin_session
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import AwsSettings, QueueSettings
from tests.fakes import engine as fake
from tests.fakes.drawn_faces import photo as drawn_photo
from tests.fakes.fleet import a_record
from tests.fakes.templates import make_template
from tests.fakes.web_tier import picture
from tests.fakes.worker_reports import READY
from tests.support.emulated import EmulatedAws, clients_over_tls
from tests.support.iam import ACCOUNT, IamGate, iam_gate
from tests.support.processes import facerec
from tests.support.workers import Worker, WorkerTier

Guard = Callable[..., IamGate]
ERASURE = ("EraseUploadsAndResults", "RewriteLists", "SeeEmptyQueues", "FindResponseQueues", "EraseDeadLetters")


@pytest.fixture
def guard(emulator: EmulatedAws, fresh: Settings) -> Iterator[Guard]:
    """Makes the gate of a role."""
    with ExitStack() as gates:
        yield lambda role, settings=fresh: gates.enter_context(
            iam_gate(emulator.url, policy(role, Place(settings, ACCOUNT)), instance_arn(fresh))
        )


def instance_arn(settings: Settings) -> str:
    """The ARN of the instance `i-1` in the emulator's account."""
    arn = Clients(settings).dynamodb.describe_table(TableName=settings.fleet_table)["Table"]["TableArn"]
    return arn.replace(":dynamodb:", ":ec2:").replace(f"table/{settings.fleet_table}", "instance/i-1")


def guarded(settings: Settings, gate: IamGate) -> Settings:
    """The settings of who comes through the gate."""
    return settings.changed(aws=AwsSettings.model_validate({"endpoint_url": gate.url}))


def test_web_and_worker_need_no_more_than_they_may(
    emulator: EmulatedAws, fresh: Settings, tmp_path: Path, guard: Guard
) -> None:
    """Two web processes and a worker answer an upload and put culprits aside; what they did not use is told here."""
    tier = WorkerTier(emulator, fresh, tmp_path)
    publish_gallery(fresh, fake.FakeAnalyser.model_id, tmp_path)
    web_gate, worker_gate = guard("web"), guard("worker", fresh.changed(edge=EdgeSettings(enabled=True)))
    tier.clients.sqs.create_queue(QueueName=f"{fresh.response_queue}-0123456789ab")  # looks like an orphan
    port = free_port()
    serving = {"FACEREC_WEB__PORT": str(port), "FACEREC_WEB__PROCESSES": "2", "FACEREC_QUEUE__WAIT_TIME_SECONDS": "1"}
    web = Worker(tier.environ | serving | {"FACEREC_AWS__ENDPOINT_URL": web_gate.url}, *facerec("web")[2:])
    taking = {"FACEREC_WORKER__INSTANCE_ID": "i-1", "FACEREC_EDGE__ENABLED": "true"}
    worker = Worker(tier.environ | taking | {"FACEREC_AWS__ENDPOINT_URL": worker_gate.url})
    try:
        worker.wait_for("worker_ready")
        culprit, of_device = tier.upload(fake.SEGFAULT), tier.send_faces(fake.SEGFAULT)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            assert poll_until(lambda: _ready(client), 30)
            sent = client.post("/", files={"inputFile": ("a.jpg", picture())})
            assert sent.text == "a.jpg: face not recognized"
            stored = client.get(f"/api/v1/results/{sent.headers['X-Request-Id']}")
            assert stored.json()["outcome"] == "unknown"
        tier.answers(culprit, of_device)
        for operation in (Enrol(identity="Ada"), Verify(identity="Ada"), Reject(identity="Ada")):
            (answer,) = tier.answers(tier.upload(drawn_photo("Ada"), operation=operation))
            assert answer.outcome is Outcome.DONE
        assert poll_until(lambda: "TakeTasks sqs:DeleteMessage" in worker_gate.used, 30)
    finally:
        assert web.stop(signal.SIGTERM) == 0
        worker.stop(signal.SIGTERM)
    assert (web_gate.refused, worker_gate.refused) == (set(), set())
    for_people = (
        "KeepPeople",
        "KeepPhotos",
        "ListPhotos",
        "KeepJobs",
        "UnpackJobs",
        "ReadFleetHistory",
        *ERASURE,
    )  # an upload needs none of it
    unused = {entry for entry in web_gate.unused() if not entry.startswith(("TellFlower", *for_people))}
    assert unused == {"CheckKeys dynamodb:GetItem"}  # open mode; what Flower gets is best effort
    # Whether a message is held for longer is a matter of time.
    unused = {entry for entry in worker_gate.unused() if not entry.startswith(for_people)}
    assert unused - {"TakeTasks sqs:ChangeMessageVisibility"} == {
        "AnswerDevices iot:Publish",  # the device has not asked for results
        "FindDevicesEndpoint iot:DescribeEndpoint",
        "TellMissingFromForbidden s3:ListBucket",  # not called: with it S3 answers 404 where it would answer 403
    }


def publish_gallery(settings: Settings, model_id: str, directory: Path) -> None:
    """Enrol a made-up person, and publish the collection."""
    store, objects = DynamoTemplateStore(Clients(settings), settings.templates_table), S3ObjectStore(Clients(settings))
    store.add(make_template(1, model_id=model_id))
    cache = GalleryCache(store, model_id, 1, dimension=512)
    snapshots = PublishedSnapshots(objects, settings.gallery_bucket, model_id, directory)
    assert snapshots.publish("default", cache.loaded("default"), store) is not None


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_what_is_not_granted_is_refused(fresh: Settings, guard: Guard) -> None:
    """A worker that was taken over removes no bucket, lists no photos and uses no other deployment's queue."""
    gate = guard("worker")
    clients = Clients(guarded(fresh, gate))
    forbidden: list[Callable[[], object]] = [
        lambda: clients.s3.delete_bucket(Bucket=fresh.output_bucket),
        lambda: clients.s3.list_objects_v2(Bucket=fresh.gallery_bucket),
        lambda: clients.s3.list_objects_v2(Bucket=fresh.gallery_bucket, Prefix="default/"),
        lambda: clients.sqs.get_queue_url(QueueName="another-req-queue"),
        lambda: clients.dynamodb.delete_item(TableName=fresh.fleet_table, Key={"kind": {"S": "lease"}}),
    ]
    for call in forbidden:
        with pytest.raises(ClientError, match="AccessDenied"):
            call()
    assert len(gate.refused) == 4


def test_worker_writes_only_its_own_report(fresh: Settings, guard: Guard) -> None:
    """Not the lease, a launch slot, the history, an order to drain, even its own, or another instance's report."""
    gate, own = guard("worker"), instance_arn(fresh)
    clients = Clients(guarded(fresh, gate))
    reports = DynamoWorkerReports(clients, fresh.fleet_table)
    assert reports.report(READY) is False
    others: list[tuple[str, str]] = [
        ("lease", "controller"),
        ("number", "000001"),
        (f"record#{datetime.now(UTC):%Y-%m-%d}", "0"),
        ("drain", "i-1"),
        ("drain", "i-2"),
        ("worker", "i-1"),
        (own.replace("i-1", "i-2"), "report"),
    ]
    for kind, item in others:
        with pytest.raises(ClientError, match="AccessDenied"):
            clients.dynamodb.update_item(
                TableName=fresh.fleet_table,
                Key={"kind": {"S": kind}, "item": {"S": item}},
                UpdateExpression="SET ordered_at = :at",
                ExpressionAttributeValues={":at": {"N": "1"}},
            )
    with pytest.raises(ConfigurationError, match="check the role"):
        reports.order_drain("i-1", 1.0)
    items = Clients(fresh).dynamodb.scan(TableName=fresh.fleet_table)["Items"]
    assert [item["kind"]["S"] for item in items] == [own]


def test_web_tier_reads_the_history_of_the_fleet_and_nothing_else_there(fresh: Settings, guard: Guard) -> None:
    """It neither writes a record nor reads drain orders or the lease."""
    clients = Clients(guarded(fresh, guard("web")))
    record = a_record(time.time())
    DynamoFleetHistory(Clients(fresh), fresh.fleet_table).record(record)
    history = DynamoFleetHistory(clients, fresh.fleet_table)
    assert list(history.records(record.at - 60)) == [record]
    assert history.latest(record.at) == record
    with pytest.raises(ConfigurationError, match="check the role"):
        history.record(record)
    for kind in ("drain", "lease", "number"):
        with pytest.raises(ClientError, match="AccessDenied"):
            list(Table(clients, fresh.fleet_table).items(kind))


def test_only_the_web_tier_reads_what_proves_a_session(fresh: Settings, guard: Guard) -> None:
    """Workers write to the table of sessions, and cannot make one: its proof needs the stored hash of the key."""
    now = datetime.now(UTC)
    key, token = issue("desk", [Scope.ADMIN], now=now)
    DynamoApiKeys(Clients(fresh), fresh.keys_table).put(key)
    web, worker = (Clients(guarded(fresh, guard(role))) for role in ("web", "worker"))
    sessions = DynamoSessions(web, fresh.people_table)
    session, _ = begin_session(token, now=now, length=timedelta(hours=1))
    sessions.add(session)
    assert sessions.get(session.token_hash) == session
    assert DynamoApiKeys(web, fresh.keys_table).get(key.key_id) == key
    sessions.remove(session.token_hash)
    assert sessions.get(session.token_hash) is None
    keys = DynamoApiKeys(worker, fresh.keys_table)
    for reading in (lambda: keys.get(key.key_id), keys.keys):
        with pytest.raises(ConfigurationError, match="check the role"):
            reading()


def test_provisioning_and_dead_letters_need_no_more(
    emulator: EmulatedAws, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provisioner makes all that the settings name, but for the launch template; the operator empties a queue."""
    settings = emulator.settings.changed(prefix=f"test-{uuid.uuid4().hex[:12]}")
    gate = guard("provisioner", settings)
    provision(Clients(guarded(settings, gate)), settings)
    provision(clients_over_tls(guarded(settings, gate)), settings.changed(queue=QueueSettings(max_receives=2)))
    assert gate.refused == set()
    assert {entry for entry in gate.unused() if "ec2:" not in entry} == {
        "MakeBuckets s3:PutEncryptionConfiguration",  # buckets are made with it
        "MakeTables dynamodb:UpdateTable",  # only a table of another making is billed otherwise
    }

    operator = guard("operator", settings)
    SqsDeadLetterWriter(SqsQueue(Clients(settings).sqs, settings.dead_letter_queue)).put(
        "rubbish", reason="x", request_id="y", failed_at=datetime.now(UTC)
    )
    monkeypatch.setenv("FACEREC_PREFIX", settings.prefix)
    monkeypatch.setenv("FACEREC_AWS__ENDPOINT_URL", operator.url)
    assert CliRunner().invoke(cli, ["dlq", "list"]).exit_code == 0
    assert CliRunner().invoke(cli, ["dlq", "redrive", "--all", "--force", "--yes"]).exit_code == 0
    assert CliRunner().invoke(cli, ["dlq", "purge", "--all", "--yes"]).exit_code == 0
    assert operator.refused == set()
    assert not [entry for entry in operator.unused() if entry.startswith(("EraseDeadLetters", "PurgeDeadLetters"))]
