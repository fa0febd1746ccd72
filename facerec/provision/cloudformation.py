"""A CloudFormation stack: created and updated by change sets, followed by its events, and deleted."""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import FacerecError, Transient

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

_IN_PROGRESS = "_IN_PROGRESS"
_NEW = "REVIEW_IN_PROGRESS"
"""A stack that has a change set and no resources yet."""
_CAPABILITIES: Any = ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
"""The template makes roles with names of their own, and is expanded by the SAM transform."""
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
"""In the reason of a failed change set: AWS states no code for it."""
_STUCK = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"})
"""In these states a stack can only be deleted."""
_HALF_ROLLED_BACK = "UPDATE_ROLLBACK_FAILED"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a change set."""

    action: str
    """Add, Modify or Remove."""
    resource: str
    kind: str
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stack."""

    resource: str
    status: str
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether a resource could not be changed."""
        return self.status.endswith("_FAILED")


class Stack:
    """One stack by its name. All methods raise `ConfigurationError` and `Transient`."""

    def __init__(self, clients: Clients, name: str, *, poll_seconds: float = 1.0) -> None:
        self.name = name
        self._cloudformation = clients.cloudformation
        self._poll_seconds = poll_seconds

    def describe(self) -> "StackTypeDef | None":
        """Return the stack's description, if it exists."""
        with translated(f"describe stack {self.name!r}"):
            try:
                return self._cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]
            except ClientError as exc:
                # AWS states no code of its own for it.
                if "does not exist" in exc.response["Error"].get("Message", ""):
                    return None
                raise

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs; none if it does not exist."""
        found: Mapping[str, Any] = self.describe() or {}
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}

    def deploy(
        self,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        *,
        report: Callable[[Event], None] = lambda _: None,
        approve: Callable[[list[Change]], bool] = lambda _: True,
    ) -> list[Change]:
        """Make the stack as in the template; returns what was changed, or would be if `approve` returns False.

        Raises `FacerecError` with the first reason if CloudFormation rolls back, and if the stack can only be deleted.
        """
        new = self._changeable_status() == _NEW
        with translated(f"make a change set of stack {self.name!r}"):
            change_set = self._create_change_set(template, parameters, new=new)
            try:
                changes = self._changes(change_set)
                approved = bool(changes) and approve(changes)
            except FacerecError:
                self._discard(change_set, new=new)
                raise
            if not approved:
                self._discard(change_set, new=new)
                return changes
            former = self._newest_events()
            self._cloudformation.execute_change_set(StackName=self.name, ChangeSetName=change_set)
        self._follow(self.name, former, report, wanted=("CREATE_COMPLETE", "UPDATE_COMPLETE"))
        return changes

    def delete(self, report: Callable[[Event], None] = lambda _: None) -> bool:
        """Delete the stack and all its resources; returns whether there was one."""
        found = self.describe()
        if found is None:
            return False
        identifier = found["StackId"]  # by its name a deleted stack is no longer found
        with translated(f"delete stack {self.name!r}"):
            former = self._newest_events()
            self._cloudformation.delete_stack(StackName=identifier)
        self._follow(identifier, former, report, wanted=("DELETE_COMPLETE",))
        return True

    def _changeable_status(self) -> str:
        found = self.describe()
        status = found["StackStatus"] if found is not None else _NEW
        if status in _STUCK:
            raise FacerecError(
                f"stack {self.name!r} is {status}, and can only be deleted: `facerec serverless remove`, with --images "
                "for the repository, or `facerec edge rules remove`; then try again"
            )
        if status == _HALF_ROLLED_BACK:
            raise FacerecError(
                f"stack {self.name!r} is {status}: end that with `aws cloudformation continue-update-rollback "
                f"--stack-name {self.name}`, and deploy again"
            )
        if status.endswith(_IN_PROGRESS) and status != _NEW:
            raise Transient(f"stack {self.name!r} is {status}: wait until that has ended, and deploy again")
        return status

    def _create_change_set(self, template: Mapping[str, Any], parameters: Mapping[str, str], *, new: bool) -> str:
        name = f"facerec-{uuid.uuid4().hex}"
        try:
            self._cloudformation.create_change_set(
                StackName=self.name,
                ChangeSetName=name,
                ChangeSetType="CREATE" if new else "UPDATE",
                TemplateBody=json.dumps(template, separators=(",", ":")),
                Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
                Capabilities=_CAPABILITIES,
            )
        except ClientError as exc:
            if exc.response["Error"]["Code"] != "ValidationError":
                raise
            raise self._refusal(exc.response["Error"]["Message"]) from exc
        return name

    def _refusal(self, reason: str) -> FacerecError:
        return FacerecError(f"CloudFormation refuses to change stack {self.name!r}: {reason}")

    def _discard(self, change_set: str, *, new: bool) -> None:
        """Delete a change set, and the empty stack that a first one has made."""
        self._cloudformation.delete_change_set(StackName=self.name, ChangeSetName=change_set)
        if new:
            self._cloudformation.delete_stack(StackName=self.name)

    def _changes(self, change_set: str) -> list[Change]:
        while True:
            pages = list(
                self._cloudformation.get_paginator("describe_change_set").paginate(
                    StackName=self.name, ChangeSetName=change_set
                )
            )
            status, reason = pages[0]["Status"], pages[0].get("StatusReason", "")
            if status == "FAILED":
                if any(words in reason for words in _NO_CHANGES):
                    return []
                raise self._refusal(reason)
            if status.endswith("_COMPLETE"):
                break
            time.sleep(self._poll_seconds)
        changed = [change["ResourceChange"] for page in pages for change in page["Changes"]]
        return [
            Change(
                change["Action"],
                change["LogicalResourceId"],
                change["ResourceType"],
                replaced=change.get("Replacement") == "True",
            )
            for change in changed
        ]

    def _follow(
        self, identifier: str, former: set[str], report: Callable[[Event], None], *, wanted: tuple[str, ...]
    ) -> None:
        """Report the events that are not among the `former` until one says that the stack is at rest.

        The stack's description is no sign of it: it may still be that of the time before the change.
        """
        failed: list[Event] = []
        ended = None
        try:
            while ended is None:
                with translated(f"follow stack {self.name!r}"):
                    fresh = self._events(identifier, former)
                for event in fresh:
                    report(event)
                    failed += [event] if event.failed else []
                    if event.resource == self.name and not event.status.endswith(_IN_PROGRESS):
                        ended = event.status
                if ended is None:
                    time.sleep(self._poll_seconds)
        except KeyboardInterrupt:
            raise FacerecError(
                f"CloudFormation goes on with stack {self.name!r}; this command only watched it"
            ) from None
        if ended not in wanted:
            reason = f": {failed[0].resource}: {failed[0].reason}" if failed else ""
            raise FacerecError(f"stack {self.name!r} is {ended}{reason}")

    def _events(self, identifier: str, seen: set[str]) -> list[Event]:
        """Return the events that are not in `seen`, the oldest first, and add them to it; AWS has the newest first."""
        fresh: list[Event] = []
        for page in self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=identifier):
            new = [event for event in page["StackEvents"] if event["EventId"] not in seen]
            seen.update(event["EventId"] for event in new)
            fresh += [
                Event(
                    event.get("LogicalResourceId", self.name),
                    event.get("ResourceStatus", ""),
                    event.get("ResourceStatusReason", ""),
                )
                for event in new
            ]
            if len(new) < len(page["StackEvents"]):
                break
        return fresh[::-1]

    def _newest_events(self) -> set[str]:
        page = self._cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        return {event["EventId"] for event in page}
