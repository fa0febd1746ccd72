"""What each role may do in AWS, as IAM policy documents: the least that its code needs, and the one source of it. Pure.

A batch operation of SQS needs the permission of the single one, and DynamoDB's transactions those of their writes. Keys
of KMS are the operator's choice, so permissions on them are, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from facerec.fleet import FLEET_TAG
from facerec.settings import Settings

Statement = dict[str, Any]
Policy = dict[str, Any]

WITHOUT_RESOURCES = {
    "cloudwatch:GetMetricStatistics": "CloudWatch knows no resources for metrics",
    "ec2:DescribeImages": "EC2's Describe actions know no resources",
    "ec2:DescribeInstances": "as above",
    "ec2:DescribeInstanceStatus": "as above",
    "ec2:DescribeLaunchTemplates": "as above",
    "ec2:DescribeLaunchTemplateVersions": "as above",
    "sqs:ListQueues": "SQS lists the queues of the account or none",
}
"""The only actions that are granted on `*`: AWS lets nobody name a resource for them, for the reason given."""


def partition(region: str) -> str:
    """The first part of ARNs: China and GovCloud are apart from the rest of AWS."""
    apart = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for prefix, name in apart.items() if region.startswith(prefix)), "aws")


@dataclass(frozen=True)
class Place:
    """Where the resources are: settings name them, `account` (12 digits) owns them."""

    settings: Settings
    account: str

    @cached_property
    def region(self) -> str:
        """The region of all of them."""
        return self.settings.aws.region

    @cached_property
    def partition(self) -> str:
        """That of the region."""
        return partition(self.region)

    def bucket(self, name: str) -> str:
        """A bucket."""
        return f"arn:{self.partition}:s3:::{name}"

    def objects(self, name: str) -> str:
        """All objects of a bucket."""
        return f"{self.bucket(name)}/*"

    def queue(self, name: str) -> str:
        """A queue; `*` in the name stands for anything."""
        return f"arn:{self.partition}:sqs:{self.region}:{self.account}:{name}"

    def table(self, name: str) -> str:
        """A DynamoDB table."""
        return f"arn:{self.partition}:dynamodb:{self.region}:{self.account}:table/{name}"

    def ec2(self, kind: str, identifier: str = "*", *, owner: str | None = None) -> str:
        """A resource of EC2; AMIs have no owner in their names."""
        return f"arn:{self.partition}:ec2:{self.region}:{self.account if owner is None else owner}:{kind}/{identifier}"

    def role(self, name: str) -> str:
        """An IAM role."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    # Resources of tiers whose settings name them elsewhere, or not yet: replace by the settings' properties.

    @cached_property
    def events_queue(self) -> str:
        """Queue of Celery's events, from the workers to Flower."""
        return str(getattr(self.settings, "events_queue", f"{self.settings.prefix}-events-queue"))

    @cached_property
    def keys_table(self) -> str:
        """DynamoDB table of API keys."""
        return str(getattr(self.settings, "keys_table", f"{self.settings.prefix}-api-keys"))

    @cached_property
    def own_response_queues(self) -> str:
        """Those that single web processes make for themselves."""
        return f"{self.settings.response_queue}-*"

    @cached_property
    def fleet_tagged(self) -> dict[str, str]:
        """As a condition on what exists: it belongs to this fleet."""
        return {f"aws:ResourceTag/{FLEET_TAG}": self.settings.prefix}


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
        allow("CheckKeys", ["dynamodb:GetItem"], [place.table(place.keys_table)]),
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
                place.queue(place.events_queue),
            ],
        ),
        allow(
            "ReadGallery",
            ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"],
            [place.table(settings.templates_table)],
        ),
        allow("Report", ["dynamodb:UpdateItem"], [place.table(settings.fleet_table)]),
    ]


