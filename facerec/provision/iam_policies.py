"""The least-privilege IAM policy of each role, as its code needs it: the one source of `deploy/iam`. Pure.

A batch operation of SQS needs the permission of the single one, and DynamoDB's transactions those of their writes. KMS
keys are the operator's choice, and so are permissions on them.
"""

from collections.abc import Callable
from typing import Any

from facerec.fleet_records import HISTORY_PARTITIONS
from facerec.messages import DRAIN_ORDERS, FLEET_TAG
from facerec.object_keys import JOBS_PREFIX
from facerec.provision import iam_autoscaler, iam_edge, iam_serverless
from facerec.provision.iam_statements import (
    KEEP_ITEMS,
    THIS_INSTANCE,
    Place,
    Statement,
    actions,
    allow,
    answer_devices,
    find_snapshots,
    keep_people,
    partitions,
    partitions_below,
    read_images,
    work_off_erasures,
)

Policy = dict[str, Any]


def web(place: Place) -> list[Statement]:
    """`facerec web`: stores uploads, sends tasks, reads results; creates response queues for its processes."""
    settings = place.settings
    of_jobs = f"{place.bucket(settings.input_bucket)}/{JOBS_PREFIX}*"
    return [
        allow("StoreUploads", ["s3:PutObject"], [place.objects(settings.input_bucket)]),
        allow("ReadResults", ["s3:GetObject"], [place.objects(settings.output_bucket)]),
        allow(
            "TellMissingFromForbidden",
            ["s3:ListBucket"],
            [place.bucket(settings.input_bucket), place.bucket(settings.output_bucket)],
        ),
        allow(
            "SendTasks",
            actions("sqs", "GetQueueAttributes GetQueueUrl SendMessage"),
            [place.queue(settings.request_queue)],
        ),
        allow("TellFlower", actions("sqs", "GetQueueUrl SendMessage"), [place.queue(settings.events_queue)]),
        allow(
            "ReceiveResults",
            actions("sqs", "DeleteMessage GetQueueUrl ReceiveMessage"),
            [place.queue(settings.response_queue), place.queue(place.own_response_queues)],
        ),
        allow(
            "OwnResponseQueues",
            actions("sqs", "CreateQueue DeleteQueue ListQueueTags TagQueue"),
            [place.queue(place.own_response_queues)],
        ),
        allow("FindOrphanedQueues", ["sqs:ListQueues"], ["*"]),
        allow("CheckKeys", ["dynamodb:GetItem"], [place.table(settings.keys_table)]),
        allow(
            "ReadFleetHistory",
            ["dynamodb:Query"],
            [place.table(settings.fleet_table)],
            partitions_below(HISTORY_PARTITIONS),
        ),
        *keep_people(place),
        *read_images(place),
        allow("ListPhotos", ["s3:ListBucket"], [place.bucket(settings.gallery_bucket)]),
        allow("KeepJobs", ["dynamodb:BatchWriteItem"], [place.table(settings.jobs_table)]),
        # The files of a job before they are sent, and its zip.
        allow("UnpackJobs", actions("s3", "AbortMultipartUpload GetObject DeleteObject"), [of_jobs]),
        *read_sources(place),
        *work_off_erasures(place),
    ]


def read_sources(place: Place) -> list[Statement]:
    """Read the buckets of which jobs may take a prefix."""
    sources = place.settings.jobs.source_buckets
    if not sources:
        return []
    return [
        allow("ReadSources", ["s3:GetObject"], [place.objects(name) for name in sources]),
        allow("ListSources", ["s3:ListBucket"], [place.bucket(name) for name in sources]),
    ]


