"""Deploys the rules of AWS IoT Core: the check before, the stack, and the state of it all."""

from collections.abc import Callable
from dataclasses import dataclass

from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import FacerecError
from facerec.provision.cloudformation import Change, Event, Stack
from facerec.provision.edge.rules import rules_template
from facerec.provision.iam_edge import RULES, RULES_STACK, rule_name
from facerec.provision.serverless_deployment import queue_state
from facerec.settings import Settings


class _Missing(FacerecError):
    """AWS IoT has no such rule."""


@dataclass(frozen=True, slots=True)
class RulesState:
    """All that `facerec edge rules status` shows."""

    stack: str
    """Its state in CloudFormation, or that there is none."""
    rules: dict[str, str]
    """Enabled, disabled or absent, by the rule's name."""
    queues: dict[str, dict[str, int]]
    """The counts of each queue by its name; none of a queue that does not exist."""


def rules_stack(clients: Clients, settings: Settings, *, poll_seconds: float = 1.0) -> Stack:
    """Return the stack of the rules."""
    return Stack(clients, f"{settings.prefix}-{RULES_STACK}", poll_seconds=poll_seconds)


def deploy_rules(
    clients: Clients,
    settings: Settings,
    stack: Stack,
    *,
    report: Callable[[Event], None] = lambda _: None,
    approve: Callable[[list[Change]], bool] = lambda _: True,
) -> list[Change]:
    """Create or update the rules; returns what was changed, or would be if `approve` returns False.

    Raises `FacerecError` if a queue is missing, since a rule would lose the messages for it, and if CloudFormation
    refuses or rolls back.
    """
    for queue in _queues(settings):
        SqsQueue(clients.sqs, queue).attributes("QueueArn")
    return stack.deploy(rules_template(settings), {}, report=report, approve=approve)


def nobody_takes_faces(settings: Settings) -> bool:
    """Whether faces of devices would wait in their queue for ever: no function takes them, and no worker."""
    return settings.app_tier == "ec2" and not settings.edge.enabled


def rules_state(clients: Clients, settings: Settings) -> RulesState:
    """Read what is deployed; what is missing is stated, not an error."""
    stack = rules_stack(clients, settings)
    described = stack.describe()
    return RulesState(
        stack=f"{stack.name} is {described['StackStatus']}" if described else f"there is no stack {stack.name}",
        rules={name: _rule_state(clients, name) for name in (rule_name(settings, rule) for rule in RULES)},
        queues={name: queue_state(clients, name)[0] for name in _queues(settings)},
    )


def _queues(settings: Settings) -> tuple[str, ...]:
    return settings.faces_queue, settings.faces_dead_letter_queue, settings.response_queue


def _rule_state(clients: Clients, name: str) -> str:
    absent = _Missing(name)
    # AWS IoT answers that access is denied if there is no rule of the name.
    try:
        with translated(
            f"look at rule {name!r}", UnauthorizedException=lambda: absent, ResourceNotFoundException=lambda: absent
        ):
            rule = clients.iot.get_topic_rule(ruleName=name)["rule"]
    except _Missing:
        return "absent"
    return "disabled" if rule.get("ruleDisabled") else "enabled"