def autoscaler(place: Place) -> list[Statement]:
    """`facerec autoscale`: reads the backlog; launches, starts, stops and terminates instances of its fleet alone."""
    settings = place.settings
    instances = settings.instances
    launch_template = place.ec2("launch-template")
    from_template = {"ArnLike": {"ec2:LaunchTemplate": launch_template}}
    chosen_by_template = from_template | {"Bool": {"ec2:IsLaunchTemplateResource": "true"}}
    named = [place.ec2("image", instances.image_id or "*", owner="")]
    named += [place.ec2("security-group", one) for one in instances.security_group_ids or ("*",)]
    named += [place.ec2("key-pair", instances.key_name)] if instances.key_name else []
    # The network interface is made at the launch, and the autoscaler chooses among the subnets.
    placed = [place.ec2("network-interface"), place.ec2("volume")]
    placed += [place.ec2("subnet", one) for one in instances.subnet_ids or ("*",)]
    requested = {"StringEquals": {f"aws:RequestTag/{FLEET_TAG}": settings.prefix}}
    statements = [
        allow(
            "ReadBacklog",
            ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"],
            [place.queue(settings.request_queue), place.queue(settings.dead_letter_queue)],
        ),
        allow(
            "KeepState",
            [
                "dynamodb:ConditionCheckItem",
                "dynamodb:DeleteItem",
                "dynamodb:DescribeTable",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:UpdateItem",
            ],
            [place.table(settings.fleet_table)],
        ),
        _look_at_fleet(),
        allow("LaunchFromTemplate", ["ec2:RunInstances"], [launch_template], {"StringEquals": place.fleet_tagged}),
        allow("LaunchOwnInstances", ["ec2:RunInstances"], [place.ec2("instance")], from_template | requested),
        allow("LaunchWithWhatTheTemplateNames", ["ec2:RunInstances"], named, chosen_by_template),
        allow("LaunchIntoSubnets", ["ec2:RunInstances"], placed, from_template),
        allow(
            "TagAtLaunch",
            ["ec2:CreateTags"],
            [place.ec2("instance"), place.ec2("volume")],
            {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        allow(
            "NameOwnInstances",
            ["ec2:CreateTags"],
            [place.ec2("instance")],
            {"StringEquals": place.fleet_tagged, "ForAllValues:StringEquals": {"aws:TagKeys": ["Name"]}},
        ),
        allow(
            "StartAndEndOwnInstances",
            ["ec2:StartInstances", "ec2:StopInstances", "ec2:TerminateInstances"],
            [place.ec2("instance")],
            {"StringEquals": place.fleet_tagged},
        ),
        allow(
            "GiveInstancesTheirRole",
            ["iam:PassRole"],
            # An instance profile that was made in the console has the name of its role.
            [place.role(instances.profile or f"{settings.prefix}-worker")],
            {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
        ),
    ]
    if instances.purchase == "spot":
        spot = "aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        condition = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
        statements.append(allow("BuySpotOnce", ["iam:CreateServiceLinkedRole"], [place.role(spot)], condition))
    return statements


def flower(place: Place) -> list[Statement]:
    """`facerec flower`: takes the workers' events, and shows how long the queues are."""
    settings = place.settings
    shown = [settings.request_queue, settings.dead_letter_queue, settings.response_queue, place.own_response_queues]
    return [
        allow(
            "TakeEvents",
            ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            [place.queue(place.events_queue)],
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
        _look_at_fleet(),
        allow(
            "KeepKeys",
            ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"],
            [place.table(place.keys_table)],
        ),
    ]


def provisioner(place: Place) -> list[Statement]:
    """`facerec provision`: makes and repairs resources, and reads nothing that is in them."""
    settings = place.settings
    buckets = [settings.input_bucket, settings.output_bucket, settings.gallery_bucket, settings.model_bucket]
    queues = [settings.request_queue, settings.dead_letter_queue, settings.response_queue, place.events_queue]
    tables = [settings.templates_table, settings.fleet_table, place.keys_table]
    launch_template = place.ec2("launch-template")
    requested = {"StringEquals": {f"aws:RequestTag/{FLEET_TAG}": settings.prefix}}
    return [
        allow(
            "MakeBuckets",
            [
                "s3:CreateBucket",
                "s3:GetBucketPolicy",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetEncryptionConfiguration",
                "s3:GetLifecycleConfiguration",
                "s3:ListBucket",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
            ],
            [place.bucket(name) for name in buckets],
        ),
        allow(
            "MakeQueues",
            ["sqs:CreateQueue", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SetQueueAttributes"],
            [place.queue(name) for name in queues],
        ),
        allow(
            "MakeTables",
            [
                "dynamodb:CreateTable",
                "dynamodb:DescribeContinuousBackups",
                "dynamodb:DescribeTable",
                "dynamodb:DescribeTimeToLive",
                "dynamodb:UpdateContinuousBackups",
                "dynamodb:UpdateTable",
                "dynamodb:UpdateTimeToLive",
            ],
            [place.table(name) for name in tables],
        ),
        allow(
            "LookAtTemplates",
            ["ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates"],
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
            ["ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate"],
            [launch_template],
            {"StringEquals": place.fleet_tagged},
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


def allow(
    sid: str, actions: Sequence[str], resources: Sequence[str], condition: dict[str, Any] | None = None
) -> Statement:
    """One statement; `sid` says what for."""
    statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement if condition is None else statement | {"Condition": condition}


def _look_at_fleet() -> Statement:
    return allow(
        "LookAtFleet",
        [
            "cloudwatch:GetMetricStatistics",
            "ec2:DescribeInstanceStatus",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplates",
        ],
        ["*"],
    )
