"""The parts of IAM policies: resource names, actions and statements. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from facerec.edge_messages import results_topic
from facerec.messages import FLEET_TAG
from facerec.object_keys import SNAPSHOTS_PREFIX
from facerec.settings import Settings

Statement = dict[str, Any]
Half = Literal["detection", "recognition"]
HALVES: tuple[Half, Half] = ("detection", "recognition")
"""The halves of a recognition, each a Lambda function."""

WITHOUT_RESOURCES = {
    "cloudwatch:DescribeAlarms": "asked for all alarms, it also returns composite ones",
    "cloudwatch:GetMetricStatistics": "CloudWatch knows no resources for metrics",
    "ec2:DescribeImages": "EC2's Describe actions know no resources",
    "ec2:DescribeInstances": "as above",
    "ec2:DescribeInstanceStatus": "as above",
    "ec2:DescribeLaunchTemplates": "as above",
    "ec2:DescribeLaunchTemplateVersions": "as above",
    "ecr:GetAuthorizationToken": "the token is one for all repositories",
    "greengrass:CreateDeployment": "a new deployment has no id yet",
    "greengrass:ListDeployments": "Greengrass lists the deployments of the account or none",
    "iot:CreateKeysAndCertificate": "a new certificate has no id yet",
    "iot:DescribeEndpoint": "the endpoint is the account's",
    "lambda:CreateEventSourceMapping": "a new mapping has no name yet; a condition names the functions",
    "lambda:GetAccountSettings": "the quota is the account's",
    "lambda:ListEventSourceMappings": "Lambda lists the mappings of the account or none",
    "logs:DescribeLogGroups": "it looks for groups by the beginning of their names",
    "logs:DescribeResourcePolicies": "CloudWatch Logs lists the policies of the account",
    "sqs:ListQueues": "SQS lists the queues of the account or none",
    "xray:PutTelemetryRecords": "X-Ray knows no resources for traces",
    "xray:PutTraceSegments": "as above",
}
"""The only actions that are granted on `*`, and why AWS accepts no resource for them."""


THIS_INSTANCE = "${ec2:SourceInstanceARN}"
"""The ARN of the EC2 instance whose credentials sign the request; in other requests the statement does not apply."""


def partition(region: str) -> str:
    """Return the partition of ARNs in a region: China and GovCloud have their own."""
    apart = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for prefix, name in apart.items() if region.startswith(prefix)), "aws")


@dataclass(frozen=True)
class Place:
    """ARNs of the resources that the settings name and `account` (12 digits) owns."""

    settings: Settings
    account: str

    @cached_property
    def region(self) -> str:
        """The region of all resources."""
        return self.settings.aws.region

    @cached_property
    def partition(self) -> str:
        """The partition of the region."""
        return partition(self.region)

    def bucket(self, name: str) -> str:
        """Return a bucket's ARN."""
        return f"arn:{self.partition}:s3:::{name}"

    def objects(self, name: str) -> str:
        """Return the ARN of all objects of a bucket."""
        return f"{self.bucket(name)}/*"

    def queue(self, name: str) -> str:
        """Return a queue's ARN; `*` in the name matches anything."""
        return f"arn:{self.partition}:sqs:{self.region}:{self.account}:{name}"

    def table(self, name: str) -> str:
        """Return a DynamoDB table's ARN."""
        return f"arn:{self.partition}:dynamodb:{self.region}:{self.account}:table/{name}"

    def ec2(self, kind: str, identifier: str = "*", *, owner: str | None = None) -> str:
        """Return the ARN of an EC2 resource; those of AMIs have no owner."""
        return f"arn:{self.partition}:ec2:{self.region}:{self.account if owner is None else owner}:{kind}/{identifier}"

    def role(self, name: str) -> str:
        """Return a role's ARN."""
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def iot(self, kind: str, name: str) -> str:
        """Return the ARN of something in AWS IoT: a thing, certificate, policy, rule, client, topic or role alias."""
        return f"arn:{self.partition}:iot:{self.region}:{self.account}:{kind}/{name}"

    def function(self, name: str) -> str:
        """Return a Lambda function's ARN."""
        return f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{name}"

    def log_group(self, function: str) -> str:
        """Return the ARN of the log group of a Lambda function."""
        return f"arn:{self.partition}:logs:{self.region}:{self.account}:log-group:{log_group(function)}"

    def stack(self, name: str) -> str:
        """Return the ARN of a CloudFormation stack; a stack that is made again has another end of it."""
        return f"arn:{self.partition}:cloudformation:{self.region}:{self.account}:stack/{name}/*"

    @cached_property
    def own_response_queues(self) -> str:
        """The queues that web processes create for themselves."""
        return f"{self.settings.response_queue}-*"

    @cached_property
    def fleet_tagged(self) -> dict[str, str]:
        """The condition that a resource belongs to this fleet."""
        return {f"aws:ResourceTag/{FLEET_TAG}": self.settings.prefix}


