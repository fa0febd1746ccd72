"""The roles' policies: what the code calls, on what it calls it, and nothing else."""

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from click.testing import CliRunner

from facerec.commands.provision import policies
from facerec.errors import FacerecError
from facerec.provision.iam_policies import ROLES, policy
from facerec.provision.iam_statements import WITHOUT_RESOURCES, Place
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import AwsSettings, InstancesSettings
from facerec.settings.tiers import WebSettings
from tests.support.iam import allowed
from tests.support.processes import CHECKOUT

ACCOUNT = "123456789012"
PLACE = Place(Settings(), ACCOUNT)
EC2 = f"arn:aws:ec2:us-east-1:{ACCOUNT}"

ALL: frozenset[str] = frozenset()
"""All operations that a module calls."""

CALLS: dict[str, dict[str, frozenset[str] | set[str]]] = {
    "web": {
        "facerec/aws/object_store.py": {"put_object", "get_object", "list_objects_v2", "delete_object"},
        "facerec/aws/sqs/queue.py": {
            "create_queue",
            "get_queue_url",
            "get_queue_attributes",
            "send_message",
            "receive_message",
            "delete_message_batch",
            "change_message_visibility_batch",
        },
        "facerec/aws/sqs/pending.py": ALL,
        "facerec/aws/sqs/response_queues.py": ALL,
        "facerec/aws/dynamodb/__init__.py": ALL,
        "facerec/aws/dynamodb/collection_changes.py": ALL,
        "facerec/aws/dynamodb/people.py": ALL,
        "facerec/aws/dynamodb/collections.py": ALL,
        "facerec/aws/dynamodb/person_records.py": ALL,
        "facerec/aws/dynamodb/sessions.py": ALL,
        "facerec/aws/dynamodb/jobs.py": ALL,
        "facerec/aws/dynamodb/erasures.py": ALL,
        "facerec/aws/dynamodb/accesses.py": ALL,
    },
    "worker": {
        "facerec/aws/sqs/queue.py": {
            "get_queue_url",
            "get_queue_attributes",
            "send_message",
            "send_message_batch",
            "receive_message",
            "delete_message_batch",
            "change_message_visibility_batch",
        },
        "facerec/aws/quick_calls.py": ALL,
        "facerec/aws/object_store.py": {"put_object", "get_object", "list_objects_v2", "delete_object"},
        "facerec/aws/dynamodb/__init__.py": ALL,
        "facerec/aws/dynamodb/collection_changes.py": ALL,
        "facerec/aws/dynamodb/templates.py": ALL,
        "facerec/aws/dynamodb/worker_reports.py": {"update_item", "describe_table"},
        "facerec/aws/dynamodb/erasures.py": {"put_item", "delete_item"},
    },
    "detection": {
        "facerec/aws/sqs/queue.py": {
            "get_queue_url",
            "send_message",
            "send_message_batch",
            "change_message_visibility_batch",
        },
        "facerec/aws/object_store.py": {"put_object", "get_object"},
    },
    "recognition": {
        "facerec/aws/sqs/queue.py": {
            "get_queue_url",
            "send_message",
            "send_message_batch",
            "change_message_visibility_batch",
        },
        "facerec/aws/object_store.py": {"put_object", "get_object", "list_objects_v2"},
        "facerec/aws/dynamodb/__init__.py": {"get_item", "query", "batch_get_item"},
        "facerec/aws/clients.py": {"describe_endpoint"},
        "facerec/aws/iot_data.py": {"publish"},
    },
    "edge-device": {},
    "edge-operator": {
        "facerec/aws/clients.py": {"describe_endpoint"},
        "facerec/aws/sqs/queue.py": {"get_queue_attributes", "get_queue_url"},
        "facerec/provision/cloudformation.py": ALL,
        "facerec/provision/edge/deployment.py": ALL,
        "facerec/provision/edge/rules_deployment.py": ALL,
        "facerec/provision/edge/things.py": ALL,
        "facerec/provision/edge/token_exchange.py": ALL,
    },
    "edge-rules": {},
    "flower": {
        "facerec/aws/sqs/queue.py": {
            "get_queue_url",
            "get_queue_attributes",
            "receive_message",
            "delete_message_batch",
        },
        "facerec/aws/sqs/response_queues.py": {"list_queues"},
        "facerec/flower/application.py": ALL,
    },
    "autoscaler": {
        "facerec/aws/sqs/queue.py": {"get_queue_attributes", "get_queue_url"},
        "facerec/aws/dynamodb/__init__.py": {"get_item", "query", "batch_get_item"},
        "facerec/aws/dynamodb/worker_reports.py": ALL,
        "autoscale/aws/backlog.py": ALL,
        "facerec/aws/dynamodb/fleet_history.py": ALL,
        "autoscale/aws/ec2.py": ALL,
        "autoscale/aws/launch_slots.py": ALL,
        "autoscale/aws/lease.py": ALL,
        "autoscale/process.py": ALL,
    },
    "operator": {
        "facerec/aws/dynamodb/jobs.py": {"batch_write_item"},
        "facerec/aws/object_store.py": ALL,
        "facerec/aws/sqs/queue.py": {
            "get_queue_url",
            "get_queue_attributes",
            "send_message",
            "receive_message",
            "delete_message_batch",
            "change_message_visibility_batch",
        },
        "facerec/aws/dynamodb/__init__.py": ALL,
        "facerec/aws/dynamodb/collection_changes.py": ALL,
        "facerec/aws/dynamodb/templates.py": ALL,
        "facerec/aws/dynamodb/person_records.py": ALL,
        "facerec/aws/sqs/dead_letter_queue.py": ALL,
        "facerec/aws/sqs/pending.py": ALL,
        "facerec/aws/dynamodb/erasures.py": ALL,
        "facerec/aws/dynamodb/accesses.py": ALL,
        "facerec/aws/dynamodb/api_keys.py": ALL,
        "facerec/aws/dynamodb/worker_reports.py": {"describe_table"},
        "autoscale/aws/backlog.py": ALL,
        "autoscale/aws/ec2.py": {"describe_instances", "describe_instance_status", "describe_launch_templates"},
    },
    "provisioner": {
        "facerec/aws/sqs/queue.py": {"create_queue", "get_queue_attributes", "get_queue_url"},
        "facerec/provision/buckets.py": ALL,
        "facerec/provision/provisioning.py": ALL,
        "facerec/provision/launch_template.py": ALL,
    },
    "serverless-caller": {},
    "serverless-deployer": {
        "facerec/aws/sqs/queue.py": {"get_queue_attributes", "get_queue_url"},
        "facerec/provision/cloudformation.py": ALL,
        "facerec/provision/image_push.py": ALL,
        "facerec/provision/serverless_deployment.py": ALL,
    },
}
"""Which modules a role's commands run, and which of their operations where they have more than it needs."""

