"""A stack on a CloudFormation that makes its change sets slowly, and refuses one after the SAM transform."""

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

    def describe_stacks(self, **_: Any) -> Any:
        if self.status is None:
            problem = {"Code": "ValidationError", "Message": "Stack with id x does not exist"}
            raise ClientError({"Error": problem}, "DescribeStacks")  # type: ignore[typeddict-item]  # as much as is read
        return {"Stacks": [{"StackStatus": self.status, "StackId": "id"}]}

    def get_paginator(self, name: str) -> Any:
        assert name == "describe_change_set"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, **_: Any) -> list[Any]:
        self.calls.append("describe_change_set")
        status, reason = self.states.pop(0)
        return [{"Status": status, "StatusReason": reason, "Changes": []}]

    def __getattr__(self, name: str) -> Any:
        """Note any other call."""
        return lambda **_: self.calls.append(name)


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
