"""How commands show what CloudFormation does with a stack."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from facerec.echo import echo

if TYPE_CHECKING:
    from facerec.provision.cloudformation import Change, Event, Stack


def approval(*, dry_run: bool) -> "Callable[[list[Change]], bool]":
    """Return what shows the changes before they are made, and approves them unless this is a dry run."""

    def approve(changes: "list[Change]") -> bool:
        for change in changes:
            replaced = " (replaced)" if change.replaced else ""
            echo(f"{change.action:<8} {change.resource:<26} {change.kind}{replaced}")
        return not dry_run

    return approve


def show_event(event: "Event") -> None:
    """Show a step of CloudFormation on stderr."""
    reason = f": {event.reason}" if event.reason else ""
    echo(f"{event.status:<28} {event.resource}{reason}", err=True)


def show_deployed(stack: "Stack", changes: "list[Change]", *, dry_run: bool) -> None:
    """Show how many changes were made, or would be."""
    done = "; nothing was changed" if dry_run else f" made in stack {stack.name}"
    echo(f"{len(changes)} changes{done}", err=True)


def show_deleted(stack: "Stack", *, found: bool) -> None:
    """Show whether there was a stack to delete."""
    echo(f"stack {stack.name} is deleted" if found else f"there is no stack {stack.name}", err=True)