FOR_LAMBDA = (
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "s3:ListBucket",  # as a worker
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
)
"""What Lambda does with a function's role: it receives the messages, and writes logs and traces."""

_FOR_CLOUDFORMATION = {
    "cloudwatch": "DeleteAlarms DescribeAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource",
    "ecr": (
        "CreateRepository DeleteLifecyclePolicy DeleteRepository DeleteRepositoryPolicy DescribeRepositories "
        "GetLifecyclePolicy GetRepositoryPolicy ListTagsForResource PutImageScanningConfiguration "
        "PutImageTagMutability PutLifecyclePolicy SetRepositoryPolicy TagResource UntagResource"
    ),
    "iam": (
        "CreateRole DeleteRole DeleteRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies "
        "PassRole PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole"
    ),
    "lambda": (
        "AddPermission CreateAlias CreateEventSourceMapping CreateFunction CreateFunctionUrlConfig DeleteAlias "
        "DeleteEventSourceMapping DeleteFunction DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig "
        "DeleteFunctionUrlConfig GetAlias GetEventSourceMapping GetFunctionCodeSigningConfig "
        "GetFunctionConfiguration GetFunctionEventInvokeConfig GetFunctionRecursionConfig GetFunctionScalingConfig "
        "GetFunctionUrlConfig GetPolicy GetProvisionedConcurrencyConfig GetRuntimeManagementConfig ListTags "
        "ListVersionsByFunction PublishVersion PutFunctionConcurrency PutFunctionEventInvokeConfig RemovePermission "
        "TagResource UntagResource UpdateAlias UpdateEventSourceMapping UpdateFunctionCode "
        "UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig UpdateFunctionUrlConfig"
    ),
    "logs": (
        "CreateLogGroup DeleteDataProtectionPolicy DeleteLogGroup DescribeIndexPolicies DescribeLogGroups "
        "DescribeResourcePolicies GetDataProtectionPolicy ListTagsForResource PutRetentionPolicy TagResource "
        "UntagResource"
    ),
}
_FOR_RULES = {
    "cloudwatch": _FOR_CLOUDFORMATION["cloudwatch"],
    "iam": _FOR_CLOUDFORMATION["iam"],
    "iot": (
        "CreateTopicRule DeleteTopicRule GetTopicRule ListTagsForResource ReplaceTopicRule TagResource UntagResource"
    ),
}
FOR_RULES = {f"{service}:{name}" for service, names in _FOR_RULES.items() for name in names.split()}
FOR_CLOUDFORMATION = {f"{service}:{name}" for service, names in _FOR_CLOUDFORMATION.items() for name in names.split()}
"""What CloudFormation calls for the resources of the templates, with the permissions of who deploys."""
FOR_PUSHES = frozenset(
    f"ecr:{name}"
    for name in (
        "BatchCheckLayerAvailability",
        "CompleteLayerUpload",
        "GetDownloadUrlForLayer",
        "InitiateLayerUpload",
        "PutImage",
        "UploadLayerPart",
    )
)
"""What AWS asks for when a tool pushes an image."""

