"""The role that a Greengrass device gets for its certificate, and the alias under which it asks for it."""

import json
from typing import Any

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.provision.iam_edge import device_role, edge_device
from facerec.provision.iam_statements import Place
from facerec.provision.resources import Resource, State, settle
from facerec.settings import Settings

_POLICY = "facerec"


def ensure_role(clients: Clients, settings: Settings, account: str) -> Resource:
    """Create or repair the role, which AWS IoT's credentials provider alone may assume."""
    iam, name = clients.iam, device_role(settings)
    place = Place(settings, account)
    trusted = _document(
        {
            "Effect": "Allow",
            "Principal": {"Service": "credentials.iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": account},
                "ArnLike": {"aws:SourceArn": place.iot("rolealias", name)},
            },
        }
    )
    granted = _document(*edge_device(place))
    resource = Resource("role", name)
    with translated(f"provision role {name!r}"):
        try:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trusted))
            resource.state = State.CREATED
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "EntityAlreadyExists":
                raise
        settle(
            resource,
            "its trust",
            read=lambda: iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"],
            absent="NoSuchEntity",
            fits=lambda found: _same(found, trusted),
            write=lambda _: iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trusted)),
        )
        settle(
            resource,
            "its policy",
            read=lambda: iam.get_role_policy(RoleName=name, PolicyName=_POLICY)["PolicyDocument"],
            absent="NoSuchEntity",
            fits=lambda found: _same(found, granted),
            write=lambda _: iam.put_role_policy(RoleName=name, PolicyName=_POLICY, PolicyDocument=json.dumps(granted)),
        )
    return resource


def ensure_alias(clients: Clients, settings: Settings, account: str) -> Resource:
    """Create or repair the alias of the role."""
    iot, name = clients.iot, device_role(settings)
    arn = Place(settings, account).role(name)
    resource = Resource("role alias", name)

    def write(found: Any) -> None:
        if found is None:
            iot.create_role_alias(roleAlias=name, roleArn=arn)
            resource.state = State.CREATED
        else:
            iot.update_role_alias(roleAlias=name, roleArn=arn)

    def read() -> Any:
        try:
            return iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
        except ClientError as exc:
            # For a name that is right, AWS never answers so; ministack does, to what it does not have.
            if exc.response["Error"]["Code"] == "InvalidRequestException":
                exc.response["Error"]["Code"] = "UnsupportedOperation"
            raise

    with translated(f"provision role alias {name!r}"):
        settle(
            resource,
            "role aliases",
            read=read,
            absent="ResourceNotFoundException",
            fits=lambda found: found["roleArn"] == arn,
            write=write,
        )
    return resource


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _same(found: Any, wanted: dict[str, Any]) -> bool:
    """Whether a document is as wanted; botocore decodes it, or leaves it as text."""
    return bool((json.loads(found) if isinstance(found, str) else found) == wanted)
