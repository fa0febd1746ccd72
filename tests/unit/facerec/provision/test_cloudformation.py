"""A stack on a CloudFormation that is slow, refuses a change set after the SAM transform, or is stuck."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from facerec.errors import FacerecError, Transient
from facerec.provision.cloudformation import Stack


class SlowCloudFormation:
    """Knows one stack with this status, if any, and gives a change set these states one after the other."""

    def __init__(self, status: str | None, *states: tuple[str, str]) -> None:
        self.status = status
        self.states = list(states)
        self.calls: list[str] = []
        self.events: list[Any] = []
        """What happens next, from the end: each look shows one more of them; an exception is raised."""
        self.happened = [_event(0, "facerec-serverless", "UPDATE_COMPLETE")]
        self.changes: list[Any] = []

    def describe_stacks(self, **_: Any) -> Any:
        if self.status is None:
            problem = {"Code": "ValidationError", "Message": "Stack with id x does not exist"}
            raise ClientError({"Error": problem}, "DescribeStacks")  # type: ignore[typeddict-item]  # as much as is read
        return {"Stacks": [{"StackStatus": self.status, "StackId": "id"}]}

    def get_paginator(self, name: str) -> Any:
        pages = {"describe_change_set": self._pages, "describe_stack_events": self._events}
        return SimpleNamespace(paginate=pages[name])

    def describe_stack_events(self, **_: Any) -> Any:
        return {"StackEvents": self.happened[::-1]}

    def _events(self, **_: Any) -> list[Any]:
        event = self.events.pop()
        if isinstance(event, BaseException):
            raise event
        self.happened.append(event)
        return [self.describe_stack_events()]

    def _pages(self, **_: Any) -> list[Any]:
        self.calls.append("describe_change_set")
        status, reason = self.states.pop(0)
        return [{"Status": status, "StatusReason": reason, "Changes": self.changes}]

    def __getattr__(self, name: str) -> Any:
        """Note any other call."""
        return lambda **_: self.calls.append(name)


def _event(number: int, resource: str, status: str, reason: str = "") -> Any:
    return {
        "EventId": str(number),
        "LogicalResourceId": resource,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def deploy(cloudformation: SlowCloudFormation) -> list[Any]:
    """Deploy something."""
    clients: Any = SimpleNamespace(cloudformation=cloudformation)
    return list(Stack(clients, "facerec-serverless", poll_seconds=0).deploy({}, {}))


def test_refused_change_set_is_told_and_leaves_nothing() -> None:
    """The transform fails only after the call; of a new stack not even its name stays."""
    reason = "Transform AWS::Serverless-2016-10-31 failed with: Invalid Serverless Application Specification document."
    waiting = (("CREATE_PENDING", ""), ("CREATE_IN_PROGRESS", ""))
    for status, last in ((None, "delete_stack"), ("UPDATE_COMPLETE", "delete_change_set")):
        cloudformation = SlowCloudFormation(status, *waiting, ("FAILED", reason))
        with pytest.raises(FacerecError, match="refuses to change stack 'facerec-serverless': Transform"):
            deploy(cloudformation)
        assert cloudformation.calls.count("describe_change_set") == 3
        assert cloudformation.calls[-1] == last


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_change_set_without_changes_is_no_failure(reason: str) -> None:
    """CloudFormation calls it failed, in one of two sentences."""
    cloudformation = SlowCloudFormation("CREATE_COMPLETE", ("FAILED", reason))
    assert deploy(cloudformation) == []
    assert "execute_change_set" not in cloudformation.calls


def test_stack_that_is_changed_by_another_is_left_alone() -> None:
    """A second deployment waits for its operator, not for the first one."""
    cloudformation = SlowCloudFormation("UPDATE_IN_PROGRESS")
    with pytest.raises(Transient, match="wait until that has ended"):
        deploy(cloudformation)
    assert cloudformation.calls == []


def changing(*events: Any) -> SlowCloudFormation:
    """One with a stack that has a change, and what then happens."""
    cloudformation = SlowCloudFormation("UPDATE_COMPLETE", ("CREATE_COMPLETE", ""))
    resource = {"Action": "Modify", "LogicalResourceId": "Detection", "ResourceType": "AWS::Lambda::Function"}
    cloudformation.changes = [{"ResourceChange": resource}]
    cloudformation.events = list(events)[::-1]
    return cloudformation


def test_update_is_followed_to_its_own_end() -> None:
    """Its description says UPDATE_COMPLETE all the time, as it does on AWS for a moment after the change began."""
    cloudformation = changing(
        _event(1, "facerec-serverless", "UPDATE_IN_PROGRESS"),
        _event(2, "Detection", "UPDATE_FAILED", "no such image"),
        _event(3, "facerec-serverless", "UPDATE_ROLLBACK_IN_PROGRESS"),
        _event(4, "Detection", "UPDATE_COMPLETE"),
        _event(5, "facerec-serverless", "UPDATE_ROLLBACK_COMPLETE"),
    )
    with pytest.raises(FacerecError, match="is UPDATE_ROLLBACK_COMPLETE: Detection: no such image"):
        deploy(cloudformation)
    assert cloudformation.events == []


def test_interrupted_deployment_says_that_it_goes_on() -> None:
    """Ctrl-C ends the command, and not what CloudFormation does."""
    with pytest.raises(FacerecError, match="CloudFormation goes on with stack 'facerec-serverless'"):
        deploy(changing(_event(1, "facerec-serverless", "UPDATE_IN_PROGRESS"), KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "can only be deleted: `facerec serverless remove`"),
        ("DELETE_FAILED", "can only be deleted: `facerec serverless remove`"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --stack-name facerec-serverless"),
    ],
)
def test_stack_that_is_stuck_is_told_with_its_remedy(status: str, remedy: str) -> None:
    """Before anything is changed."""
    cloudformation = SlowCloudFormation(status)
    with pytest.raises(FacerecError, match=f"is {status}.*{remedy}"):
        deploy(cloudformation)
    assert cloudformation.calls == []
