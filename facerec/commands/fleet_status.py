"""The fleet as tables for a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoscale.observation import ACTIVE, Phase, Unreadable
from autoscale.ports import Record
from autoscale.status import RECENT_SECONDS, FleetStatus, InstanceStatus

_STYLES = {
    Phase.BOOTING: "yellow",
    Phase.SERVING: "green",
    Phase.DRAINING: "cyan",
    Phase.DRAINED: "cyan",
    Phase.LOST: "bold red",
    Phase.STOPPING: "dim",
    Phase.STOPPED: "dim",
}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def rendered(seen: FleetStatus) -> RenderableType:
    """The whole status."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("[bold]queue", _queue(seen))
    facts.add_row("[bold]autoscaler", _autoscaler(seen))
    facts.add_row("[bold]decision", _decision(seen))
    facts.add_row("[bold]fleet", _fleet(seen))
    if isinstance(seen.instances, Unreadable) or not seen.instances:
        return facts
    return Group(facts, "", _instances(seen.instances, seen.at))


def listed(records: Sequence[Record]) -> RenderableType:
    """One row a record; times are UTC."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("time (UTC)", no_wrap=True)
    for name in ("visible", "flight", "needed", "boot", "serve", "drain", "stop"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("actions and reason", overflow="fold")
    for one in records:
        counts = (one.visible, one.in_flight, one.needed, one.booting, one.serving, one.draining, one.stopped)
        at = f"{datetime.fromtimestamp(one.at, UTC):%m-%d %H:%M:%S}"
        actions = Text(f"{one.actions}: " if one.actions else "", "bold")
        table.add_row(at, *map(str, counts), actions + Text(one.reason, "not bold"))
    return table


def _queue(seen: FleetStatus) -> Text:
    if isinstance(seen.queue, Unreadable):
        return _unreadable(seen.queue)
    depth = seen.queue
    age = "" if depth.oldest_age_seconds is None else f", the oldest waits for {_length(depth.oldest_age_seconds)}"
    return Text(f"{depth.visible} visible, {depth.in_flight} in flight, {depth.delayed} delayed{age}")


def _autoscaler(seen: FleetStatus) -> Text:
    if isinstance(seen.lease_holder, Unreadable):
        return _unreadable(seen.lease_holder)
    if seen.lease_holder is None:
        return Text("none is active: nobody holds the lease", style="bold red")
    host, _, process = seen.lease_holder.partition("/")
    return Text(f"{host} ({process[:8]}) holds the lease")


def _decision(seen: FleetStatus) -> Text:
    if isinstance(seen.last, Unreadable):
        return _unreadable(seen.last)
    if seen.last is None:
        return Text(f"nothing recorded for {_length(RECENT_SECONDS)}", style="dim")
    ago = _length(seen.at - seen.last.at)
    done = f" → {seen.last.actions}" if seen.last.actions else ""
    return Text(f"{seen.last.needed} needed: {seen.last.reason}{done} ({ago} ago)")


def _fleet(seen: FleetStatus) -> Text:
    if isinstance(seen.instances, Unreadable):
        return _unreadable(seen.instances)
    phases = [one.phase for one in seen.instances]
    parts = [(f"{phases.count(name)} {name}", _STYLES[name]) for name in Phase if name in phases]
    if not any(name in ACTIVE for name in phases):
        parts.insert(0, ("no instance runs", ""))
    return Text(", ").join(Text(words, style) for words, style in parts)


def _instances(instances: Sequence[InstanceStatus], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name, right in (("#", 1), ("instance", 0), ("phase", 0), ("power", 0), ("since", 1)):
        table.add_column(name, justify="right" if right else "left")
    for name in ("held", "idle", "tasks done"):
        table.add_column(name, justify="right")
    table.add_column("notes")
    for one in instances:
        notes = [name for name in ("spot", "outdated", "impaired") if getattr(one, name)]
        table.add_row(
            str(one.number),
            one.instance_id or "being launched",
            Text(one.phase, _STYLES[one.phase]),
            one.power,
            _length(now - one.since),
            _known(one.held),
            "-" if one.idle_seconds is None else _length(one.idle_seconds),
            _known(one.tasks_done),
            ", ".join(notes),
        )
    return table


def _known(count: int | None) -> str:
    return "-" if count is None else str(count)


def _unreadable(value: Unreadable) -> Text:
    return Text(f"unreadable: {value.reason}", style="bold red")


def _length(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