FOR_ARCHIVES = {"s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"}
"""What the upload of a component's archive needs; Greengrass reads it with the permissions of who deploys, too."""
FOR_DEPLOYMENTS = {
    f"iot:{name}"
    for name in ("CancelJob", "CreateJob", "DescribeJob", "GetThingShadow", "UpdateJob", "UpdateThingShadow")
}
"""What Greengrass calls for a deployment, with the permissions of who deploys."""

BEYOND_CALLS = {
    # What AWS asks for beside the calls that are made.
    "autoscaler": {"iam:PassRole"},
    "detection": {*FOR_LAMBDA},
    "edge-device": {"s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"},  # the nucleus, and `facerec model pull`
    "edge-operator": FOR_RULES | FOR_ARCHIVES | FOR_DEPLOYMENTS,
    "edge-rules": {"sqs:SendMessage"},
    "recognition": {*FOR_LAMBDA},
    "provisioner": {"ec2:CreateTags"},
    "operator": {"s3:AbortMultipartUpload"},  # boto3 ends a failed upload of a large snapshot with it
    "serverless-caller": {"lambda:InvokeFunction", "lambda:InvokeFunctionUrl"},
    "web": {"s3:AbortMultipartUpload"},  # of a large zip, as above
    "serverless-deployer": FOR_CLOUDFORMATION | FOR_PUSHES,
}

IN_S3 = {
    "head_bucket": "ListBucket",
    "list_objects_v2": "ListBucket",
    "head_object": "GetObject",
    "get_bucket_notification_configuration": "GetBucketNotification",
    "put_bucket_notification_configuration": "PutBucketNotification",
    "get_public_access_block": "GetBucketPublicAccessBlock",
    "put_public_access_block": "PutBucketPublicAccessBlock",
    "get_bucket_encryption": "GetEncryptionConfiguration",
    "put_bucket_encryption": "PutEncryptionConfiguration",
    "get_bucket_lifecycle_configuration": "GetLifecycleConfiguration",
    "put_bucket_lifecycle_configuration": "PutLifecycleConfiguration",
}
"""Where the permission has another name than the operation."""

TRANSACTED = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}


FIRST = {"facerec/provision/edge/things.py": "iot"}
"""The service of a module whose operations have the names of another service's, too."""


@cache
def operations(first: str = "s3") -> dict[str, str]:
    """Every operation of the services that we use, by its name in Python, with its permission."""
    session = botocore.session.Session()
    found: dict[str, str] = {}
    for service in (
        first,
        "s3",
        "sqs",
        "dynamodb",
        "ec2",
        "cloudwatch",
        "cloudformation",
        "ecr",
        "lambda",
        "iam",
        "iot",
        "greengrassv2",
        "iot-data",
    ):
        for name in session.get_service_model(service).operation_names:
            known = IN_S3.get(xform_name(name), name) if service == "s3" else name
            granted = known.removesuffix("Batch") if service == "sqs" else known
            found.setdefault(xform_name(name), f"{service.removesuffix('-data').removesuffix('v2')}:{granted}")
    return found


@cache
def called(module: str) -> frozenset[str]:
    """The operations that a module calls, those of a transaction by their names in it."""
    found = set()
    for node in ast.walk(ast.parse((CHECKOUT / module).read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="get_paginator"), args=[ast.Constant(value=str(name))]):
                found.add(name)
            case ast.Attribute(value=ast.Attribute(attr="iot_data"), attr=name):  # the one operation of one word
                found.add(name)
            case ast.Attribute(attr=name) if "_" in name and name in operations():
                found.add(name)
            case ast.Dict(keys=[ast.Constant(value=str(name)), *_]) if name in TRANSACTED:
                found.add(xform_name(TRANSACTED[name]))
    return frozenset(found - {"transact_write_items"})


