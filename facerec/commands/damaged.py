"""How commands show the templates that they leave out because they are damaged."""

from collections.abc import Sequence

from facerec.echo import echo
from facerec.engine.loading import load_artefact
from facerec.errors import ConfigurationError
from facerec.gallery.damaged import removal_command
from facerec.ports import DamagedTemplate
from facerec.settings import Settings
from facerec.text import counted

_SHOWN = 20


def known_dimensions(settings: Settings) -> dict[str, int]:
    """Return the dimension of the model in use by its id; empty without a model, which the caller does not need."""
    try:
        model = load_artefact(settings)
    except ConfigurationError:
        return {}
    return {model.model_id: model.dimension}


def print_damaged(collection: str, damaged: Sequence[DamagedTemplate]) -> None:
    """Print stored templates that were left out, with the command that removes them."""
    if not damaged:
        return
    command = removal_command(collection, damaged[0].template_id)
    echo(
        f"Left out, because they are damaged: {counted(len(damaged), 'template')}. Enrol the photos again, or remove "
        f"each by its id: `{command}`",
        err=True,
    )
    _print(damaged)


def print_not_imported(damaged: Sequence[DamagedTemplate]) -> None:
    """Print entries of a file that were left out."""
    if damaged:
        echo(f"Not imported, because they are damaged: {counted(len(damaged), 'template')}", err=True)
        _print(damaged)


def _print(damaged: Sequence[DamagedTemplate]) -> None:
    for found in damaged[:_SHOWN]:
        of = f" of {found.identity!r}" if found.identity else ""
        echo(f"  {found.template_id}{of}: {found.reason}", err=True)
    if len(damaged) > _SHOWN:
        echo(f"  and {len(damaged) - _SHOWN} more", err=True)
