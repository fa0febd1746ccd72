"""What each role may do in AWS, as IAM policy documents: the least that its code needs, and the one source of it. Pure.

A batch operation of SQS needs the permission of the single one, and DynamoDB's transactions those of their writes. Keys
of KMS are the operator's choice, so permissions on them are, too.
"""

from collections.abc import Callable
from typing import Any

from facerec.provision.iam.fleet_policies import autoscaler, look_at_fleet, provisioner
from facerec.provision.iam.statements import Place, Statement, allow

Policy = dict[str, Any]


def web(place: Place) -> list[Statement]:
    """`facerec web`: stores uploads, sends tasks, reads results; makes response queues for its processes."""
    settings = place.settings
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
            ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
            [place.queue(settings.request_queue)],
        ),
        allow("TellFlower", ["sqs:GetQueueUrl", "sqs:SendMessage"], [place.queue(settings.events_queue)]),
        allow(
            "ReceiveResults",
            ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            [place.queue(settings.response_queue), place.queue(place.own_response_queues)],
        ),
        allow(
            "OwnResponseQueues",
            ["sqs:CreateQueue", "sqs:DeleteQueue", "sqs:ListQueueTags", "sqs:TagQueue"],
            [place.queue(place.own_response_queues)],
        ),
        allow("FindOrphanedQueues", ["sqs:ListQueues"], ["*"]),
        allow("CheckKeys", ["dynamodb:GetItem"], [place.table(settings.keys_table)]),
    ]


def worker(place: Place) -> list[Statement]:
    """The app tier's workers, on EC2 the instances' role: they fetch, recognise, store and answer."""
    settings = place.settings
    readable = [settings.input_bucket, settings.output_bucket, settings.model_bucket]
    package = settings.instances.package
    bucket, _, key = (package or "").removeprefix("s3://").partition("/")
    folder = f"{place.bucket(bucket)}/{key.rpartition('/')[0]}".rstrip("/")
    return [
        allow("ReadObjects", ["s3:GetObject"], [place.objects(name) for name in readable]),
        allow("TellMissingFromForbidden", ["s3:ListBucket"], [place.bucket(name) for name in readable]),
        *([allow("InstallPackage", ["s3:GetObject"], [f"{folder}/*"])] if package else []),
        allow("StoreResults", ["s3:PutObject"], [place.objects(settings.output_bucket)]),
        allow(
            "TakeTasks",
            [
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:ReceiveMessage",
            ],
            [place.queue(settings.request_queue)],
        ),
        allow(
            "AnswerAndPass",
            ["sqs:GetQueueUrl", "sqs:SendMessage"],
            [
                place.queue(settings.response_queue),
                place.queue(place.own_response_queues),
                place.queue(settings.dead_letter_queue),
                place.queue(settings.request_queue),  # late tasks go to its end
                place.queue(settings.events_queue),
            ],
        ),
        allow(
            "ReadGallery",
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"],
            [place.table(settings.templates_table)],
        ),
        allow(
            "Report",
            ["dynamodb:UpdateItem"],
            [place.table(settings.fleet_table)],
            # Beside the reports the table has the autoscaler's lease and records.
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["worker"]}},
        ),
    ]


def flower(place: Place) -> list[Statement]:
    """`facerec flower`: takes the workers' events, and shows how long the queues are."""
    settings = place.settings
    shown = [settings.request_queue, settings.dead_letter_queue, settings.response_queue, place.own_response_queues]
    return [
        allow(
            "TakeEvents",
            ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            [place.queue(settings.events_queue)],
        ),
        allow("ShowQueues", ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"], [place.queue(name) for name in shown]),
        allow("FindResponseQueues", ["sqs:ListQueues"], ["*"]),
    ]


def operator(place: Place) -> list[Statement]:
    """A person: `facerec enrol`, `gallery`, `calibrate`, `model`, `dlq`, `trace`, `fleet`, and the API keys."""
    settings = place.settings
    return [
        allow(
            "KeepPhotosAndModels",
            ["s3:GetObject", "s3:PutObject"],
            [place.objects(settings.gallery_bucket), place.objects(settings.model_bucket)],
        ),
        allow("RemovePhotos", ["s3:DeleteObject"], [place.objects(settings.gallery_bucket)]),
        allow(
            "FollowRequests",
            ["s3:GetObject"],
            [place.objects(settings.input_bucket), place.objects(settings.output_bucket)],
        ),
        allow("RemoveFailures", ["s3:DeleteObject"], [place.objects(settings.output_bucket)]),
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
            [
                "dynamodb:BatchGetItem",
                "dynamodb:DeleteItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:UpdateItem",
            ],
            [place.table(settings.templates_table)],
        ),
        allow(
            "LookAtDeadLetters",
            [
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:PurgeQueue",
                "sqs:ReceiveMessage",
            ],
            [place.queue(settings.dead_letter_queue)],
        ),
        allow(
            "SendAgainAndLookAtBacklog",
            ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"],
            [place.queue(settings.request_queue)],
        ),
        allow("LookAtFleetTable", ["dynamodb:GetItem", "dynamodb:Query"], [place.table(settings.fleet_table)]),
        look_at_fleet(),
        allow(
            "KeepKeys",
            ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"],
            [place.table(settings.keys_table)],
        ),
    ]


ROLES: dict[str, Callable[[Place], list[Statement]]] = {
    "autoscaler": autoscaler,
    "flower": flower,
    "operator": operator,
    "provisioner": provisioner,
    "web": web,
    "worker": worker,
}
"""Every role; a further tier (Lambda functions, devices) adds a function and its name."""


def policy(role: str, place: Place) -> Policy:
    """The policy document of a role."""
    return {"Version": "2012-10-17", "Statement": ROLES[role](place)}
