"""The books of the emulated EC2: which instances of the fleet run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import boto3

from facerec.aws.clients import translated
from facerec.fleet import FLEET_TAG

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef


def emulated_ec2(variables: Mapping[str, str]) -> "EC2Client":
    """A client of the EC2 that a local system's variables lead to, whatever this process's own lead to."""
    session = boto3.Session(
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
    return session.client("ec2", endpoint_url=variables["AWS_ENDPOINT_URL"])


def running_instances(ec2: "EC2Client", prefix: str, *, pending: bool = False) -> dict[str, str]:
    """The names of the fleet's running (and `pending`) instances by their ids; raises `Transient`."""
    states = ["pending", "running"] if pending else ["running"]
    with translated("read the emulated EC2's instances"):
        pages = ec2.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": f"tag:{FLEET_TAG}", "Values": [prefix]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
    return {one["InstanceId"]: _name(one) for one in found}


def _name(instance: "InstanceTypeDef") -> str:
    """The instance's name, which it gets a moment after its launch; its id until then."""
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return tags.get("Name", instance["InstanceId"])
