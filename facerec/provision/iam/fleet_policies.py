"""What the autoscaler may do to EC2, and who makes resources may make: the policies with conditions. Pure."""

from facerec.messages import FLEET_TAG
from facerec.provision.iam.statements import Place, Statement, allow


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
        look_at_fleet(),
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


def provisioner(place: Place) -> list[Statement]:
    """`facerec provision`: makes and repairs resources, and reads nothing that is in them."""
    settings = place.settings
    buckets = [settings.input_bucket, settings.output_bucket, settings.gallery_bucket, settings.model_bucket]
    queues = [settings.request_queue, settings.dead_letter_queue, settings.response_queue, settings.events_queue]
    tables = [settings.templates_table, settings.fleet_table, settings.keys_table]
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


def look_at_fleet() -> Statement:
    """Read what EC2 and CloudWatch tell of the fleet."""
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
