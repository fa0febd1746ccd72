"""`facerec config`: the effective settings, and the reference table of the documentation."""

import json
import shlex
from typing import Any

import click
from pydantic_core import PydanticUndefined

from facerec.settings import MASK, Settings, effective, variables


@click.command("config")
@click.option(
    "--format",
    "form",
    type=click.Choice(["env", "json", "markdown"]),
    default="env",
    show_default=True,
    help="`env`: lines for a shell or an environment file; `markdown`: the table in docs/configuration.md.",
)
def command(form: str) -> None:
    """Print the effective settings, with secrets masked.

    \b
    Examples:
      facerec config
      FACEREC_WEB__PORT=9000 facerec config --format json
      facerec config --format markdown > docs/configuration.md
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if form == "markdown":
        click.echo(markdown(), nl=False)
        return
    values = effective(Settings.load())
    if form == "json":
        click.echo(json.dumps(values, indent=2))
    else:
        for name, value in values.items():
            click.echo(_line(name, value))


def _line(name: str, value: str) -> str:
    """A line that a shell or an environment file can read; a secret is a comment, so that its mask is not read."""
    if MASK in value:
        return f"# {name} is set (not shown)"
    # An empty variable would not be unset.
    return f"{name}={shlex.quote(value)}" if value else f"# {name} is unset"


def _written(default: Any) -> str:
    """A default as one would write it in the variable."""
    return json.dumps(default) if isinstance(default, tuple) else str(default)


def markdown() -> str:
    """Return the page docs/configuration.md: every variable with its default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Every setting is an environment variable. `facerec config --format markdown` generates this page; a test",
        "keeps it complete. Unknown `FACEREC_*` names and wrong values are refused at start-up, all at once. AWS",
        "credentials come only from boto3's default chain.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in variables():
        default = "" if field.default is None or field.default is PydanticUndefined else f"`{_written(field.default)}`"
        lines.append(f"| `{name}` | {default} | {field.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
