"""`facerec fleet`: the fleet of EC2 instances, now and over time."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from autoscale.status import FleetStatus
from facerec.commands.durations import Duration
from facerec.commands.fleet_user_data import user_data
from facerec.commands.picture_file import PictureFile
from facerec.commands.printing import console
from facerec.errors import FacerecError, Transient
from facerec.setting_groups import LogSettings
from facerec.settings import Settings


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

    from facerec.commands.fleet_status import rendered

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
    from autoscale import bootstrap
    from autoscale.aws.lease import lease_owner
    from autoscale.process import policy_of
    from autoscale.status import status as status_of
    from facerec.bootstrap import clients, worker_reports
    from facerec.logs import configure_logging

    # What fails is shown in its place; warnings beside it would tear the picture.
    configure_logging(LogSettings(level="error", format=settings.log.format), process="fleet")
    # The lease is never taken, so that the fleet is only looked at.
    fleet = bootstrap.fleet(settings, bootstrap.lease(settings), worker_reports(settings))
    backlog, chronicle = bootstrap.backlog(settings), bootstrap.chronicle(settings)
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
    from autoscale import bootstrap
    from facerec.commands.fleet_status import listed

    now = time.time()
    records = bootstrap.chronicle(Settings.load()).records(now - since.total_seconds())
    if plot is not None:
        if not records:
            raise FacerecError("there is nothing to plot: no autoscaler has recorded anything since then")
        from facerec.commands.fleet_plot import draw

        draw(records, plot, until=now)
        click.echo(f"{len(records)} records drawn into {plot}")
    elif form == "json":
        click.echo(json.dumps([asdict(record) for record in records], indent=2))
    else:
        console().print(listed(records))
