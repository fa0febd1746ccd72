"""`facerec fleet`: the fleet of EC2 instances, now and over time."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoscale.observation import ACTIVE, Phase, Unreadable
from autoscale.ports import Record
from autoscale.status import RECENT_SECONDS, FleetStatus, InstanceStatus
from facerec.commands.terminal import Duration, PictureFile, console
from facerec.errors import FacerecError, Transient
from facerec.settings import Settings
from facerec.settings.tiers import LogSettings
from facerec.text import duration

_STYLES = {
    Phase.BOOTING: "yellow",
    Phase.SERVING: "green",
    Phase.DRAINING: "cyan",
    Phase.DRAINED: "cyan",
    Phase.LOST: "bold red",
    Phase.STOPPING: "dim",
    Phase.STOPPED: "dim",
}


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
    age = "" if depth.oldest_age_seconds is None else f", the oldest waits for {duration(depth.oldest_age_seconds)}"
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
        return Text(f"nothing recorded for {duration(RECENT_SECONDS)}", style="dim")
    ago = duration(seen.at - seen.last.at)
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
            duration(now - one.since),
            _known(one.held),
            "-" if one.idle_seconds is None else duration(one.idle_seconds),
            _known(one.tasks_done),
            ", ".join(notes),
        )
    return table


def _known(count: int | None) -> str:
    return "-" if count is None else str(count)


def _unreadable(value: Unreadable) -> Text:
    return Text(f"unreadable: {value.reason}", style="bold red")


@click.command("user-data")
def user_data() -> None:
    """Print the user data of the app tier's EC2 instances, as `facerec provision` puts it into the launch template.

    It holds the settings of this deployment that a worker reads, a boot script and a systemd unit.

    \b
    Examples:
      facerec fleet user-data
      facerec fleet user-data > user-data.yaml && cloud-init schema --config-file user-data.yaml
      FACEREC_INSTANCES__PACKAGE=s3://my-bucket/facerec-1.0-py3-none-any.whl facerec fleet user-data
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.provision import user_data

    click.echo(user_data.user_data(Settings.load()), nl=False)


@click.group("fleet")
def command() -> None:
    """Show the fleet of EC2 instances, now and over time.

    \b
    Examples:
      facerec fleet status --watch
      facerec fleet history --since 2h --plot fleet.png
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


command.add_command(user_data)
_format = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="What to print."
)


@command.command("status")
@click.option("--watch", is_flag=True, help="Show it anew every second, until Ctrl-C.")
@_format
def status(watch: bool, form: str) -> None:  # noqa: FBT001 - click passes by name
    """Show queue, autoscaler and every instance; exit status 1 when something could not be read.

    \b
    Examples:
      facerec fleet status
      facerec fleet status --watch
      facerec fleet status --format json | jq '.queue.visible'
    """  # noqa: D301 - as above
    from rich.live import Live

    look = _looking(Settings.load())
    if not watch:
        seen = look()
        if form == "json":
            click.echo(json.dumps(seen.as_json()))
        else:
            console().print(rendered(seen))
        if not seen.whole:
            raise Transient("something could not be read; see above")
        return
    with suppress(KeyboardInterrupt):
        if form == "json":
            while True:
                click.echo(json.dumps(look().as_json()))
                time.sleep(1)
        with Live(rendered(look()), auto_refresh=False, console=console(), screen=sys.stdout.isatty()) as live:
            while True:
                time.sleep(1)
                live.update(rendered(look()), refresh=True)


def _looking(settings: Settings) -> Callable[[], FleetStatus]:
    """A look at the fleet, which can be repeated."""
    from autoscale import process
    from autoscale.aws.lease import lease_owner
    from autoscale.process import policy_of
    from autoscale.status import status as status_of
    from facerec.bootstrap import clients, worker_reports
    from facerec.observability.logs import configure_logging

    # What fails is shown in its place; warnings beside it would tear the picture.
    configure_logging(LogSettings(level="error", format=settings.log.format), process="fleet")
    # The lease is never taken, so that the fleet is only looked at.
    fleet = process.make_fleet(settings, process.make_lease(settings), worker_reports(settings))
    backlog, chronicle = process.make_backlog(settings), process.make_chronicle(settings)
    limits = policy_of(settings.autoscale).limits

    def owner() -> str | None:
        return lease_owner(clients(settings), settings.fleet_table)

    return lambda: status_of(backlog, fleet, chronicle, owner, limits, time.time())


@command.command("history")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back: 90s, 15m, 2h, 1d.")
@click.option("--plot", type=PictureFile(), help="Draw it into this PNG file instead.")
@_format
def history(since: timedelta, plot: Path | None, form: str) -> None:
    """Show backlog and fleet over time, and what was done for which reason. Records are kept for a week.

    \b
    Examples:
      facerec fleet history
      facerec fleet history --since 2h --plot fleet.png
      facerec fleet history --since 1d --format json
    """  # noqa: D301 - as above
    from autoscale import process

    now = time.time()
    records = process.make_chronicle(Settings.load()).records(now - since.total_seconds())
    if plot is not None:
        if not records:
            raise FacerecError("there is nothing to plot: no autoscaler has recorded anything since then")
        from autoscale.commands.fleet_plot import draw

        draw(records, plot, until=now)
        click.echo(f"{len(records)} records drawn into {plot}")
    elif form == "json":
        click.echo(json.dumps([asdict(record) for record in records], indent=2))
    else:
        console().print(listed(records))
