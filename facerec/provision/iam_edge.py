"""The policies of the edge: of IoT's rules, of devices, and of who sets them up. Pure.

A device has two identities: its certificate, which an AWS IoT policy binds to its own topics, and, with Greengrass, the
role for which the certificate can be exchanged. Each thing has a policy of its own, since policy variables with the
thing's name demand that the client id be that name.
"""

import re
from typing import Any, Literal

from facerec.edge_messages import faces_topic, frames_topic, results_topic, status_topic
from facerec.provision.iam_statements import Place, Statement, actions, allow
from facerec.settings import Settings

Rule = Literal["faces", "no_face", "other"]
RULES: tuple[Rule, ...] = ("faces", "no_face", "other")
RULES_STACK = "edge-rules"
"""The end of the name of the rules' CloudFormation stack, after the prefix."""
COMPONENT = "com.facerec.FaceDetection"
"""The Greengrass component of the devices."""
COMPONENTS_PREFIX = "components/"
"""Of the artefacts of the Greengrass component in the model bucket."""
IOT_POLICY_BYTES = 2048
"""AWS IoT's limit of a policy, without white space; so the nucleus has one of its own."""
_CLIENT_ID_END = "-" + "?" * 8
"""What follows the thing's name in a client id. Of fixed length: `gate` is not let in as a client of `gate-2`."""


def rule_name(settings: Settings, rule: Rule) -> str:
    """Return the name of a rule, which IoT allows no hyphen."""
    return f"{re.sub(r'[^A-Za-z0-9]', '_', settings.prefix)}_{rule}"


def rules_role(settings: Settings) -> str:
    """Return the name of the role with which the rules send to the queues."""
    return f"{settings.prefix}-edge-rules"


def device_role(settings: Settings) -> str:
    """Return the name of the role of Greengrass devices, and of the alias under which they ask for it."""
    return f"{settings.prefix}-edge-device"


def thing_policy_name(settings: Settings, thing: str) -> str:
    """Return the name of a thing's AWS IoT policy."""
    return f"{settings.prefix}-{thing}"


def nucleus_policy_name(settings: Settings, thing: str) -> str:
    """Return the name of the further policy of a Greengrass core, which is no thing's `thing_policy_name`."""
    return f"{settings.prefix}_nucleus-{thing}"


def edge_rules(place: Place) -> list[Statement]:
    """The rules of AWS IoT Core: pass messages of devices on, and what they could not pass on."""
    settings = place.settings
    queues = (settings.faces_queue, settings.response_queue, settings.faces_dead_letter_queue)
    return [allow("PassOn", ["sqs:SendMessage"], [place.queue(name) for name in queues])]


def edge_device(place: Place) -> list[Statement]:
    """A Greengrass device, with the credentials for its certificate: downloads the component and the model."""
    bucket = place.bucket(place.settings.model_bucket)
    found = [f"{bucket}/models/*", f"{bucket}/{COMPONENTS_PREFIX}*"]
    return [
        allow("ReadModelAndComponent", ["s3:GetObject"], found),
        allow("TellMissingFromForbidden", ["s3:ListBucket"], [bucket], {"StringLike": {"s3:prefix": "models/*"}}),
        allow("FindBucket", ["s3:GetBucketLocation"], [bucket]),
    ]


def edge_operator(place: Place) -> list[Statement]:
    """A person: the commands of `facerec edge` but `run`; CloudFormation and Greengrass act with these permissions."""
    settings = place.settings
    queues = (settings.faces_queue, settings.response_queue, settings.faces_dead_letter_queue)
    rules, device = place.role(rules_role(settings)), place.role(device_role(settings))
    alarms = f"arn:{place.partition}:cloudwatch:{place.region}:{place.account}:alarm:{settings.prefix}-{RULES_STACK}-*"
    return [
        allow(
            "MakeStack",
            actions(
                "cloudformation",
                "CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackEvents DescribeStacks "
                "ExecuteChangeSet",
            ),
            [place.stack(f"{settings.prefix}-{RULES_STACK}")],
        ),
        allow(
            "MakeRules",
            actions(
                "iot",
                "CreateTopicRule DeleteTopicRule GetTopicRule ListTagsForResource ReplaceTopicRule TagResource "
                "UntagResource",
            ),
            [place.iot("rule", rule_name(settings, rule)) for rule in RULES],
        ),
        allow(
            "MakeRoles",
            actions(
                "iam",
                "CreateRole DeleteRole DeleteRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies "
                "ListRolePolicies PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole",
            ),
            [rules, device],
        ),
        allow("GiveRoles", ["iam:PassRole"], [rules, device]),
        allow(
            "MakeAlarms",
            actions("cloudwatch", "DeleteAlarms ListTagsForResource PutMetricAlarm TagResource UntagResource"),
            [alarms],
        ),
        allow(
            "LookAround",
            ["cloudwatch:DescribeAlarms", *actions("iot", "CreateKeysAndCertificate DescribeEndpoint")],
            ["*"],
        ),
        allow("LookAtQueues", actions("sqs", "GetQueueAttributes GetQueueUrl"), [place.queue(name) for name in queues]),
        allow(
            "MakeThings",
            actions("iot", "CreateThing DeleteThing DescribeThing ListThingPrincipals"),
            [place.iot("thing", "*")],
        ),
        allow(
            "MakeThingPolicies",
            actions(
                "iot",
                "CreatePolicy CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy ListPolicyVersions "
                "ListTargetsForPolicy",
            ),
            [place.iot("policy", name(settings, "*")) for name in (thing_policy_name, nucleus_policy_name)],
        ),
        allow(
            "MakeCertificates",
            actions(
                "iot",
                "AttachPolicy AttachThingPrincipal DeleteCertificate DescribeCertificate DetachPolicy "
                "DetachThingPrincipal UpdateCertificate",
            ),
            [place.iot("cert", "*")],
        ),
        allow(
            "MakeRoleAlias",
            actions("iot", "CreateRoleAlias DescribeRoleAlias UpdateRoleAlias"),
            [place.iot("rolealias", device_role(settings))],
        ),
        *_deploy(place),
    ]


