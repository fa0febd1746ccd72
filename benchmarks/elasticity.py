"""Our autoscaler against three published rules, in the simulator: latency and cost.

    python -m benchmarks.elasticity                              # every trace, policy and seed; about five minutes
    python -m benchmarks.elasticity --trace spikes --seeds 3
    python -m benchmarks.elasticity --cooldown 20 --target 5     # other settings

Traces, instances, price and seeds are in autoscale/simulator/scenarios.toml. A policy dominates another on a trace
when both its p95 and its cost are lower, in the median over the seeds. `ours-from-one` is ours with min_instances 1:
target tracking also needs an instance that always runs. Both comparisons are reported.
The last line is one JSON object. The exit status is 1 when a request was lost, the cap exceeded, or ours dominated.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from statistics import median

from autoscale.policy import Policy
from autoscale.simulator.run import POLICIES, RunOutcome, simulate
from autoscale.simulator.scenario import Scenarios
from tests.support.measurements.summaries import FROM_ONE, PolicyFigures, Table, comparison, comparison_failures


def main() -> None:
    """Run the comparison."""
    scenarios = Scenarios.load()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--trace", action="append", choices=scenarios.loads, help="run only this trace; may be repeated"
    )
    parser.add_argument("--seeds", type=int, default=scenarios.seeds, help="default: %(default)s")
    parser.add_argument("--max-instances", type=int, default=Policy().max_instances, help="default: %(default)s")
    parser.add_argument("--target", type=float, default=Policy().target_seconds, help="ours; default: %(default)s s")
    parser.add_argument(
        "--cooldown", type=float, default=Policy().cooldown_seconds, help="ours; default: %(default)s s"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: %(default)s")
    options = parser.parse_args()
    policy = Policy(
        max_instances=options.max_instances, target_seconds=options.target, cooldown_seconds=options.cooldown
    )
    names = options.trace or list(scenarios.loads)
    tasks = [(trace, name) for trace in names for name in (*POLICIES, FROM_ONE)]
    table: Table = {trace: {} for trace in names}
    with ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(partial(measured, scenarios=scenarios, policy=policy, seeds=options.seeds), tasks)
        for (trace, name), figures in zip(tasks, results, strict=True):
            table[trace][name] = figures
            tell(trace, name, figures)
    summary = comparison(table)
    print(json.dumps({"traces": table, "summary": summary}))
    sys.exit(1 if comparison_failures(summary) else 0)


def measured(task: tuple[str, str], scenarios: Scenarios, policy: Policy, seeds: int) -> PolicyFigures:
    """The medians over the seeds; of losses and excesses, the worst."""
    trace, name = task
    environment = scenarios.environment
    policy = replace(policy, warm_pool_max=environment.warm_pool_max)
    if name == FROM_ONE:
        name, policy = "ours", replace(policy, min_instances=1)
    outcomes: list[RunOutcome] = []
    for seed in range(seeds):
        drawn = scenarios.loads[trace].trace(environment, seed)
        outcomes.append(simulate(drawn, environment, name, policy, seed).outcome)
    worst = {"over_cap", "lost", "max_instances"}
    columns = {key: [asdict(outcome)[key] for outcome in outcomes] for key in asdict(outcomes[0])}
    return {key: round(max(column) if key in worst else median(column), 6) for key, column in columns.items()}


def tell(trace: str, policy: str, figures: PolicyFigures) -> None:
    """One line of progress."""
    print(
        f"  {trace:11} {policy:16} p50 {figures['p50_s']:7.2f} s  p95 {figures['p95_s']:7.2f} s  "
        f"{figures['instance_seconds']:7.0f} instance s  {figures['cost_per_1000']:.4f} $ a thousand  "
        f"at most {figures['max_instances']:.0f}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