def permission(operation: str, module: str) -> str:
    """What must be granted for it."""
    return operations(FIRST.get(module, "s3")).get(operation, "dynamodb:ConditionCheckItem")


def granted(role: str) -> set[str]:
    """Every action of a role's policy."""
    return {action for statement in ROLES[role](PLACE) for action in statement["Action"]}


@pytest.mark.parametrize("role", sorted(CALLS))
def test_a_role_may_do_what_its_code_calls_and_nothing_else(role: str) -> None:
    """Read from the code: a new call fails here until it is granted, a call that goes takes its permission along."""
    needed = {permission(name, module) for module, chosen in CALLS[role].items() for name in chosen or called(module)}
    assert granted(role) == needed | BEYOND_CALLS.get(role, set())


def test_no_call_is_nobodys() -> None:
    """Every operation of every adapter is some role's."""
    modules = [str(path.relative_to(CHECKOUT)) for tier in ("facerec", "autoscale") for path in _adapters(tier)]
    for module in modules:
        by_roles = set().union(
            *(calls.get(module, set()) or called(module) for calls in CALLS.values() if module in calls)
        )
        assert called(module) == by_roles, module
    for calls in CALLS.values():
        for module, chosen in calls.items():
            assert chosen <= called(module), module


def _adapters(tier: str) -> list[Path]:
    return sorted((CHECKOUT / tier / "aws").glob("*.py"))


def test_the_policies_in_deploy_are_those_of_the_default_names() -> None:
    """`make docs` brings them up to date."""
    folder = CHECKOUT / "deploy" / "iam"
    written = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert written == {role: policy(role, PLACE) for role in ROLES}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the option that chose it, and no traceback."""
    folder = tmp_path / "file" / "iam"
    folder.parent.write_text("")
    with pytest.raises(FacerecError, match=r"cannot write to .*/file/iam: .* see --write"):
        CliRunner().invoke(policies, ["--account", ACCOUNT, "--write", str(folder)], catch_exceptions=False)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_nothing_is_granted_at_large(role: str) -> None:
    """No wildcard among the actions; `*` as a resource only where AWS knows no other; small enough for IAM."""
    document = policy(role, PLACE)
    for statement in document["Statement"]:
        assert not [action for action in statement["Action"] if "*" in action]
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= set(WITHOUT_RESOURCES)
        assert [arn for arn in statement["Resource"] if arn != "*" and not arn.startswith("arn:aws:")] == []
    sids = [statement["Sid"] for statement in document["Statement"]]
    assert len(sids) == len(set(sids))
    assert all(sid.isalnum() for sid in sids)
    assert len(json.dumps(document, separators=(",", ":"))) <= 6_144  # IAM's limit of a managed policy


def test_every_exception_is_used() -> None:
    """An action that nobody is granted needs no reason."""
    assert set(WITHOUT_RESOURCES) <= set().union(*map(granted, ROLES))


def launch(resource: str, **context: str) -> str | None:
    """The statement that lets the autoscaler launch with this resource."""
    found: dict[str, Any] = {f"ec2:{key}": value for key, value in context.items() if key != "tag"}
    if "tag" in context:
        found |= {f"aws:{kind}/facerec:fleet": context["tag"] for kind in ("RequestTag", "ResourceTag")}
    return allowed(policy("autoscaler", PLACE), "ec2:RunInstances", resource, found)


def test_the_autoscaler_launches_from_its_fleets_template_alone() -> None:
    """With the fleet's tag, and nothing that a template does not name but the subnet."""
    template = f"{EC2}:launch-template/lt-1"
    image = "arn:aws:ec2:us-east-1::image/ami-1"
    assert launch(template, tag="facerec")
    assert not launch(template, tag="another")
    assert launch(f"{EC2}:instance/*", LaunchTemplate=template, tag="facerec")
    assert not launch(f"{EC2}:instance/*", LaunchTemplate=template)
    assert not launch(f"{EC2}:instance/*", tag="facerec")
    assert launch(image, LaunchTemplate=template, IsLaunchTemplateResource="true")
    assert not launch(image, LaunchTemplate=template, IsLaunchTemplateResource="false")
    assert launch(f"{EC2}:subnet/subnet-1", LaunchTemplate=template)
    assert not launch(f"{EC2}:subnet/subnet-1")


