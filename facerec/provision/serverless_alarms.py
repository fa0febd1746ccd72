"""The alarms of the stacks. Pure."""

from typing import Any

from facerec.provision.iam_serverless import FUNCTIONS_STACK
from facerec.provision.iam_statements import HALVES, function_name
from facerec.settings import Settings

_NEAR_THE_LIMIT = 0.8
"""The share of its time limit from which an invocation is slow."""


def alarms(settings: Settings) -> dict[str, Any]:
    """Alarms on failing, refused and slow invocations, on waiting messages, and on dead letters."""
    serverless = settings.serverless
    found: dict[str, Any] = {}
    for half in HALVES:
        function = ("AWS/Lambda", "FunctionName", function_name(settings, half))
        name, slow_ms = half.capitalize(), int(_NEAR_THE_LIMIT * serverless.timeout_seconds * 1000)
        found |= {
            f"{name}Errors": alarm(settings, f"{half}-errors", function, "Errors", "Sum", 1),
            f"{name}Throttles": alarm(settings, f"{half}-throttles", function, "Throttles", "Sum", 1),
            f"{name}Duration": alarm(settings, f"{half}-duration", function, "Duration", "Maximum", slow_ms),
        }
    url = ("AWS/Lambda", "FunctionName", function_name(settings, "detection"))
    # A URL call that fails is answered, and no error of the function.
    found["DetectionUrlErrors"] = alarm(settings, "detection-url-errors", url, "Url5xxCount", "Sum", 1)
    queues = {"Faces": settings.faces_queue} | ({} if settings.app_tier == "ec2" else {"Tasks": settings.request_queue})
    for name, queue in queues.items():
        # So old is a message that was delivered for the second time.
        waiting, age = ("AWS/SQS", "QueueName", queue), serverless.visibility_seconds
        found[f"{name}Age"] = alarm(
            settings, f"{name.lower()}-age", waiting, "ApproximateAgeOfOldestMessage", "Maximum", age
        )
    for name, queue in {"Faces": settings.faces_dead_letter_queue, "Tasks": settings.dead_letter_queue}.items():
        dead = ("AWS/SQS", "QueueName", queue)
        found[f"{name}DeadLetters"] = alarm(
            settings, f"{name.lower()}-dead-letters", dead, "ApproximateNumberOfMessagesVisible", "Maximum", 1
        )
    return found


def alarm(
    settings: Settings,
    name: str,
    watched: tuple[str, str, str],
    metric: str,
    statistic: str,
    threshold: int,
    *,
    stack: str = FUNCTIONS_STACK,
) -> dict[str, Any]:
    """Return an alarm of a stack, on a metric by its namespace and one dimension; it tells the alarm topic."""
    namespace, dimension, value = watched
    topic = settings.serverless.alarm_topic
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmName": f"{settings.prefix}-{stack}-{name}",
            "Namespace": namespace,
            "MetricName": metric,
            "Dimensions": [{"Name": dimension, "Value": value}],
            "Statistic": statistic,
            "Period": 60,
            "EvaluationPeriods": 1,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "Threshold": threshold,
            "TreatMissingData": "notBreaching",
            **({} if topic is None else {"AlarmActions": [topic]}),
        },
    }
