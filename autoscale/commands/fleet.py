"""`facerec fleet`: the fleet of EC2 instances, now and over time."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoscale.observation import ACTIVE, Instance, Phase, Unreadable
from autoscale.observation import phase as phase_of
from facerec.bootstrap import fleet_history
from facerec.commands.terminal import Duration, PictureFile
from facerec.echo import console, echo, echo_document, echo_json
from facerec.errors import FacerecError, Transient
from facerec.fleet_records import QueueDepth, RoundRecord
from facerec.settings import Settings
from facerec.settings.tiers import LogSettings
from facerec.text import duration, one_line

_STYLES = {
    Phase.BOOTING: "yellow",
    Phase.SERVING: "green",
    Phase.DRAINING: "cyan",
    Phase.DRAINED: "cyan",
    Phase.LOST: "bold red",
    Phase.STOPPING: "dim",
    Phase.STOPPED: "dim",
}
_NOTES = ("spot", "outdated", "impaired", "report_unreadable")
"""The properties of an instance that its row shows if they hold."""
_RECENT_SECONDS = 3600.0
"""How far back the latest record is looked for; at zero instances none is written."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """Queue, fleet and autoscaler; each may be unreadable while the others are readable."""

    at: float
    queue: QueueDepth | Unreadable
    instances: tuple[tuple[Instance, Phase], ...] | Unreadable
    lease_holder: str | Unreadable | None
    last: RoundRecord | Unreadable | None
    """The latest record of the last hour."""

    @property
    def complete(self) -> bool:
        """Whether everything could be read."""
        return not any(isinstance(v, Unreadable) for v in (self.queue, self.instances, self.lease_holder, self.last))

    def as_json(self) -> dict[str, Any]:
        """Return plain values; what could not be read is `{"unreadable": reason}`."""

        def plain(value: Any) -> Any:
            if isinstance(value, Unreadable):
                return {"unreadable": value.reason}
            if isinstance(value, tuple):
                return [_instance_json(instance, phase, self.at) for instance, phase in value]
            return asdict(value) if isinstance(value, QueueDepth | RoundRecord) else value

        return {name: plain(getattr(self, name)) for name in ("at", "queue", "instances", "lease_holder", "last")}


def _instance_json(instance: Instance, phase: Phase, now: float) -> dict[str, Any]:
    names = ("number", "instance_id", "power", "since", *_NOTES)
    counts = {
        "held": None if instance.report is None else instance.report.held,
        "idle_seconds": _idle_seconds(instance, now),
        "tasks_done": None if instance.report is None else instance.report.tasks_done,
    }
    return {name: getattr(instance, name) for name in names} | {"phase": phase} | counts


def _idle_seconds(instance: Instance, now: float) -> float | None:
    idle_since = None if instance.report is None else instance.report.idle_since
    return None if idle_since is None else max(0.0, now - idle_since)


def _read(reading: Callable[[], T]) -> T | Unreadable:
    try:
        return reading()
    except FacerecError as exc:
        return Unreadable(str(exc))


def make_reader(settings: Settings) -> Callable[[], FleetStatus]:
    """Make a function that reads the status; it can be called again and again."""
    from autoscale import process
    from autoscale.aws.lease import lease_owner
    from facerec.bootstrap import clients, worker_reports

    # This process never holds the lease, and only reads.
    fleet = process.make_fleet(settings, process.make_lease(settings), worker_reports(settings))
    backlog, history = process.make_backlog(settings), fleet_history(settings)
    limits = process.make_policy(settings.autoscale, settings.app_tier).limits

    def read() -> FleetStatus:
        now = time.time()
        instances = _read(fleet.instances)
        recent = _read(lambda: history.records(now - _RECENT_SECONDS))
        return FleetStatus(
            at=now,
            queue=_read(backlog.depth),
            instances=instances
            if isinstance(instances, Unreadable)
            else tuple((instance, phase_of(instance, limits, now)) for instance in instances),
            lease_holder=_read(lambda: lease_owner(clients(settings), settings.fleet_table)),
            last=recent if isinstance(recent, Unreadable) else next(reversed(recent), None),
        )

    return read


def status_table(status: FleetStatus) -> RenderableType:
    """Render the whole status."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("[bold]queue", _readable(status.queue, _queue))
    facts.add_row("[bold]autoscaler", _readable(status.lease_holder, _autoscaler))
    facts.add_row("[bold]decision", _readable(status.last, lambda last: _decision(last, status.at)))
    facts.add_row("[bold]fleet", _readable(status.instances, _phases))
    if isinstance(status.instances, Unreadable) or not status.instances:
        return facts
    return Group(facts, "", _instances(status.instances, status.at))