def function_name(settings: Settings, half: Half) -> str:
    """Return the name of the function that does this half of a recognition."""
    return f"{settings.prefix}-face-{half}"


def function_role(settings: Settings, half: Half) -> str:
    """Return the name of the function's role."""
    return f"{settings.prefix}-{half}"


def log_group(function: str) -> str:
    """Return the name of a function's log group."""
    return f"/aws/lambda/{function}"


def actions(service: str, names: str) -> list[str]:
    """Return the actions of a service; `names` are separated by spaces."""
    return [f"{service}:{name}" for name in names.split()]


def partitions(key: str) -> dict[str, Any]:
    """Return the condition that a call to DynamoDB names only items with this partition key."""
    return {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [key]}}


def partitions_below(prefix: str) -> dict[str, Any]:
    """Return the condition that a call to DynamoDB names only items whose partition key begins with `prefix`."""
    return {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{prefix}*"]}}


def allow(
    sid: str, actions: Sequence[str], resources: Sequence[str], condition: dict[str, Any] | None = None
) -> Statement:
    """Return one statement; `sid` names its purpose."""
    statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement if condition is None else statement | {"Condition": condition}


def find_snapshots(place: Place) -> Statement:
    """List the published snapshots, and nothing else of the gallery bucket."""
    below = {"StringLike": {"s3:prefix": f"{SNAPSHOTS_PREFIX}*"}}
    return allow("FindGallerySnapshots", ["s3:ListBucket"], [place.bucket(place.settings.gallery_bucket)], below)


def gallery_snapshots(place: Place) -> list[Statement]:
    """Find and read the published snapshots, and nothing else of the gallery bucket."""
    snapshots = f"{place.bucket(place.settings.gallery_bucket)}/{SNAPSHOTS_PREFIX}*"
    return [find_snapshots(place), allow("ReadGallerySnapshots", ["s3:GetObject"], [snapshots])]


KEEP_ITEMS = actions("dynamodb", "BatchGetItem DeleteItem GetItem PutItem Query UpdateItem")
"""What a tier needs that keeps items in a table."""


def keep_people(place: Place) -> list[Statement]:
    """Enrol, change and remove people over the APIs: their templates and photos; and keep jobs."""
    settings = place.settings
    return [
        allow(
            "KeepPeople",
            KEEP_ITEMS,
            [place.table(name) for name in (settings.templates_table, settings.people_table, settings.jobs_table)],
        ),
        allow(
            "KeepPhotos",
            actions("s3", "DeleteObject GetObject PutObject"),
            [place.objects(settings.gallery_bucket)],
        ),
    ]


def work_off_erasures(place: Place) -> list[Statement]:
    """Delete uploads, results and dead letters that name an erased person, and see which queues are empty."""
    settings = place.settings
    queues = (settings.request_queue, settings.faces_queue, settings.response_queue, place.own_response_queues)
    return [
        allow(
            "EraseUploadsAndResults",
            ["s3:DeleteObject"],
            [place.objects(settings.input_bucket), place.objects(settings.output_bucket)],
        ),
        allow("RewriteLists", actions("s3", "GetObject PutObject"), [place.objects(settings.output_bucket)]),
        allow(
            "SeeEmptyQueues",
            actions("sqs", "GetQueueAttributes GetQueueUrl"),
            [place.queue(name) for name in queues],
        ),
        allow("FindResponseQueues", ["sqs:ListQueues"], ["*"]),
        allow(
            "EraseDeadLetters",
            actions("sqs", "ChangeMessageVisibility DeleteMessage GetQueueAttributes GetQueueUrl ReceiveMessage"),
            [place.queue(settings.dead_letter_queue), place.queue(settings.faces_dead_letter_queue)],
        ),
    ]


def read_images(place: Place) -> list[Statement]:
    """Read the images that clients of the Rekognition API name, of the buckets that the operator allows."""
    buckets = place.settings.web.image_buckets
    if not buckets:
        return []
    return [
        allow("ReadImages", ["s3:GetObject"], [place.objects(name) for name in buckets]),
        allow("TellMissingImages", ["s3:ListBucket"], [place.bucket(name) for name in buckets]),
    ]


def answer_devices(place: Place) -> list[Statement]:
    """Send results to devices, and nothing else: each device reads its own topic alone."""
    topics = f"arn:{place.partition}:iot:{place.region}:{place.account}:topic/{results_topic('*')}"
    return [
        allow("AnswerDevices", ["iot:Publish"], [topics]),
        allow("FindDevicesEndpoint", ["iot:DescribeEndpoint"], ["*"]),
    ]
