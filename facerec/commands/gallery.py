"""`facerec gallery`: the enrolled people of a collection."""

import click

from facerec.commands.enrol import rebuild
from facerec.commands.gallery_check import check
from facerec.commands.gallery_files import export, import_, import_pt
from facerec.commands.gallery_snapshot import snapshot
from facerec.commands.open_gallery import open_gallery
from facerec.commands.people import list_, removal_command, show
from facerec.echo import echo
from facerec.message_base import DEFAULT_COLLECTION


@click.group("gallery")
def command() -> None:
    """List, show, remove, export, import, check and rebuild enrolled people.

    Damaged templates are left out, and listed with their ids on standard error.

    \b
    Examples:
      facerec gallery list
      facerec gallery remove --template 0123456789abcdef0123456789abcdef      # also a damaged one
      facerec gallery remove "Ada Lovelace" --template 0123456789abcdef0123456789abcdef --yes
      facerec gallery export --photos backup.facerec
      facerec gallery import backup.facerec
      facerec gallery import-pt data.pt --model casia-webface
      facerec gallery rebuild --all-collections     # after a change of the model
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


command.add_command(list_)
command.add_command(show)
command.add_command(removal_command("0s"))
command.add_command(check)
command.add_command(rebuild)
command.add_command(export)
command.add_command(import_)
command.add_command(import_pt)
command.add_command(snapshot)


@command.command("collections")
def collections() -> None:
    """List the collections that hold templates."""
    for name in open_gallery(DEFAULT_COLLECTION).templates.collections():
        echo(name)
