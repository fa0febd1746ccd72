"""The words of IAM policies: where the resources are, and statements about them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from facerec.messages import FLEET_TAG
from facerec.settings import Settings

Statement = dict[str, Any]

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

    @cached_property
    def own_response_queues(self) -> str:
        """Those that single web processes make for themselves."""
        return f"{self.settings.response_queue}-*"

    @cached_property
    def fleet_tagged(self) -> dict[str, str]:
        """As a condition on what exists: it belongs to this fleet."""
        return {f"aws:ResourceTag/{FLEET_TAG}": self.settings.prefix}


def allow(
    sid: str, actions: Sequence[str], resources: Sequence[str], condition: dict[str, Any] | None = None
) -> Statement:
    """One statement; `sid` says what for."""
    statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return statement if condition is None else statement | {"Condition": condition}
