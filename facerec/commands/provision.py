"""`facerec provision`: the buckets, queues, tables and the launch template."""

import json
from dataclasses import asdict

import click

from facerec.settings import Settings


@click.command("provision")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per resource.")
def command(as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Create the buckets, queues and tables, and the instances' launch template, idempotently.

    What exists is left, with its attributes repaired where they differ. The names come from the settings. The launch
    template is provisioned where FACEREC_INSTANCES__IMAGE_ID says what to launch.

    \b
    Examples:
      facerec provision
      FACEREC_PREFIX=staging facerec provision --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.aws.clients import Clients
    from facerec.aws.provision import provision
    from facerec.aws.resources import Resource

    def report(resource: Resource) -> None:
        if as_json:
            click.echo(json.dumps(asdict(resource)))
            return
        click.echo(f"{resource.state:<10} {resource.kind:<15} {resource.name}")
        for note in resource.notes:
            click.echo(f"{'':<10} note: {note}")

    settings = Settings.load()
    provision(Clients(settings), settings, report)
