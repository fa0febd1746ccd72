"""The IAM policy of the autoscaler, which launches and ends instances of its own fleet alone. Pure."""

from facerec.messages import FLEET_TAG
from facerec.provision.iam_statements import Place, Statement, actions, allow


def autoscaler(place: Place) -> list[Statement]:
    """`facerec autoscale`: reads the backlog; launches, starts, stops and terminates instances of its own fleet."""
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
            actions("sqs", "GetQueueAttributes GetQueueUrl"),
            [place.queue(name) for queues in settings.worker_queues.items() for name in queues],
        ),
        allow(
            "KeepState",
            actions(
                "dynamodb",
                "BatchGetItem ConditionCheckItem DeleteItem DescribeTable GetItem PutItem Query UpdateItem",
            ),
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
            actions("ec2", "StartInstances StopInstances TerminateInstances"),
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


def look_at_fleet() -> Statement:
    """Read the fleet's state from EC2 and CloudWatch."""
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
