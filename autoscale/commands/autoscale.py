"""`facerec autoscale`, which is also `python -m autoscale`."""

import click
from pydantic import ValidationError

from autoscale.observation import Unreadable
from autoscale.policy import Decision, Hold
from autoscale.reconcile_result import ReconcileResult
from facerec.echo import echo_document
from facerec.errors import ConfigurationError, LeaseLost, Transient
from facerec.settings import Settings
from facerec.settings.tiers import AutoscaleSettings
from facerec.text import one_line


@click.command("autoscale", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--max-instances",
    type=click.IntRange(min=1),
    help="Instances that may be pending, running or draining at once  [FACEREC_AUTOSCALE__MAX_INSTANCES].",
)
@click.option(
    "--cooldown-seconds",
    type=click.FloatRange(min=0),
    help="How long an instance is idle before it is drained  [FACEREC_AUTOSCALE__COOLDOWN_SECONDS].",
)
@click.option(
    "--once",
    is_flag=True,
    help="Do one round, print its decision, and end; it drains no idle instance unless the cooldown is 0.",
)
@click.option("--dry-run", is_flag=True, help="Decide and print, and never act; another autoscaler may be active.")
def command(max_instances: int | None, cooldown_seconds: float | None, once: bool, dry_run: bool) -> None:  # noqa: FBT001 - click passes by name
    """Keep the fleet at the size that the backlog needs, until SIGTERM or Ctrl-C.

    From zero to the cap and back: it launches instances at once if they are worth their boot, and drains and stops
    idle ones after the cooldown. Exactly one autoscaler acts; a second one waits and takes over. When it ends, the
    instances stay as they are. All other settings come from FACEREC_AUTOSCALE__* (`facerec config`).

    \b
    Examples:
      facerec autoscale
      facerec autoscale --max-instances 4 --cooldown-seconds 0
      facerec autoscale --once --dry-run
      FACEREC_AUTOSCALE__METRICS_PORT=9100 python -m autoscale
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from autoscale import process
    from facerec.observability.logs import configure_logging

    settings = _settings(max_instances, cooldown_seconds)
    configure_logging(settings.log, process="autoscale")
    if once:
        result = process.run_once(settings, dry_run=dry_run)
        echo_document(describe_round(result, dry_run=dry_run))
        if result.decision is None:
            raise LeaseLost("another autoscaler is active; `--dry-run` decides beside it")
        if isinstance(result.decision, Hold):
            raise Transient(result.decision.reason)
    elif dry_run:
        process.run(settings, _Printer().show, dry_run=True)
    else:
        process.run(settings)


def describe_round(result: ReconcileResult, *, dry_run: bool = False) -> str:
    """Describe a round in some lines for people."""
    lines = []
    if result.observation is not None:
        depth, fleet = result.observation.depth, result.observation.fleet
        if isinstance(depth, Unreadable):
            lines.append(f"queue    unreadable: {depth.reason}")
        else:
            lines.append(f"queue    {depth.visible} visible, {depth.in_flight} in flight, {depth.delayed} delayed")
        if isinstance(fleet, Unreadable):
            lines.append(f"fleet    unreadable: {fleet.reason}")
        else:
            counts = ", ".join(f"{count} {name}" for name, count in fleet.counts.items() if count)
            lines.append(f"fleet    {counts or 'no instances'}")
    if isinstance(result.decision, Decision):
        lines.append(f"needed   {result.decision.needed}: {result.decision.reason}")
        lines.append(f"{'would' if dry_run else 'did':<8} {result.actions_text or 'nothing'}")
    elif isinstance(result.decision, Hold):
        lines.append(f"holds    {result.decision.reason}")
    return "\n".join(map(one_line, lines))


class _Printer:
    """Prints a round of a dry run that differs from the previous one."""

    def __init__(self) -> None:
        self._last = ""

    def show(self, result: ReconcileResult) -> None:
        text = describe_round(result, dry_run=True)
        if text != self._last:
            echo_document(f"{text}\n\n")
        self._last = text


def _settings(max_instances: int | None, cooldown_seconds: float | None) -> Settings:
    settings = Settings.load()
    chosen = {"max_instances": max_instances, "cooldown_seconds": cooldown_seconds}
    changes = {name: value for name, value in chosen.items() if value is not None}
    try:
        autoscale = AutoscaleSettings(**settings.autoscale.model_dump() | changes)
    except ValidationError as exc:
        raise ConfigurationError(str(exc.errors()[0]["msg"]).removeprefix("Value error, ")) from exc
    return settings.changed(autoscale=autoscale)