def worker(place: Place) -> list[Statement]:
    """The app tier's workers, on EC2 the instances' role: fetch, recognise, store and answer."""
    settings = place.settings
    readable = [settings.input_bucket, settings.output_bucket, settings.model_bucket]
    package = settings.instances.package
    bucket, _, key = (package or "").removeprefix("s3://").partition("#")[0].partition("/")
    return [
        allow("ReadObjects", ["s3:GetObject"], [place.objects(name) for name in readable]),
        allow("TellMissingFromForbidden", ["s3:ListBucket"], [place.bucket(name) for name in readable]),
        *([allow("InstallPackage", ["s3:GetObject"], [f"{place.bucket(bucket)}/{key}"])] if package else []),
        allow("StoreResults", ["s3:PutObject"], [place.objects(settings.output_bucket)]),
        allow(
            "TakeTasks",
            actions("sqs", "ChangeMessageVisibility DeleteMessage GetQueueAttributes GetQueueUrl ReceiveMessage"),
            [place.queue(name) for name in settings.worker_queues],
        ),
        allow("CompareQueues", ["sqs:GetQueueAttributes"], [place.queue(settings.response_queue)]),
        allow(
            "AnswerAndPass",
            actions("sqs", "GetQueueUrl SendMessage"),
            [
                place.queue(settings.response_queue),
                place.queue(place.own_response_queues),
                *(place.queue(name) for name in settings.worker_queues.values()),
                place.queue(settings.request_queue),  # stale tasks are requeued
                place.queue(settings.events_queue),
            ],
        ),
        *keep_people(place),
        find_snapshots(place),
        *(answer_devices(place) if settings.edge.enabled else []),
        # The table also holds the autoscaler's lease, launch slots and history, and the other instances' reports.
        allow("Report", ["dynamodb:UpdateItem"], [place.table(settings.fleet_table)], partitions(THIS_INSTANCE)),
        allow("ReadDrainOrder", ["dynamodb:GetItem"], [place.table(settings.fleet_table)], partitions(DRAIN_ORDERS)),
        allow("FindAccount", ["dynamodb:DescribeTable"], [place.table(settings.fleet_table)]),
    ]


def flower(place: Place) -> list[Statement]:
    """`facerec flower`: takes the workers' events, and shows the depths of the queues."""
    settings = place.settings
    of_workers = [name for queues in settings.worker_queues.items() for name in queues]
    shown = [*of_workers, settings.response_queue, place.own_response_queues]
    return [
        allow(
            "TakeEvents",
            actions("sqs", "DeleteMessage GetQueueAttributes GetQueueUrl ReceiveMessage"),
            [place.queue(settings.events_queue)],
        ),
        allow("ShowQueues", actions("sqs", "GetQueueAttributes GetQueueUrl"), [place.queue(name) for name in shown]),
        allow("FindResponseQueues", ["sqs:ListQueues"], ["*"]),
    ]


def operator(place: Place) -> list[Statement]:
    """A person: `enrol`, `people`, `gallery`, `calibrate`, `model`, `dlq`, `trace`, `fleet`, and the API keys."""
    settings = place.settings
    return [
        allow(
            "KeepPhotosAndModels",
            # A large snapshot is uploaded in parts.
            actions("s3", "AbortMultipartUpload GetObject PutObject"),
            [place.objects(settings.gallery_bucket), place.objects(settings.model_bucket)],
        ),
        allow("RemovePhotos", ["s3:DeleteObject"], [place.objects(settings.gallery_bucket)]),
        allow(
            "FollowRequests",
            ["s3:GetObject"],
            [place.objects(settings.input_bucket), place.objects(settings.output_bucket)],
        ),
        allow("AskWorkers", ["s3:PutObject"], [place.objects(settings.input_bucket)]),
        *work_off_erasures(place),
        allow(
            "ListObjects",
            ["s3:ListBucket"],
            [
                place.bucket(name)
                for name in (
                    settings.input_bucket,
                    settings.output_bucket,
                    settings.gallery_bucket,
                    settings.model_bucket,
                )
            ],
        ),
        allow(
            "KeepGallery",
            KEEP_ITEMS,
            [place.table(name) for name in (settings.templates_table, settings.people_table, settings.jobs_table)],
        ),
        allow("EraseFromJobs", ["dynamodb:BatchWriteItem"], [place.table(settings.jobs_table)]),
        allow(
            "PurgeDeadLetters",
            ["sqs:PurgeQueue"],
            [place.queue(settings.dead_letter_queue), place.queue(settings.faces_dead_letter_queue)],
        ),
        allow(
            "SendAgainAndLookAtBacklog",
            actions("sqs", "GetQueueAttributes GetQueueUrl SendMessage"),
            [place.queue(name) for name in (settings.request_queue, settings.faces_queue, settings.response_queue)],
        ),
        allow(
            "LookAtFleetTable",
            actions("dynamodb", "BatchGetItem DescribeTable GetItem Query"),
            [place.table(settings.fleet_table)],
        ),
        iam_autoscaler.look_at_fleet(),
        allow(
            "KeepKeys",
            actions("dynamodb", "GetItem PutItem Query"),
            [place.table(settings.keys_table)],
        ),
    ]


