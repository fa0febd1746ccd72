"""The IAM policies of the Lambda functions, of those who call them, and of who deploys them. Pure."""

from facerec.provision.iam_statements import (
    HALVES,
    Half,
    Place,
    Statement,
    actions,
    allow,
    answer_devices,
    function_name,
    function_role,
    gallery_snapshots,
)

REPOSITORY_STACK, FUNCTIONS_STACK = "repository", "serverless"
"""The ends of the names of the CloudFormation stacks, after the prefix."""


def detection(place: Place) -> list[Statement]:
    """The detection function: takes tasks, and passes faces or a final answer on."""
    settings = place.settings
    return [
        allow("ReadObjects", ["s3:GetObject"], _objects(place, settings.input_bucket, settings.output_bucket)),
        # The pictures of URL calls, large messages of faces, and final answers.
        allow("StoreObjects", ["s3:PutObject"], _objects(place, settings.input_bucket, settings.output_bucket)),
        _tell_missing(place, settings.input_bucket, settings.output_bucket),
        _take("TakeTasks", place, settings.request_queue),
        _send(place, settings.faces_queue, settings.request_queue, settings.dead_letter_queue),
        *_observe(place, "detection"),
    ]


def recognition(place: Place) -> list[Statement]:
    """The recognition function: takes faces, compares them with the gallery, and answers."""
    settings = place.settings
    return [
        allow("ReadObjects", ["s3:GetObject"], _objects(place, settings.input_bucket, settings.output_bucket)),
        allow("StoreResults", ["s3:PutObject"], _objects(place, settings.output_bucket)),
        _tell_missing(place, settings.input_bucket, settings.output_bucket),
        _take("TakeFaces", place, settings.faces_queue),
        _send(place, settings.faces_dead_letter_queue),
        allow(
            "ReadGallery",
            actions("dynamodb", "BatchGetItem GetItem Query"),
            [place.table(settings.templates_table)],
        ),
        *gallery_snapshots(place),
        *answer_devices(place),
        *_observe(place, "recognition"),
    ]


