"""`facerec config`: print the effective settings or the page docs/configuration.md."""

import json
import shlex
from typing import Any

import click
from pydantic_core import PydanticUndefined

from facerec.echo import echo_document, echo_json
from facerec.settings import MASK, Settings, effective, variables


@click.command("config")
@click.option(
    "--format",
    "form",
    type=click.Choice(["env", "json", "markdown"]),
    default="env",
    show_default=True,
    help="`env`: lines for a shell or an environment file; `markdown`: the page docs/configuration.md.",
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
        echo_document(markdown())
        return
    values = effective(Settings.load())
    if form == "json":
        echo_json(values)
    else:
        for name, value in values.items():
            echo_document(_line(name, value))


def _line(name: str, value: str) -> str:
    """Return a line for a shell or an environment file; a secret is a comment, so that its mask is never read."""
    if MASK in value:
        return f"# {name} is set (not shown)"
    # A variable with an empty value is not unset.
    return f"{name}={shlex.quote(value)}" if value else f"# {name} is unset"


def _written(default: Any) -> str:
    """Return a default as the variable's value."""
    return json.dumps(default) if isinstance(default, tuple) else str(default)


def markdown() -> str:
    """Return the page docs/configuration.md: every variable with its default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Every setting is an environment variable. Every command checks all of them at its start, and refuses unknown",
        "names and wrong values. AWS credentials come only from boto3's default chain.",
        "`facerec config --format markdown` prints this page.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in variables():
        default = "" if field.default is None or field.default is PydanticUndefined else f"`{_written(field.default)}`"
        lines.append(f"| `{name}` | {default} | {field.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
