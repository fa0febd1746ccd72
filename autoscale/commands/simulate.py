"""`facerec simulate`: how scaling policies handle a load, without AWS."""

from dataclasses import replace
from pathlib import Path

import click

from autoscale.simulator.run import POLICIES, Run, simulate
from autoscale.simulator.scenario import Load, Scenarios, read_trace
from facerec.commands.terminal import PictureFile
from facerec.echo import console, echo_json
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from facerec.text import one_line

_MOMENTS = 1000
"""Points of a plot."""


@click.command("simulate")
@click.argument("trace", required=False)
@click.option(
    "--policy",
    "policies",
    type=click.Choice([*POLICIES, "all"]),
    default="all",
    show_default=True,
    help="Ours, or a published rule to compare it with.",
)
@click.option("--max-instances", type=click.IntRange(min=1), help="The cap  [FACEREC_AUTOSCALE__MAX_INSTANCES].")
@click.option("--min-instances", type=click.IntRange(min=0), help="Ours  [FACEREC_AUTOSCALE__MIN_INSTANCES].")
@click.option(
    "--target", type=click.FloatRange(min=0, min_open=True), help="Ours  [FACEREC_AUTOSCALE__TARGET_SECONDS]."
)
@click.option("--cooldown", type=click.FloatRange(min=0), help="Ours  [FACEREC_AUTOSCALE__COOLDOWN_SECONDS].")
@click.option("--boot", type=click.FloatRange(min=1), help="Mean seconds from a launch to the first task.")
@click.option("--service", type=click.FloatRange(min=0.001), help="Mean seconds of an engine for a request.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other times.")
@click.option("--plot", type=PictureFile(), help="Write a picture there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    trace: str | None,
    policies: str,
    max_instances: int | None,
    min_instances: int | None,
    target: float | None,
    cooldown: float | None,
    boot: float | None,
    service: float | None,
    seed: int,
    plot: Path | None,
    as_json: bool,  # noqa: FBT001 - click passes by name
) -> None:
    """Run TRACE through the autoscaler and through published rules, in simulated time.

    TRACE is a name out of autoscale/simulator/scenarios.toml (without TRACE they are listed), or a file with an arrival
    time in seconds on each line. Our policy is the code that runs in production, with the settings of
    FACEREC_AUTOSCALE__*; --boot and --service set the simulated times, which our autoscaler has to measure.

    \b
    Examples:
      facerec simulate
      facerec simulate burst-1000
      facerec simulate diurnal --policy ours --plot diurnal.png
      facerec simulate spikes --cooldown 20 --target 5 --max-instances 30
      facerec simulate arrivals.csv --boot 90 --service 0.5 --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from autoscale.process import make_policy, make_priors

    scenarios = Scenarios.load()
    if trace is None:
        _list(scenarios)
        return
    environment = scenarios.environment
    if boot is not None:
        environment = replace(environment, boot=replace(environment.boot, mean=boot))
    if service is not None:
        environment = replace(environment, service=replace(environment.service, mean=service))
    settings = Settings.load().autoscale
    # The baselines keep as many stopped instances as ours.
    environment = replace(environment, warm_pool_max=settings.warm_pool_max)
    policy = make_policy(settings)
    policy = replace(
        policy,
        min_instances=policy.min_instances if min_instances is None else min_instances,
        max_instances=policy.max_instances if max_instances is None else max_instances,
        target_seconds=policy.target_seconds if target is None else target,
        cooldown_seconds=policy.cooldown_seconds if cooldown is None else cooldown,
    )
    if policy.min_instances > policy.max_instances:
        raise ConfigurationError(
            f"--min-instances {policy.min_instances} must not exceed --max-instances {policy.max_instances}"
        )
    priors = make_priors(settings)
    drawn = _load(trace, scenarios).trace(environment, seed)
    watch = drawn.duration_seconds / _MOMENTS if plot is not None else None
    names = POLICIES if policies == "all" else (policies,)
    runs = {name: simulate(drawn, environment, name, policy, seed, priors, watch) for name in names}
    if plot is not None:
        from autoscale.commands.plots import plot_simulation

        plot_simulation(plot, drawn, runs, policy)
    if as_json:
        echo_json({name: run.outcome.to_json() for name, run in runs.items()})
    else:
        _print(f"{drawn.name}, {len(drawn.arrivals):,} requests", runs)


def _load(trace: str, scenarios: Scenarios) -> Load:
    if trace in scenarios.loads:
        return scenarios.loads[trace]
    if not Path(trace).exists():
        raise ConfigurationError(
            f"there is no trace {trace}, and no such file: take one of {', '.join(scenarios.loads)}, or a file with an "
            "arrival time in seconds on each line"
        )
    return read_trace(Path(trace))


def _list(scenarios: Scenarios) -> None:
    from rich.table import Table

    table = Table("trace", "minutes", "what it is")
    for name, load in scenarios.loads.items():
        table.add_row(name, f"{load.duration_seconds / 60:g}", load.about)
    console().print(table)


def _print(title: str, runs: dict[str, Run]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("policy", no_wrap=True),
        title=Text(one_line(title), "table.title"),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in ("p50 s", "p95 s", "p99 s", "inst. s", "$/1000", "most", "over", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, run in runs.items():
        outcome = run.outcome
        table.add_row(
            name,
            f"{outcome.p50_s:.2f}",
            f"{outcome.p95_s:.2f}",
            f"{outcome.p99_s:.2f}",
            f"{outcome.instance_seconds:,.0f}",
            f"{outcome.cost_per_1000:.4f}",
            str(outcome.max_instances),
            f"{outcome.over_cap:g}",
            str(outcome.lost),
        )
    console().print(table)
