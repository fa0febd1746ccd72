"""`facerec autoscale`, which is `python -m autoscale`."""

import click
from pydantic import ValidationError

from autoscale.observation import Limits, Unreadable
from autoscale.policy import Decision, Hold
from autoscale.round_result import Round
from facerec.errors import ConfigurationError, LeaseLost, Transient
from facerec.settings import Settings
from facerec.settings.tiers import AutoscaleSettings


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
@click.option("--once", is_flag=True, help="Do one round, print its decision, and end.")
@click.option("--dry-run", is_flag=True, help="Decide and print, and never act; another autoscaler may be active.")
def command(max_instances: int | None, cooldown_seconds: float | None, once: bool, dry_run: bool) -> None:  # noqa: FBT001 - click passes by name
    """Keep the fleet at the size that the backlog needs, until SIGTERM or Ctrl-C.

    From zero to the cap and back: instances that are still worth their start are launched at once, idle ones are
    drained and stopped after the cooldown. Exactly one autoscaler acts, a second one waits and takes over. On its end
    the instances stay as they are. All other settings come from FACEREC_AUTOSCALE__* (`facerec config`).

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
    limits = process.policy_of(settings.autoscale).limits
    if once:
        done = process.once(settings, rehearsal=dry_run)
        click.echo(described(done, limits, rehearsal=dry_run))
        if done.decision is None:
            raise LeaseLost("another autoscaler is active; `--dry-run` decides beside it")
        if isinstance(done.decision, Hold):
            raise Transient(done.decision.reason)
    elif dry_run:
        process.run(settings, _Printer(limits).show, rehearsal=True)
    else:
        process.run(settings)


def described(done: Round, limits: Limits, *, rehearsal: bool = False) -> str:
    """A round in some lines for people."""
    lines = []
    if done.observation is not None:
        depth, fleet = done.observation.depth, done.observation.fleet
        if isinstance(depth, Unreadable):
            lines.append(f"queue    unreadable: {depth.reason}")
        else:
            lines.append(f"queue    {depth.visible} visible, {depth.in_flight} in flight, {depth.delayed} delayed")
        if isinstance(fleet, Unreadable):
            lines.append(f"fleet    unreadable: {fleet.reason}")
        phases = done.phases(limits) or {}
        counts = ", ".join(f"{count} {name}" for name, count in phases.items() if count)
        if phases:
            lines.append(f"fleet    {counts or 'no instances'}")
    if isinstance(done.decision, Decision):
        lines.append(f"needed   {done.decision.needed}: {done.decision.reason}")
        lines.append(f"{'would' if rehearsal else 'did':<8} {done.words or 'nothing'}")
    elif isinstance(done.decision, Hold):
        lines.append(f"holds    {done.decision.reason}")
    return "\n".join(lines)


class _Printer:
    """Prints a round that differs from the one before."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last = ""

    def show(self, done: Round) -> None:
        """Print it, if it is new."""
        text = described(done, self._limits, rehearsal=True)
        if text != self._last:
            click.echo(f"{text}\n")
        self._last = text


def _settings(max_instances: int | None, cooldown_seconds: float | None) -> Settings:
    settings = Settings.load()
    chosen = {"max_instances": max_instances, "cooldown_seconds": cooldown_seconds}
    changes = {name: value for name, value in chosen.items() if value is not None}
    try:
        autoscale = AutoscaleSettings(**settings.autoscale.model_dump() | changes)
    except ValidationError as exc:
        raise ConfigurationError(str(exc.errors()[0]["msg"]).removeprefix("Value error, ")) from exc
    return Settings(**{name: getattr(settings, name) for name in Settings.model_fields} | {"autoscale": autoscale})
