"""The CloudFormation templates of the app tier as Lambda functions, made from the settings. Pure.

The queues, buckets and tables are those of `facerec provision`: both app tiers use them, and they outlive the stacks.
The repository of the image is a stack of its own: the image is there before the functions, and stays without them.
"""

import json
from typing import Any

from facerec.errors import ConfigurationError
from facerec.provision.iam_policies import policy
from facerec.provision.iam_statements import HALVES, Half, Place, function_name, function_role, log_group
from facerec.provision.serverless_alarms import alarms
from facerec.provision.user_data import app_tier_variables
from facerec.settings import Settings

Template = dict[str, Any]
Resources = dict[str, Any]

IMAGE = "Image"
"""The parameter with the image's digest."""
MEMORY: dict[Half, str] = {"detection": "DetectionMemory", "recognition": "RecognitionMemory"}
"""The parameters with the functions' memory."""
LOGICAL: dict[Half, str] = {"detection": "Detection", "recognition": "Recognition"}
"""The functions' names within the template."""
ALIAS = "live"
"""The alias of the version that SnapStart has prepared; only functions from a ZIP have one."""
_ACCOUNT = "${AWS::AccountId}"
_IMAGES_KEPT = 10
_FREE_STORAGE_MB, _MOST_STORAGE_MB = 512, 10_240
_ENVIRONMENT_BYTES = 4096
"""Lambda's limit of all variables together."""
_ASYNCHRONOUS_SECONDS = 3600
_OF_FUNCTIONS_ALONE = ("FACEREC_WEB__MAX_UPLOAD_BYTES",)
"""What the functions read and no worker: they are the way in of URL calls and objects of the inbox."""
_MODEL = {"image": "/opt/facerec/model", "zip": "/var/task/artefact"}


def repository_template(settings: Settings) -> Template:
    """Return the template of the image repository."""
    # No tag is ever taken off an image, so that there are no untagged ones to expire.
    lifecycle = {
        "rulePriority": 1,
        "description": f"The last {_IMAGES_KEPT} images stay",
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": _IMAGES_KEPT},
        "action": {"type": "expire"},
    }
    place = Place(settings, _ACCOUNT)
    reading = {
        "Sid": "LambdaReadsImages",
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        "Condition": {"ArnLike": {"aws:SourceArn": [place.function(function_name(settings, half)) for half in HALVES]}},
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Images of the Lambda functions of {settings.prefix}",
        "Resources": {
            "Repository": {
                "Type": "AWS::ECR::Repository",
                "Properties": {
                    "RepositoryName": settings.prefix,
                    "ImageScanningConfiguration": {"ScanOnPush": True},
                    # A digest that was tested stays what its tag says.
                    "ImageTagMutability": "IMMUTABLE",
                    "LifecyclePolicy": {"LifecyclePolicyText": json.dumps({"rules": [lifecycle]})},
                    "RepositoryPolicyText": _substituted({"Version": "2012-10-17", "Statement": [reading]}),
                    # `facerec serverless remove --images` deletes the stack, and the images with it.
                    "EmptyOnDelete": True,
                },
            }
        },
        "Outputs": {"RepositoryUri": {"Value": {"Fn::GetAtt": ["Repository", "RepositoryUri"]}}},
    }


def functions_template(settings: Settings) -> Template:
    """Return the SAM template of both functions with their roles, logs, event sources and alarms.

    Raises `ConfigurationError` for settings that do not fit into a function's environment.
    """
    serverless = settings.serverless
    memory = {"detection": serverless.detection_memory_mb, "recognition": serverless.recognition_memory_mb}
    parameters: dict[str, Any] = {
        MEMORY[half]: {"Type": "Number", "Default": memory[half], "MinValue": 512, "MaxValue": 10_240}
        for half in HALVES
    }
    if serverless.code is None:
        parameters[IMAGE] = {
            "Type": "String",
            "AllowedPattern": "^[^@]+@sha256:[0-9a-f]{64}$",
            "Description": "The image by its digest, as `facerec serverless push` prints it",
        }
    resources: Resources = {}
    for half in HALVES:
        resources |= _function(settings, half)
    if serverless.inbox_prefix:
        resources["InboxPermission"] = _inbox_permission(settings)
    resources |= alarms(settings)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": f"The app tier of {settings.prefix} as Lambda functions",
        "Parameters": parameters,
        "Resources": resources,
        "Outputs": {"DetectionUrl": {"Value": {"Fn::GetAtt": ["DetectionUrl", "FunctionUrl"]}}},
    }


def function_environment(settings: Settings) -> dict[str, str]:
    """Return the functions' variables: the settings of the app tier, and where the model and its engine are.

    Raises `ConfigurationError` if they are too long for Lambda.
    """
    variables = app_tier_variables(settings, also=_OF_FUNCTIONS_ALONE)
    variables.pop("FACEREC_PRECISION", None)  # ONNX Runtime has fp32 alone
    variables.pop("FACEREC_APP_TIER", None)  # not read, and a move would replace every warm instance
    variables |= {
        "FACEREC_ENGINE": "onnxruntime",
        "FACEREC_MODEL__CACHE_DIR": "/tmp/facerec",  # noqa: S108 - the one folder where a function may write
        "FACEREC_MODEL__DIR": _MODEL["image" if settings.serverless.code is None else "zip"],
        "PYDANTIC_DISABLE_PLUGINS": "__all__",  # or it looks for them in every installed package, at each start
    }
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > _ENVIRONMENT_BYTES:
        raise ConfigurationError(
            f"the functions' settings have {size} bytes, and Lambda takes {_ENVIRONMENT_BYTES}: shorten them"
        )
    return variables