def _deploy(place: Place) -> list[Statement]:
    """`facerec edge deploy` and `status`: Greengrass reads the archive, and makes jobs and shadows of a deployment."""
    bucket, prefix = place.bucket(place.settings.model_bucket), f"{COMPONENTS_PREFIX}*"
    greengrass = f"arn:{place.partition}:greengrass:{place.region}:{place.account}"
    component = f"{greengrass}:components:{COMPONENT}"
    return [
        allow("KeepArchives", actions("s3", "AbortMultipartUpload GetObject PutObject"), [f"{bucket}/{prefix}"]),
        allow("FindArchives", ["s3:ListBucket"], [bucket], {"StringLike": {"s3:prefix": prefix}}),
        allow(
            "MakeComponent",
            actions("greengrass", "CreateComponentVersion DescribeComponent"),
            [component, f"{component}:versions:*"],
        ),
        allow("DeployComponent", actions("greengrass", "CreateDeployment ListDeployments"), ["*"]),
        allow("ReadDeployments", ["greengrass:GetDeployment"], [f"{greengrass}:deployments:*"]),
        allow(
            "LookAtDevices",
            actions("greengrass", "GetCoreDevice ListEffectiveDeployments ListInstalledComponents"),
            [f"{greengrass}:coreDevices:*"],
        ),
        allow(
            "DeployByJob",
            actions("iot", "CancelJob CreateJob DescribeJob GetThingShadow UpdateJob UpdateThingShadow"),
            [place.iot("job", "*"), place.iot("thing", "*")],
        ),
    ]


def thing_policy(place: Place, thing: str) -> dict[str, Any]:
    """Return the AWS IoT policy of a thing: its own client ids and topics."""
    received = frames_topic(thing), results_topic(thing)
    sent = faces_topic(thing), status_topic(thing)
    return _iot_policy(
        (["iot:Connect"], [place.iot("client", f"{thing}{_CLIENT_ID_END}")]),
        (["iot:Publish"], [place.iot("topic", name) for name in sent]),
        (["iot:Subscribe"], [place.iot("topicfilter", name) for name in received]),
        (["iot:Receive"], [place.iot("topic", name) for name in received]),
    )


def nucleus_policy(place: Place, thing: str) -> dict[str, Any]:
    """Return the further AWS IoT policy of a thing that is a Greengrass core: what its nucleus needs."""
    reserved = f"$aws/things/{thing}"
    own = f"{reserved}/jobs/*", f"{reserved}/shadow/*"
    health = f"{reserved}/greengrass/health/json", f"{reserved}/greengrassv2/health/json"
    return _iot_policy(
        # Its further connections, for more subscriptions than one may have, have a number behind the name.
        (["iot:Connect"], [place.iot("client", thing), place.iot("client", f"{thing}#*")]),
        (actions("iot", "Publish Receive"), [place.iot("topic", name) for name in (*own, *health)]),
        (["iot:Subscribe"], [place.iot("topicfilter", name) for name in own]),
        (["iot:AssumeRoleWithCertificate"], [place.iot("rolealias", device_role(place.settings))]),
        (
            actions(
                "greengrass",
                "GetComponentVersionArtifact GetDeploymentConfiguration ListThingGroupsForCoreDevice "
                "ResolveComponentCandidates",
            ),
            ["*"],
        ),
    )


def _iot_policy(*statements: tuple[list[str], list[str]]) -> dict[str, Any]:
    allowed = [{"Effect": "Allow", "Action": names, "Resource": resources} for names, resources in statements]
    return {"Version": "2012-10-17", "Statement": allowed}
