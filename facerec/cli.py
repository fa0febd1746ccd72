"""The `facerec` command. A subcommand's module is imported when it is called, so that `--help` stays quick."""

import importlib
import sys
import traceback
from types import TracebackType
from typing import Any, NoReturn

import click

from facerec import __version__
from facerec.echo import echo_error
from facerec.errors import FacerecError
from facerec.text import one_line

_COMMANDS = {
    "autoscale": (
        "autoscale.commands.autoscale:command",
        "Keep the fleet of EC2 instances at the size that the backlog needs.",
    ),
    "calibrate": ("facerec.commands.calibrate:command", "Set a collection's threshold for a false match rate."),
    "config": ("facerec.commands.config:command", "Print the effective settings, or the table of all of them."),
    "dlq": ("facerec.commands.dlq:command", "List, show, redrive and purge the messages of the dead-letter queue."),
    "edge": (
        "facerec.commands.edge:command",
        "Detect faces on a device: run there; provision it, deploy to it, and make its rules in the cloud.",
    ),
    "enrol": ("facerec.commands.enrol:command", "Add photos of people to the gallery."),
    "evaluate": ("facerec.commands.evaluate:command", "Measure the model's accuracy on labelled pairs of photos."),
    "fleet": ("autoscale.commands.fleet:command", "Show the fleet of EC2 instances, now and over time."),
    "flower": ("facerec.flower.command:command", "Show workers, tasks and queues in a browser."),
    "gallery": (
        "facerec.commands.gallery:command",
        "Export, import, check and rebuild collections of enrolled people.",
    ),
    "keys": ("facerec.commands.keys:command", "Make, list, rotate and revoke the API keys of the web tier's clients."),
    "local": ("facerec.local.command:command", "Run the whole system on this machine against an emulated AWS."),
    "model": ("facerec.commands.model:command", "Build, show, verify, push and pull the model artefact."),
    "openapi": ("facerec.web.command:openapi", "Print the OpenAPI document of /api/v1."),
    "people": (
        "facerec.commands.people:command",
        "List, show, rename, merge and remove people, and remember who somebody is not.",
    ),
    "policies": ("facerec.commands.provision:policies", "Print the least-privilege IAM policy of each role."),
    "provision": (
        "facerec.commands.provision:command",
        "Create buckets, queues, tables and the launch template.",
    ),
    "recognise": (
        "facerec.commands.recognise:command",
        "Recognise photos by a running web tier, as one of its clients.",
    ),
    "serverless": (
        "facerec.commands.serverless:command",
        "Run the app tier as Lambda functions: push their image, deploy, show, remove.",
    ),
    "simulate": (
        "autoscale.commands.simulate:command",
        "Compare the autoscaler with published rules on a simulated load.",
    ),
    "trace": ("facerec.commands.trace:command", "Show what became of one request, from logs and the object store."),
    "web": ("facerec.web.command:command", "Run the web tier."),
    "worker": ("tasks.command:command", "Run the app tier's Celery worker."),
}
"""Name → where its click command is defined, and the line that `--help` shows."""

_OWN_PACKAGES = frozenset({"autoscale", "facerec", "model", "tasks"})


class _LazyGroup(click.Group):
    logs = False
    """Whether log records of commands go to stderr in our form; `main` sets it, because the process is its own."""

    def invoke(self, ctx: click.Context) -> Any:
        if self.logs:
            _configure_logging()
        try:
            return super().invoke(ctx)
        except click.ClickException as exc:
            # It may quote the name of a file that a shell's pattern matched.
            exc.message = one_line(exc.message)  # type: ignore[misc]  # click prints this attribute later
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
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
    """Run the command line; a `FacerecError` or a missing extra ends it with one line on stderr and exit status 1."""
    sys.excepthook = _show_traceback
    cli.logs = True
    try:
        cli()
    except FacerecError as exc:
        _end(str(exc), several_lines=exc.several_lines)
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in _OWN_PACKAGES:
            raise
        _end(f"{missing} is not installed: add its tier's extra: `pip install '.[web,worker,autoscale,flower,local]'`")


def _configure_logging() -> None:
    """Show warnings on stderr, cleaned. Without it structlog prints every record on standard output, as it is.

    Commands that are services configure their logs themselves, from the settings.
    """
    from facerec.observability.logs import configure_logging
    from facerec.settings.tiers import LogSettings

    configure_logging(LogSettings(level="warning"), process="facerec")


def _show_traceback(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    echo_error(
        "unexpected error\n" + "".join(traceback.format_exception(kind, exc, trace)).rstrip("\n"), several_lines=True
    )


def _end(sentence: str, *, several_lines: bool = False) -> NoReturn:
    echo_error(sentence, several_lines=several_lines)
    sys.exit(1)


if __name__ == "__main__":
    main()