def provisioner(place: Place) -> list[Statement]:
    """`facerec provision`: creates and repairs resources, and never reads their contents."""
    settings = place.settings
    buckets = [settings.input_bucket, settings.output_bucket, settings.gallery_bucket, settings.model_bucket]
    queues = [
        settings.request_queue,
        settings.dead_letter_queue,
        settings.faces_queue,
        settings.faces_dead_letter_queue,
        settings.response_queue,
        settings.events_queue,
    ]
    tables = [
        settings.templates_table,
        settings.fleet_table,
        settings.keys_table,
        settings.people_table,
        settings.jobs_table,
    ]
    launch_template = place.ec2("launch-template")
    requested = {"StringEquals": {f"aws:RequestTag/{FLEET_TAG}": settings.prefix}}
    return [
        allow(
            "MakeBuckets",
            actions(
                "s3",
                "CreateBucket GetBucketPolicy GetBucketPublicAccessBlock GetEncryptionConfiguration "
                "GetLifecycleConfiguration ListBucket PutBucketPolicy PutBucketPublicAccessBlock "
                "PutEncryptionConfiguration PutLifecycleConfiguration",
            ),
            [place.bucket(name) for name in buckets],
        ),
        allow(
            "MakeQueues",
            actions("sqs", "CreateQueue GetQueueAttributes GetQueueUrl SetQueueAttributes"),
            [place.queue(name) for name in queues],
        ),
        allow(
            "MakeTables",
            actions(
                "dynamodb",
                "CreateTable DescribeContinuousBackups DescribeTable DescribeTimeToLive "
                "UpdateContinuousBackups UpdateTable UpdateTimeToLive",
            ),
            [place.table(name) for name in tables],
        ),
        allow(
            "LookAtTemplates",
            actions("ec2", "DescribeImages DescribeLaunchTemplateVersions DescribeLaunchTemplates"),
            ["*"],
        ),
        allow("MakeTemplate", ["ec2:CreateLaunchTemplate"], [launch_template], requested),
        allow(
            "TagTemplate",
            ["ec2:CreateTags"],
            [launch_template],
            {"StringEquals": {"ec2:CreateAction": "CreateLaunchTemplate"}},
        ),
        allow(
            "ChangeTemplate",
            actions("ec2", "CreateLaunchTemplateVersion ModifyLaunchTemplate"),
            [launch_template],
            {"StringEquals": place.fleet_tagged},
        ),
    ]


ROLES: dict[str, Callable[[Place], list[Statement]]] = {
    "autoscaler": iam_autoscaler.autoscaler,
    "detection": iam_serverless.detection,
    "edge-device": iam_edge.edge_device,
    "edge-operator": iam_edge.edge_operator,
    "edge-rules": iam_edge.edge_rules,
    "flower": flower,
    "operator": operator,
    "provisioner": provisioner,
    "recognition": iam_serverless.recognition,
    "serverless-caller": iam_serverless.caller,
    "serverless-deployer": iam_serverless.deployer,
    "web": web,
    "worker": worker,
}
"""Every role; a further tier adds a function and its name."""


def policy(role: str, place: Place) -> Policy:
    """Return the policy document of a role."""
    return {"Version": "2012-10-17", "Statement": ROLES[role](place)}
