"""The role of Greengrass devices and its alias, in moto alone: the other emulator knows no role aliases."""

import json
from typing import Any

import pytest
from moto import mock_aws

from facerec.aws.clients import Clients
from facerec.provision.edge.token_exchange import ensure_alias, ensure_role
from facerec.provision.iam_edge import IOT_POLICY_BYTES, device_role, edge_device, nucleus_policy, thing_policy
from facerec.provision.iam_statements import Place
from facerec.provision.resources import State
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings

ACCOUNT = "123456789012"
NOTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}],
}


def test_greengrass_device_can_exchange_its_certificate_for_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once made, role and alias stay as they are; what somebody changed is repaired."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        settings = Settings(aws=AwsSettings())
        clients, name = Clients(settings), device_role(settings)
        for expected in (State.CREATED, State.UNCHANGED):
            assert ensure_role(clients, settings, ACCOUNT).state is expected
            assert ensure_alias(clients, settings, ACCOUNT).state is expected
        clients.iam.put_role_policy(RoleName=name, PolicyName="facerec", PolicyDocument=json.dumps(NOTHING))
        clients.iot.update_role_alias(roleAlias=name, roleArn="arn:aws:iam::123456789012:role/another")
        assert ensure_role(clients, settings, ACCOUNT).state is State.UPDATED
        assert ensure_alias(clients, settings, ACCOUNT).state is State.UPDATED
        alias = clients.iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
        role: Any = clients.iam.get_role(RoleName=name)["Role"]
        granted: Any = clients.iam.get_role_policy(RoleName=name, PolicyName="facerec")["PolicyDocument"]
    place = Place(settings, ACCOUNT)
    assert alias["roleArn"] == role["Arn"]
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "credentials.iot.amazonaws.com"}
    assert trust["Condition"]["ArnLike"] == {"aws:SourceArn": place.iot("rolealias", name)}
    assert granted["Statement"] == edge_device(place)


def test_only_a_greengrass_thing_may_exchange_its_certificate() -> None:
    """For the one role; a device without a nucleus has no credentials of AWS at all."""
    place = Place(Settings(), ACCOUNT)
    plain = json.dumps(thing_policy(place, "gate"))
    assert "AssumeRole" not in plain
    assert "*" not in plain
    statements = nucleus_policy(place, "gate")["Statement"]
    [exchange] = [one for one in statements if one["Action"] == ["iot:AssumeRoleWithCertificate"]]
    assert exchange["Resource"] == [f"arn:aws:iot:us-east-1:{ACCOUNT}:rolealias/facerec-edge-device"]


def test_policies_of_the_longest_name_fit_into_aws_iot() -> None:
    """Its limit is small; white space does not count, and there is none."""
    place, longest = Place(Settings(), ACCOUNT), "x" * 100
    for policy in (thing_policy(place, longest), nucleus_policy(place, longest)):
        assert len(json.dumps(policy, separators=(",", ":"))) <= IOT_POLICY_BYTES