def caller(place: Place) -> list[Statement]:
    """A client that calls the detection function's URL with signed requests: both permissions that a URL needs."""
    called = _and_alias(place, "detection")
    signed = {"StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}}
    return [
        allow("CallUrl", ["lambda:InvokeFunctionUrl"], called, signed),
        allow(
            "InvokeByUrlAlone", ["lambda:InvokeFunction"], called, {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}
        ),
    ]


def deployer(place: Place) -> list[Statement]:
    """`facerec serverless`: pushes the image, and makes the stacks; CloudFormation acts with these permissions.

    They are those that the schemas of the resource types name for their handlers (as cfn-lint 1.58 has them), without
    what our templates do not use: KMS keys, networks, file systems, code signing, provisioned concurrency.
    """
    settings, prefix = place.settings, place.settings.prefix
    functions = [arn for half in HALVES for arn in _and_alias(place, half)]
    of_functions = {"ArnLike": {"lambda:FunctionArn": functions}}
    roles = [place.role(function_role(settings, half)) for half in HALVES]
    owned = f"{place.region}:{place.account}"
    mappings = [f"arn:{place.partition}:lambda:{owned}:event-source-mapping:*"]
    queues = (
        settings.request_queue,
        settings.dead_letter_queue,
        settings.faces_queue,
        settings.faces_dead_letter_queue,
    )
    statements = [
        allow(
            "MakeStacks",
            actions(
                "cloudformation",
                "CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackEvents DescribeStacks "
                "ExecuteChangeSet",
            ),
            [
                place.stack(f"{prefix}-{FUNCTIONS_STACK}"),
                place.stack(f"{prefix}-{REPOSITORY_STACK}"),
                f"arn:{place.partition}:cloudformation:{place.region}:aws:transform/Serverless-2016-10-31",
            ],
        ),
        allow("LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"]),
        allow(
            "PushImages",
            actions(
                "ecr",
                "BatchCheckLayerAvailability BatchGetImage CompleteLayerUpload CreateRepository DeleteLifecyclePolicy "
                "DeleteRepository DeleteRepositoryPolicy DescribeRepositories GetDownloadUrlForLayer "
                "GetLifecyclePolicy GetRepositoryPolicy InitiateLayerUpload ListTagsForResource PutImage "
                "PutImageScanningConfiguration PutImageTagMutability PutLifecyclePolicy SetRepositoryPolicy "
                "TagResource UntagResource UploadLayerPart",
            ),
            [f"arn:{place.partition}:ecr:{owned}:repository/{prefix}"],
        ),
        allow(
            "MakeFunctions",
            actions(
                "lambda",
                "AddPermission CreateAlias CreateFunction CreateFunctionUrlConfig DeleteAlias DeleteFunction "
                "DeleteFunctionConcurrency DeleteFunctionEventInvokeConfig DeleteFunctionUrlConfig GetAlias "
                "GetFunction GetFunctionCodeSigningConfig GetFunctionConfiguration GetFunctionEventInvokeConfig "
                "GetFunctionRecursionConfig GetFunctionScalingConfig GetFunctionUrlConfig GetPolicy "
                "GetProvisionedConcurrencyConfig GetRuntimeManagementConfig ListTags ListVersionsByFunction "
                "PublishVersion PutFunctionConcurrency PutFunctionEventInvokeConfig RemovePermission TagResource "
                "UntagResource UpdateAlias UpdateFunctionCode UpdateFunctionConfiguration "
                "UpdateFunctionEventInvokeConfig UpdateFunctionUrlConfig",
            ),
            functions,
        ),
        allow("MakeMappings", ["lambda:CreateEventSourceMapping"], ["*"], of_functions),
        allow(
            "ChangeMappings",
            actions("lambda", "DeleteEventSourceMapping GetEventSourceMapping UpdateEventSourceMapping"),
            mappings,
            of_functions,
        ),
        # CloudFormation tags what it makes; tagging knows no condition on the function.
        allow("TagMappings", actions("lambda", "ListTags TagResource UntagResource"), mappings),
        allow(
            "LookAround",
            [
                "cloudwatch:DescribeAlarms",
                *actions("lambda", "GetAccountSettings ListEventSourceMappings"),
                *actions("logs", "DescribeLogGroups DescribeResourcePolicies"),
            ],
            ["*"],
        ),
        allow(
            "MakeRoles",
            actions(
                "iam",
                "CreateRole DeleteRole DeleteRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies "
                "ListRolePolicies PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole",
            ),
            roles,
        ),
        allow("GiveRoles", ["iam:PassRole"], roles, {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}),
        allow(
            "MakeLogs",
            actions(
                "logs",
                "CreateLogGroup DeleteDataProtectionPolicy DeleteLogGroup DescribeIndexPolicies "
                "GetDataProtectionPolicy ListTagsForResource PutRetentionPolicy TagResource UntagResource",
            ),
            # CloudWatch names a group with this end, and without it for tags.
            [f"{place.log_group(function_name(settings, half))}{end}" for half in HALVES for end in ("", ":*")],
        ),
        allow(
            "MakeAlarms",
            actions(
                "cloudwatch",
                "DeleteAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource",
            ),
            [f"arn:{place.partition}:cloudwatch:{owned}:alarm:{prefix}-{FUNCTIONS_STACK}-*"],
        ),
        allow(
            "LookAtQueues",
            actions("sqs", "GetQueueAttributes GetQueueUrl"),
            [place.queue(name) for name in queues],
        ),
        allow(
            "WatchInbox",
            actions("s3", "GetBucketNotification PutBucketNotification"),
            [place.bucket(settings.input_bucket)],
        ),
    ]
    if settings.serverless.code is not None:
        code = settings.serverless.code.removeprefix("s3://")
        statements.append(allow("ReadCode", ["s3:GetObject"], [f"arn:{place.partition}:s3:::{code}"]))
    return statements


def _objects(place: Place, *buckets: str) -> list[str]:
    return [place.objects(name) for name in buckets]


def _tell_missing(place: Place, *buckets: str) -> Statement:
    return allow("TellMissingFromForbidden", ["s3:ListBucket"], [place.bucket(name) for name in buckets])


def _take(sid: str, place: Place, queue: str) -> Statement:
    # Lambda itself receives, looks at and deletes messages with the function's role.
    names = "ChangeMessageVisibility DeleteMessage GetQueueAttributes GetQueueUrl ReceiveMessage"
    return allow(sid, actions("sqs", names), [place.queue(queue)])


def _send(place: Place, *queues: str) -> Statement:
    names = (*queues, place.settings.response_queue, place.own_response_queues)
    return allow("AnswerAndPass", actions("sqs", "GetQueueUrl SendMessage"), [place.queue(name) for name in names])


def _observe(place: Place, half: Half) -> list[Statement]:
    logs = f"{place.log_group(function_name(place.settings, half))}:*"
    return [
        allow("WriteLogs", actions("logs", "CreateLogStream PutLogEvents"), [logs]),
        allow("Trace", actions("xray", "PutTelemetryRecords PutTraceSegments"), ["*"]),
    ]


def _and_alias(place: Place, half: Half) -> list[str]:
    arn = place.function(function_name(place.settings, half))
    return [arn, f"{arn}:*"]
