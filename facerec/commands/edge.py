"""`facerec edge`: the component on a device, and what it needs in the cloud."""

import click


@click.group("edge")
def command() -> None:
    """Detect faces on a device, recognise them in the cloud."""
