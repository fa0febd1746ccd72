"""The rules of AWS IoT Core that pass messages of devices on to the queues: their CloudFormation template. Pure.

One topic has both kinds of messages, and `result` tells them apart, so that each message is for one rule. A device can
put nothing but `No-Face` onto the response queue, with the fields of such a result alone. `thing` is the name in the
topic, to which the policy of the device's certificate binds it; a message that names another one is for no rule.
"""

from typing import Any

from facerec.edge_messages import NO_FACE_FIELDS, NO_FACE_MARK, faces_topic
from facerec.messages import Outcome
from facerec.provision.iam_edge import RULES, RULES_STACK, Rule, edge_rules, rule_name, rules_role
from facerec.provision.iam_statements import Place
from facerec.provision.serverless_alarms import alarm
from facerec.settings import Settings

Template = dict[str, Any]

_ACCOUNT = "${AWS::AccountId}"
_THING = "topic(2) AS thing"
_FIELDS: dict[Rule, str] = {
    "faces": f"*, {_THING}",
    "no_face": f"{', '.join(NO_FACE_FIELDS)}, '{Outcome.NO_FACE}' AS outcome, {_THING}",
    "other": f"*, {_THING}",
}
_WHERE: dict[Rule, str] = {
    "faces": "isUndefined(result)",
    "no_face": f"result = '{NO_FACE_MARK}'",
    # A rule of its own: AWS does not say what `true OR Undefined` is.
    "other": f"result <> '{NO_FACE_MARK}'",
}


def rules_template(settings: Settings) -> Template:
    """Return the template of the rules, their role, and the alarm on what they could not pass on."""
    dead = ("AWS/SQS", "QueueName", settings.faces_dead_letter_queue)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Passes the messages of the devices of {settings.prefix} on to its queues",
        "Resources": {
            "Role": _role(settings),
            "Faces": _rule(settings, "faces", settings.faces_queue),
            "NoFace": _rule(settings, "no_face", settings.response_queue),
            # What takes the faces puts them among the dead letters, with the reason.
            "Other": _rule(settings, "other", settings.faces_queue),
            "DeadLetters": alarm(
                settings, "dead-letters", dead, "ApproximateNumberOfMessagesVisible", "Maximum", 1, stack=RULES_STACK
            ),
        },
    }


def sql(rule: Rule) -> str:
    """Return what a rule selects."""
    # AWS does not say which `thing` wins in `SELECT *, … AS thing`: so they must be the same.
    where = f"thing = topic(2) AND {_WHERE[rule]}"
    return f"SELECT {_FIELDS[rule]} FROM '{faces_topic('+')}' WHERE {where}"  # noqa: S608 - of IoT's rules


def _rule(settings: Settings, rule: Rule, queue: str) -> dict[str, Any]:
    return {
        "Type": "AWS::IoT::TopicRule",
        "Properties": {
            "RuleName": rule_name(settings, rule),
            "TopicRulePayload": {
                "AwsIotSqlVersion": "2016-03-23",
                "Sql": sql(rule),
                "RuleDisabled": False,
                "Actions": [_send(queue)],
                # With the message in base64, and the reason.
                "ErrorAction": _send(settings.faces_dead_letter_queue),
            },
        },
    }


def _send(queue: str) -> dict[str, Any]:
    url = f"https://sqs.${{AWS::Region}}.${{AWS::URLSuffix}}/{_ACCOUNT}/{queue}"
    role = {"Fn::GetAtt": ["Role", "Arn"]}
    return {"Sqs": {"QueueUrl": {"Fn::Sub": url}, "RoleArn": role, "UseBase64": False}}


def _role(settings: Settings) -> dict[str, Any]:
    place = Place(settings, _ACCOUNT)
    statements = [
        {**statement, "Resource": [{"Fn::Sub": arn} for arn in statement["Resource"]]}
        for statement in edge_rules(place)
    ]
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "sts:AssumeRole",
        # Only for these rules: AWS IoT acts for other accounts, too.
        "Condition": {
            "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
            "ArnLike": {"aws:SourceArn": [{"Fn::Sub": place.iot("rule", rule_name(settings, rule))} for rule in RULES]},
        },
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": rules_role(settings),
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [
                {"PolicyName": "facerec", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
            ],
        },
    }