def _function(settings: Settings, half: Half) -> Resources:
    serverless, place, name = settings.serverless, Place(settings, _ACCOUNT), LOGICAL[half]
    properties: dict[str, Any] = {
        "FunctionName": function_name(settings, half),
        **_code(settings, half),
        "Architectures": [serverless.architecture],
        "MemorySize": {"Ref": MEMORY[half]},
        "Timeout": serverless.timeout_seconds,
        "EphemeralStorage": {"Size": _storage_mb(settings, half)},
        "Role": {"Fn::GetAtt": [f"{name}Role", "Arn"]},
        "Environment": {"Variables": function_environment(settings)},
        "LoggingConfig": {"LogGroup": {"Ref": f"{name}Logs"}},
        "Tracing": "Active",
    }
    if half == "detection":
        properties["FunctionUrlConfig"] = {"AuthType": "AWS_IAM" if serverless.url_auth == "iam" else "NONE"}
        # Lambda ends a loop of a function through its own queue after 16 rounds. The detection function sends a stale
        # task to its own queue again six times at most, so that the default is right.
        properties["Events"] = {
            "Tasks": _event_source(settings, settings.request_queue, enabled=settings.app_tier != "ec2")
        }
        if serverless.reserved_concurrency is not None:
            properties["ReservedConcurrentExecutions"] = serverless.reserved_concurrency
        if serverless.inbox_prefix:
            failed = {"Type": "SQS", "Destination": _substituted(place.queue(settings.dead_letter_queue))}
            properties["EventInvokeConfig"] = {
                "MaximumEventAgeInSeconds": _ASYNCHRONOUS_SECONDS,
                "MaximumRetryAttempts": 2,
                "DestinationConfig": {"OnFailure": failed},
            }
    else:
        properties["Events"] = {"Faces": _event_source(settings, settings.faces_queue, enabled=True)}
    function = {"Type": "AWS::Serverless::Function", "Properties": properties}
    if serverless.code is not None:
        # For the versions, too: SAM's default keeps all former ones, and the snapshot of each is paid for by the hour.
        function["DeletionPolicy"] = "Delete"
    return {
        name: function,
        f"{name}Role": _role(settings, half),
        f"{name}Logs": {
            "Type": "AWS::Logs::LogGroup",
            "Properties": {
                "LogGroupName": log_group(function_name(settings, half)),
                "RetentionInDays": serverless.log_days,
            },
        },
    }


def _code(settings: Settings, half: Half) -> dict[str, Any]:
    code, handler = settings.serverless.code, f"facerec.serverless.{half}.handler"
    if code is None:
        return {"PackageType": "Image", "ImageUri": {"Ref": IMAGE}, "ImageConfig": {"Command": [handler]}}
    bucket, _, key = code.removeprefix("s3://").partition("/")
    return {
        "PackageType": "Zip",
        "CodeUri": {"Bucket": bucket, "Key": key},
        "Handler": handler,
        "Runtime": "python3.12",
        "SnapStart": {"ApplyOn": "PublishedVersions"},
        # Event sources and URL call the alias; a version is published when the name of the ZIP or a setting changes.
        "AutoPublishAlias": ALIAS,
        "AutoPublishAliasAllProperties": True,
    }


def _storage_mb(settings: Settings, half: Half) -> int:
    """Room for the gallery's snapshot, which fits into the memory, and for its successor."""
    if half == "detection" or settings.serverless.code is not None:  # SnapStart takes no more
        return _FREE_STORAGE_MB
    return min(2 * settings.serverless.recognition_memory_mb, _MOST_STORAGE_MB)


def _event_source(settings: Settings, queue: str, *, enabled: bool) -> dict[str, Any]:
    """The mapping of a queue to its function.

    Its own maximum keeps messages in the queue. Reserved concurrency would refuse invocations, and each refusal uses up
    one delivery of ten messages.
    """
    return {
        "Type": "SQS",
        "Properties": {
            "Queue": _substituted(Place(settings, _ACCOUNT).queue(queue)),
            "BatchSize": settings.serverless.batch_size,
            "Enabled": enabled,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "ScalingConfig": {"MaximumConcurrency": settings.serverless.max_concurrency},
        },
    }


def _role(settings: Settings, half: Half) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = _substituted(policy(half, Place(settings, _ACCOUNT)))
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": function_role(settings, half),
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "facerec", "PolicyDocument": document}],
        },
    }


def _inbox_permission(settings: Settings) -> dict[str, Any]:
    target = LOGICAL["detection"] if settings.serverless.code is None else f"{LOGICAL['detection']}Alias{ALIAS}"
    return {
        "Type": "AWS::Lambda::Permission",
        "Properties": {
            "Action": "lambda:InvokeFunction",
            "FunctionName": {"Ref": target},
            "Principal": "s3.amazonaws.com",
            "SourceAccount": {"Ref": "AWS::AccountId"},
            "SourceArn": Place(settings, _ACCOUNT).bucket(settings.input_bucket),
        },
    }


def _substituted(value: Any) -> Any:
    """Let CloudFormation fill the account in, since a template is the same in all of them."""
    if isinstance(value, dict):
        return {name: _substituted(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_substituted(one) for one in value]
    return {"Fn::Sub": value} if isinstance(value, str) and _ACCOUNT in value else value
