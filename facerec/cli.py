"""The `facerec` command: the top layer. Subcommands load when they are called, so that `--help` stays quick."""

import importlib
import sys
from typing import NoReturn

import click

from facerec import __version__
from facerec.errors import FacerecError

_COMMANDS = {
    "autoscale": ("autoscale", "Keep the fleet of EC2 instances at the size that the backlog needs."),
    "calibrate": ("calibrate", "Set a collection's threshold for a false match rate."),
    "config": ("config", "Print the effective settings, or the table of all of them."),
    "dlq": ("dlq", "List, show, redrive and purge what waits in the dead-letter queue."),
    "enrol": ("enrol", "Add photos of people to the gallery."),
    "evaluate": ("evaluate", "Measure the model's accuracy on labelled pairs of photos."),
    "fleet": ("fleet", "Show the fleet of EC2 instances, now and over time."),
    "flower": ("flower", "Show workers, tasks and queues in a browser."),
    "gallery": ("gallery", "List, show, remove, export and import enrolled people."),
    "keys": ("keys", "Make, list, rotate and revoke the API keys of the web tier's clients."),
    "local": ("local", "Run the whole system on this machine against an emulated AWS."),
    "model": ("model", "Build, show, verify, push and pull the model artefact."),
    "policies": ("policies", "Print the least-privilege IAM policy of each role."),
    "provision": ("provision", "Create buckets, queues, tables and the launch template, idempotently."),
    "simulate": ("simulate", "Compare the autoscaler with published rules on a simulated load."),
    "trace": ("trace", "Tell the story of one request, from logs and the object store."),
    "web": ("web", "Run the web tier."),
    "worker": ("worker", "Run the app tier's Celery worker."),
}
"""Name → module in `facerec.commands` (its attribute `command`), and the line that `--help` shows."""

_OURS = frozenset({"autoscale", "facerec", "model", "tasks"})


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"facerec.commands.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings come from FACEREC_* variables (`facerec config`); AWS credentials from boto3's default chain.",
)
@click.version_option(__version__, prog_name="facerec")
def cli() -> None:
    """Elastic face recognition on AWS."""


def main() -> None:
    """Run the command line; an error of ours, or a missing extra, becomes one line on stderr and exit status 1."""
    try:
        cli()
    except FacerecError as exc:
        _end(str(exc))
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in _OURS:
            raise
        _end(f"{missing} is not installed: add its tier's extra: `pip install '.[web,worker,autoscale,flower,local]'`")


def _end(sentence: str) -> NoReturn:
    click.echo(f"facerec: {sentence}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
