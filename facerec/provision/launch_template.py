"""Creates the EC2 launch template of the app tier's instances, or adds a version if it differs; idempotent.

The autoscaler launches from the default version. Subnets and further instance types are its choice at each launch, so
they are not in the template, and no change of theirs makes a version.
"""

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError
from facerec.messages import FLEET_TAG
from facerec.provision.resources import Resource, State
from facerec.provision.user_data import user_data
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        ImageTypeDef,
        LaunchTemplateTypeDef,
        LaunchTemplateVersionTypeDef,
        RequestLaunchTemplateDataTypeDef,
        TagTypeDef,
    )

_ABSENT = frozenset({"InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.NotFoundException"})


def provision_launch_template(clients: Clients, settings: Settings, image_id: str) -> Resource:
    """Make the template's default version launch this image as the settings want it.

    Raises `ConfigurationError` where the image does not exist or does not fit, or the template is someone else's.
    """
    name, ec2 = settings.launch_template, clients.ec2
    template = Resource("launch template", name)
    with translated(f"provision launch template {name!r}"):
        wanted = template_data(settings, _fitting_image(clients, image_id, settings.instances.volume_gb))
        stamp = _stamp(wanted)
        found = _found(clients, name)
        if found is None:
            try:
                ec2.create_launch_template(
                    LaunchTemplateName=name,
                    VersionDescription=stamp,
                    LaunchTemplateData=wanted,
                    TagSpecifications=[{"ResourceType": "launch-template", "Tags": _tags(settings)}],
                )
            except ClientError as exc:
                if exc.response["Error"]["Code"] != "InvalidLaunchTemplateName.AlreadyExistsException":
                    raise
                found = _found(clients, name)  # another provisioning has just created it
        if found is None:
            template.state = State.CREATED
            return template
        if {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}.get(FLEET_TAG) != settings.prefix:
            raise ConfigurationError(
                f"launch template {name!r} exists without the tag {FLEET_TAG}={settings.prefix}, so it is not ours; "
                "choose another name with FACEREC_NAMES__LAUNCH_TEMPLATE or FACEREC_PREFIX"
            )
        alike = [version for version in _versions(clients, name) if version.get("VersionDescription") == stamp]
        if not any(version["DefaultVersion"] for version in alike):
            # An equal former version is used again, so that changes back and forth add no versions.
            version = alike[0] if alike else _new_version(clients, name, stamp, wanted)
            ec2.modify_launch_template(LaunchTemplateName=name, DefaultVersion=str(version["VersionNumber"]))
            template.touched()
    return template


def template_data(settings: Settings, image: "ImageTypeDef") -> "RequestLaunchTemplateDataTypeDef":
    """Return the content of the template, as EC2 takes it."""
    instances = settings.instances
    spot = instances.purchase == "spot"
    content: RequestLaunchTemplateDataTypeDef = {
        "ImageId": image["ImageId"],
        "InstanceType": cast("Any", instances.types[0]),
        # Only version 2 of the metadata service; its replies do not leave the instance.
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {
                "DeviceName": image["RootDeviceName"],
                "Ebs": {
                    "VolumeSize": instances.volume_gb,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        # Workers report to the autoscaler every second, so that detailed monitoring would be a useless cost.
        "Monitoring": {"Enabled": False},
        # A spot instance cannot be stopped, and an instance that shuts itself down should not stay.
        "InstanceInitiatedShutdownBehavior": "terminate" if spot else "stop",
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": _tags(settings)},
            {"ResourceType": "volume", "Tags": _tags(settings)},
        ],
        "UserData": base64.b64encode(user_data(settings).encode()).decode(),
    }
    if instances.security_group_ids:
        content["SecurityGroupIds"] = list(instances.security_group_ids)
    if instances.profile is not None:
        content["IamInstanceProfile"] = {"Name": instances.profile}
    if instances.key_name is not None:
        content["KeyName"] = instances.key_name
    if spot:
        content["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    return content


def _stamp(content: "RequestLaunchTemplateDataTypeDef") -> str:
    # A version never changes, so that the hash in its description identifies its content.
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"facerec provision, content {digest[:32]}"


def _tags(settings: Settings) -> "list[TagTypeDef]":
    return [{"Key": FLEET_TAG, "Value": settings.prefix}]


def _fitting_image(clients: Clients, image_id: str, volume_gb: int) -> "ImageTypeDef":
    missing = ConfigurationError(
        f"there is no AMI {image_id!r} in this region for this account; check FACEREC_INSTANCES__IMAGE_ID"
    )
    try:
        images = clients.ec2.describe_images(ImageIds=[image_id])["Images"]
    except ClientError as exc:
        if exc.response["Error"]["Code"].startswith("InvalidAMIID"):
            raise missing from exc
        raise
    if not images:
        raise missing
    (image,) = images
    volumes = {mapping["DeviceName"]: mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", [])}
    least = volumes.get(image["RootDeviceName"], {}).get("VolumeSize", 0)
    if least > volume_gb:
        raise ConfigurationError(
            f"AMI {image_id!r} needs {least} GB, more than FACEREC_INSTANCES__VOLUME_GB ({volume_gb}); raise that"
        )
    return image


def _found(clients: Clients, name: str) -> "LaunchTemplateTypeDef | None":
    try:
        templates = clients.ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _ABSENT:
            return None
        raise
    return templates[0] if templates else None


def _versions(clients: Clients, name: str) -> "list[LaunchTemplateVersionTypeDef]":
    pages = clients.ec2.get_paginator("describe_launch_template_versions").paginate(LaunchTemplateName=name)
    return [version for page in pages for version in page["LaunchTemplateVersions"]]


def _new_version(
    clients: Clients, name: str, stamp: str, content: "RequestLaunchTemplateDataTypeDef"
) -> "LaunchTemplateVersionTypeDef":
    return clients.ec2.create_launch_template_version(
        LaunchTemplateName=name, VersionDescription=stamp, LaunchTemplateData=content
    )["LaunchTemplateVersion"]
