"""`facerec edge provision`, `revoke` and `remove`: the identity of a device in AWS IoT."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.terminal import yes_option
from facerec.echo import confirm, echo
from facerec.settings import Settings
from facerec.settings.edge import THING_NAME

if TYPE_CHECKING:
    from facerec.provision.resources import Resource


def _check(_context: click.Context, _argument: click.Parameter, name: str) -> str:
    """As in `EdgeSettings`."""
    if not re.fullmatch(THING_NAME, name):
        raise click.BadParameter(f"{name!r} is no name of a thing: 1 to 100 letters, digits, hyphens and underscores")
    return name


thing_argument = click.argument("thing", callback=_check)


@click.command("provision")
@thing_argument
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), help="Folder of its files.  [default: THING]"
)
@click.option("--rotate", is_flag=True, help="Replace its certificate by a new one, and deactivate the former one.")
@click.option("--greengrass", is_flag=True, help="For a Greengrass core: also what its nucleus needs.")
def provision(thing: str, folder: Path | None, *, rotate: bool, greengrass: bool) -> None:
    """Make THING a device of AWS IoT, or repair it; repeating it changes nothing.

    The folder gets its certificate, its private key and `edge.env`, the settings with which it connects. Nothing else
    has the key. Copy the folder to the device over a private way, and delete it here. The policy of the certificate
    lets the device use its own topics alone. FACEREC_EDGE__ENDPOINT, __PORT and __CA_FILE are for a broker that is
    not the account's.

    \b
    Examples:
      facerec edge provision gate-camera --to gate-camera
      facerec edge provision gate-camera --to gate-camera --rotate
      set -a; . gate-camera/edge.env; facerec edge run
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.bootstrap import clients
    from facerec.provision.edge.thing_folder import ThingFolder
    from facerec.provision.edge.things import Things

    settings = Settings.load()
    place = ThingFolder(Path(thing) if folder is None else folder)
    Things(clients(settings), settings, _show).provision(thing, place, rotate=rotate, greengrass=greengrass)


@click.command("revoke")
@thing_argument
@yes_option
def revoke(thing: str, *, yes: bool) -> None:
    """Deactivate the certificate of THING, whose device was lost or taken over: it can connect no more.

    `facerec edge provision THING --rotate` gives it a new one.

    \b
    Examples:
      facerec edge revoke gate-camera
      facerec edge revoke gate-camera --yes
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.things import Things

    settings = Settings.load()
    if not yes:
        confirm(f"Deactivate the certificate of {thing!r}? Its device can connect no more.")
    revoked = Things(clients(settings), settings).revoke(thing)
    for identifier in revoked:
        echo(f"certificate {identifier} is inactive")
    if not revoked:
        echo(f"thing {thing} has no certificate")


@click.command("remove")
@thing_argument
@yes_option
def remove(thing: str, *, yes: bool) -> None:
    """Delete THING with its certificate and its policy from AWS IoT; files of the device stay.

    \b
    Examples:
      facerec edge remove gate-camera
      facerec edge remove gate-camera --yes
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.things import Things

    settings = Settings.load()
    if not yes:
        confirm(f"Delete {thing!r} from AWS IoT? Its device can connect no more.")
    removed = Things(clients(settings), settings).remove(thing)
    for what in removed:
        echo(f"{what} is deleted")
    if not removed:
        echo(f"there is no thing {thing}")


def _show(resource: "Resource") -> None:
    echo(f"{resource.state:<10} {resource.kind:<15} {resource.name}")
    for note in resource.notes:
        echo(f"{'':<10} note: {note}")
