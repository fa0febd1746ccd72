"""`facerec edge`: the component on a device, and what it needs in the cloud."""

import click

from facerec.commands import edge_component, edge_rules, edge_run, edge_things


@click.group("edge")
def command() -> None:
    """Detect faces on a device, recognise them in the cloud."""


command.add_command(edge_run.run)
command.add_command(edge_run.health)
command.add_command(edge_component.package)
command.add_command(edge_component.show_recipe)
command.add_command(edge_component.deploy)
command.add_command(edge_component.status)
command.add_command(edge_rules.command)
command.add_command(edge_things.provision)
command.add_command(edge_things.revoke)
command.add_command(edge_things.remove)