def history_table(records: Sequence[RoundRecord]) -> RenderableType:
    """Render one row for each record; times are UTC."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("time (UTC)", no_wrap=True)
    for name in ("visible", "flight", "needed", "boot", "serve", "drain", "stop"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("actions and reason", overflow="fold")
    for record in records:
        counts = (
            record.visible,
            record.in_flight,
            record.needed,
            record.booting,
            record.serving,
            record.draining,
            record.stopped,
        )
        at = f"{datetime.fromtimestamp(record.at, UTC):%m-%d %H:%M:%S}"
        actions = Text(one_line(f"{record.actions}: ") if record.actions else "", "bold")
        table.add_row(at, *map(str, counts), actions + Text(one_line(record.reason), "not bold"))
    return table


def _readable(value: T | Unreadable, text: Callable[[T], Text]) -> Text:
    return (
        Text(one_line(f"unreadable: {value.reason}"), style="bold red")
        if isinstance(value, Unreadable)
        else text(value)
    )


def _queue(depth: QueueDepth) -> Text:
    age = "" if depth.oldest_age_seconds is None else f", the oldest waits for {duration(depth.oldest_age_seconds)}"
    return Text(f"{depth.visible} visible, {depth.in_flight} in flight, {depth.delayed} delayed{age}")


def _autoscaler(lease_holder: str | None) -> Text:
    if lease_holder is None:
        return Text("none is active: no process holds the lease", style="bold red")
    host, _, process = lease_holder.partition("/")
    return Text(one_line(f"{host} ({process[:8]}) holds the lease"))


def _decision(last: RoundRecord | None, now: float) -> Text:
    if last is None:
        return Text(f"nothing recorded for {duration(_RECENT_SECONDS)}", style="dim")
    done = f" → {last.actions}" if last.actions else ""
    return Text(one_line(f"{last.needed} needed: {last.reason}{done} ({duration(now - last.at)} ago)"))


def _phases(instances: Sequence[tuple[Instance, Phase]]) -> Text:
    phases = [phase for _, phase in instances]
    parts = [(f"{phases.count(name)} {name}", _STYLES[name]) for name in Phase if name in phases]
    if not any(name in ACTIVE for name in phases):
        parts.insert(0, ("no instance runs", ""))
    return Text(", ").join(Text(words, style) for words, style in parts)


def _instances(instances: Sequence[tuple[Instance, Phase]], now: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    right = {"#", "since", "held", "idle", "tasks done"}
    for name in ("#", "instance", "phase", "power", "since", "held", "idle", "tasks done", "notes"):
        table.add_column(name, justify="right" if name in right else "left")
    for instance, phase in instances:
        idle_seconds = _idle_seconds(instance, now)
        notes = [name.replace("_", " ") for name in _NOTES if getattr(instance, name)]
        table.add_row(
            str(instance.number),
            Text(one_line(instance.instance_id or "being launched")),
            Text(phase, _STYLES[phase]),
            instance.power,
            duration(now - instance.since),
            "-" if instance.report is None else str(instance.report.held),
            "-" if idle_seconds is None else duration(idle_seconds),
            "-" if instance.report is None else str(instance.report.tasks_done),
            ", ".join(notes),
        )
    return table


@click.group("fleet")
def command() -> None:
    """Show the fleet of EC2 instances, now and over time.

    \b
    Examples:
      facerec fleet status --watch
      facerec fleet history --since 2h --plot fleet.png
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


_format = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="What to print."
)


@command.command("user-data")
def user_data() -> None:
    """Print the user data of the app tier's EC2 instances, as `facerec provision` puts it into the launch template.

    It holds the settings of this deployment that a worker reads, a boot script and a systemd unit.

    \b
    Examples:
      facerec fleet user-data
      facerec fleet user-data > user-data.yaml && cloud-init schema --config-file user-data.yaml
      FACEREC_INSTANCES__PACKAGE='s3://my-bucket/facerec-1.0-py3-none-any.whl#sha256=…' facerec fleet user-data
    """  # noqa: D301 - as above
    from facerec.provision import user_data

    echo_document(user_data.user_data(Settings.load()))


@command.command("status")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@_format
def status(watch: bool, form: str) -> None:  # noqa: FBT001 - click passes by name
    """Show queue, autoscaler and every instance; exit status 1 if something could not be read.

    \b
    Examples:
      facerec fleet status
      facerec fleet status --watch
      facerec fleet status --format json | jq '.queue.visible'
    """  # noqa: D301 - as above
    from rich.live import Live

    from facerec.observability.logs import configure_logging

    settings = Settings.load()
    # Failures are shown in the table; log lines beside it would disturb it.
    configure_logging(LogSettings(level="error", format=settings.log.format), process="fleet")
    read = make_reader(settings)
    if not watch:
        seen = read()
        if form == "json":
            echo_json(seen.as_json(), indent=None)
        else:
            console().print(status_table(seen))
        if not seen.complete:
            raise Transient("something could not be read; see above")
        return
    with suppress(KeyboardInterrupt):
        if form == "json":
            while True:
                echo_json(read().as_json(), indent=None)
                time.sleep(1)
        with Live(status_table(read()), auto_refresh=False, console=console(), screen=sys.stdout.isatty()) as live:
            while True:
                time.sleep(1)
                live.update(status_table(read()), refresh=True)


@command.command("history")
@click.option("--since", type=Duration(), default="1h", show_default=True, help="How far back: 90s, 15m, 2h, 1d.")
@click.option("--plot", type=PictureFile(), help="Draw it into this PNG file instead.")
@_format
def history(since: timedelta, plot: Path | None, form: str) -> None:
    """Show backlog and fleet over time, every action and its reason. Records are kept for a week.

    \b
    Examples:
      facerec fleet history
      facerec fleet history --since 2h --plot fleet.png
      facerec fleet history --since 1d --format json
    """  # noqa: D301 - as above
    settings, now = Settings.load(), time.time()
    records = fleet_history(settings).records(now - since.total_seconds())
    if plot is not None:
        if not records:
            raise FacerecError("there is nothing to plot: no autoscaler has recorded anything since then")
        from autoscale.commands.plots import plot_history

        plot_history(records, plot, until=now)
        echo(f"{len(records)} records drawn into {plot}")
    elif form == "json":
        echo_json([asdict(record) for record in records])
    else:
        console().print(history_table(records))