@pytest.mark.parametrize("action", ["StartInstances", "StopInstances", "TerminateInstances"])
def test_the_autoscaler_ends_instances_of_its_fleet_alone(action: str) -> None:
    """By their tag, which it may give to nothing that exists."""
    document, instance = policy("autoscaler", PLACE), f"{EC2}:instance/i-1"
    ours = {"aws:ResourceTag/facerec:fleet": "facerec"}
    assert allowed(document, f"ec2:{action}", instance, ours)
    assert not allowed(document, f"ec2:{action}", instance, {"aws:ResourceTag/facerec:fleet": "another"})
    assert not allowed(document, f"ec2:{action}", instance)
    assert allowed(document, "ec2:CreateTags", instance, ours | {"aws:TagKeys": ["Name"]})
    assert not allowed(document, "ec2:CreateTags", instance, ours | {"aws:TagKeys": ["Name", "facerec:fleet"]})
    assert not allowed(document, "ec2:CreateTags", instance, {"aws:TagKeys": ["facerec:fleet"]})


def test_the_autoscaler_passes_one_role_to_ec2() -> None:
    """To nothing else, and no other one."""
    settings = Settings(instances=InstancesSettings(profile="workers"))
    document = policy("autoscaler", Place(settings, ACCOUNT))
    to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert allowed(document, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/workers", to_ec2)
    assert not allowed(document, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", to_ec2)
    assert not allowed(document, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/workers")


def test_a_worker_writes_its_report_and_not_the_lease() -> None:
    """Nor another instance's report, nor an order to drain: they are in the same table."""
    document, table = policy("worker", PLACE), f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/facerec-fleet"
    own, other = f"{EC2}:instance/i-1", f"{EC2}:instance/i-2"

    def may(action: str, key: str, instance: str = own) -> bool:
        context: dict[str, str | list[str]] = {"dynamodb:LeadingKeys": [key], "ec2:SourceInstanceARN": instance}
        return allowed(document, f"dynamodb:{action}", table, context) is not None

    assert may("UpdateItem", own)
    assert may("GetItem", "drain")
    for key in (other, "worker", "drain", "lease", "number", "record#2026-11-30"):
        assert not may("UpdateItem", key)
    for action in ("PutItem", "DeleteItem", "BatchWriteItem", "ConditionCheckItem", "Query", "Scan"):
        assert not may(action, own)
    elsewhere = {"dynamodb:LeadingKeys": [own]}
    assert not allowed(document, "dynamodb:UpdateItem", table, elsewhere)  # no instance signs the request


def test_a_signed_call_of_the_url_is_the_only_way_in() -> None:
    """A caller needs both permissions, and neither lets it invoke the function directly, or call an open URL."""
    document = policy("serverless-caller", PLACE)
    for name in ("facerec-face-detection", "facerec-face-detection:live"):
        arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
        assert allowed(document, "lambda:InvokeFunctionUrl", arn, {"lambda:FunctionUrlAuthType": "AWS_IAM"})
        assert allowed(document, "lambda:InvokeFunction", arn, {"lambda:InvokedViaFunctionUrl": "true"})
        assert not allowed(document, "lambda:InvokeFunction", arn)
    other = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:facerec-face-recognition"
    assert not allowed(document, "lambda:InvokeFunctionUrl", other, {"lambda:FunctionUrlAuthType": "AWS_IAM"})


def test_deployer_tags_event_sources_and_changes_those_of_the_functions_alone() -> None:
    """CloudFormation tags each of them; IAM knows no condition on the function for that."""
    document = policy("serverless-deployer", PLACE)
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:event-source-mapping:0123"
    function = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"
    assert allowed(document, "lambda:TagResource", arn)
    assert not allowed(document, "lambda:UpdateEventSourceMapping", arn, {"lambda:FunctionArn": f"{function}theirs"})
    ours = {"lambda:FunctionArn": f"{function}facerec-face-detection"}
    assert allowed(document, "lambda:UpdateEventSourceMapping", arn, ours)


def test_a_function_reads_and_writes_its_half_alone() -> None:
    """Detection knows no gallery; recognition takes no tasks; neither reads enrolled photos."""
    detection, recognition = policy("detection", PLACE), policy("recognition", PLACE)
    queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:facerec-"
    templates = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/facerec-templates"
    assert allowed(detection, "sqs:ReceiveMessage", f"{queue}req-queue")
    assert allowed(detection, "sqs:SendMessage", f"{queue}faces-queue")
    assert not allowed(detection, "sqs:ReceiveMessage", f"{queue}faces-queue")
    assert not allowed(detection, "dynamodb:Query", templates)
    assert allowed(recognition, "sqs:ReceiveMessage", f"{queue}faces-queue")
    assert not allowed(recognition, "sqs:ReceiveMessage", f"{queue}req-queue")
    assert allowed(recognition, "dynamodb:Query", templates)
    assert not allowed(recognition, "s3:PutObject", "arn:aws:s3:::facerec-in-bucket/key")
    for document in (detection, recognition):
        assert not allowed(document, "s3:GetObject", "arn:aws:s3:::facerec-gallery-bucket/default/photo.jpg")
        own, other = ("detection", "recognition") if document is detection else ("recognition", "detection")
        logs = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/lambda/facerec-face-"
        assert allowed(document, "logs:PutLogEvents", f"{logs}{own}:log-stream:x")
        assert not allowed(document, "logs:PutLogEvents", f"{logs}{other}:log-stream:x")


def test_settings_narrow_and_widen_what_is_granted() -> None:
    """What the template names is named, spot needs one more permission, and so does a package."""
    instances = InstancesSettings(
        image_id="ami-1",
        security_group_ids=("sg-1",),
        subnet_ids=("subnet-1",),
        purchase="spot",
        package=f"s3://releases/1.0/facerec.whl#sha256={'0' * 64}",
    )
    settings = Settings(prefix="acme", instances=instances, aws=AwsSettings(region="cn-north-1"))
    place = Place(settings, ACCOUNT)
    written = json.dumps(policy("autoscaler", place))
    for name in (
        "image/ami-1",
        "security-group/sg-1",
        "subnet/subnet-1",
        "iam:CreateServiceLinkedRole",
        "role/acme-worker",
    ):
        assert name in written
    assert "arn:aws:" not in written
    worker = policy("worker", place)
    assert allowed(worker, "s3:GetObject", "arn:aws-cn:s3:::releases/1.0/facerec.whl")
    assert not allowed(worker, "s3:GetObject", "arn:aws-cn:s3:::releases/2.0/facerec.whl")
    assert not allowed(policy("worker", PLACE), "s3:DeleteBucket", "arn:aws:s3:::facerec-in-bucket")
    image = "arn:aws:s3:::photos/trips/1.jpg"
    reading = Place(Settings(web=WebSettings(image_buckets=("photos",))), ACCOUNT)
    assert allowed(policy("web", reading), "s3:GetObject", image)
    assert not allowed(policy("web", PLACE), "s3:GetObject", image)


def test_workers_take_faces_only_if_the_settings_say_so() -> None:
    """Their statements are those for photos; the autoscaler and Flower count the same queues."""
    with_edge = Place(Settings(edge=EdgeSettings(enabled=True)), ACCOUNT)
    granted_with_edge = {
        ("worker", "ReceiveMessage", "facerec-faces-queue"),
        ("worker", "DeleteMessage", "facerec-faces-queue"),
        ("worker", "ChangeMessageVisibility", "facerec-faces-queue"),
        ("worker", "SendMessage", "facerec-faces-queue-dlq"),
        ("autoscaler", "GetQueueAttributes", "facerec-faces-queue"),
        ("autoscaler", "GetQueueAttributes", "facerec-faces-queue-dlq"),
        ("flower", "GetQueueAttributes", "facerec-faces-queue"),
    }
    for role, action, queue in granted_with_edge:
        asked = f"sqs:{action}", f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queue}"
        assert allowed(policy(role, with_edge), *asked)
        assert not allowed(policy(role, PLACE), *asked)
    topic = f"arn:aws:iot:us-east-1:{ACCOUNT}:topic/facerec/camera-1"
    assert allowed(policy("worker", with_edge), "iot:Publish", f"{topic}/results")
    assert not allowed(policy("worker", with_edge), "iot:Publish", f"{topic}/faces")
    # The device or the detection function sends faces, never the worker.
    assert not allowed(
        policy("worker", with_edge), "sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:facerec-faces-queue"
    )


def test_another_deployment_is_out_of_reach() -> None:
    """One whose prefix begins like ours has other names."""
    for role in ("detection", "recognition", "web", "worker"):
        for action in granted(role) - set(WITHOUT_RESOURCES):
            for name in ("sqs:us-east-1:123456789012:facerec2-resp-queue", "s3:::facerec2-in-bucket/key"):
                assert not allowed(policy(role, PLACE), action, f"arn:aws:{name}")
