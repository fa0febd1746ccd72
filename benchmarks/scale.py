"""Our autoscaler up to a thousand instances and a million requests an hour, in the simulator.

    python -m benchmarks.scale

It measures loads that need up to a thousand instances; the same loads if each launch were its own request under EC2's
token bucket (5 at once, 2 a second) instead of one request for all; and the time of one round of the decider with so
many instances. docs/scale.md discusses the figures. The last line is one JSON object. The exit status is 1 if a
request was lost or the cap exceeded.
"""

import argparse
import json
import sys
from dataclasses import replace
from random import Random
from statistics import median
from time import process_time

from autoscale.decider import Decider, Priors
from autoscale.observation import Reading
from autoscale.policy import Policy
from autoscale.simulator.fleet import SimulatedFleet
from autoscale.simulator.run import simulate
from autoscale.simulator.scenario import Environment, Load, LogNormal, Scenarios
from autoscale.simulator.workers import Queue, Schedule
from facerec.fleet_records import QueueDepth
from tests.support.measurements.summaries import scale_failures

MILLION_AN_HOUR = 1_000_000 / 3600


def main() -> None:
    """Run the loads and time the decider."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    environment = Scenarios.load().environment
    slow = replace(environment, service=LogNormal(5.0, 0.5))
    flow = Load("flow", "", 3900.0, rate=((60.0, MILLION_AN_HOUR), (3660.0, MILLION_AN_HOUR)))
    short_flow = Load("short-flow", "", 1500.0, rate=((60.0, MILLION_AN_HOUR), (1260.0, MILLION_AN_HOUR)))
    burst = Load("burst", "", 900.0, bursts=((60.0, 100_000),))
    runs = {
        "million_an_hour": run(flow, environment, 100),
        "million_an_hour_slow": run(short_flow, slow, 1000),
        "million_an_hour_slow_throttled": run(short_flow, throttled(slow), 1000),
        "burst_of_100000": run(burst, environment, 1000),
        "burst_of_100000_throttled": run(burst, throttled(environment), 1000),
    }
    timed = {str(count): decider_ms(count, environment) for count in (15, 100, 1000)}
    print(json.dumps(runs | {"decider_ms": timed}))
    sys.exit(1 if scale_failures(runs) else 0)


def throttled(environment: Environment) -> Environment:
    """Run under RunInstances' token bucket, with one instance per request."""
    return replace(environment, launches_per_second=2.0, launches_at_once=5)


def run(load: Load, environment: Environment, max_instances: int) -> dict[str, float]:
    """Return the figures of one run."""
    policy = Policy(max_instances=max_instances, warm_pool_max=environment.warm_pool_max)
    simulated = simulate(load.trace(environment, 0), environment, "ours", policy, 0, watch_seconds=5.0)
    outcome = simulated.outcome
    figures = {
        "requests": outcome.requests,
        "p50_s": round(outcome.p50_s, 2),
        "p95_s": round(outcome.p95_s, 2),
        "later_than_180_s": sum(latency > 180 for latency in simulated.latencies),  # noqa: PLR2004 - the web tier's wait
        "max_instances": outcome.max_instances,
        "most_visible": max(moment.visible for moment in simulated.moments),
        "most_in_flight": max(moment.in_flight for moment in simulated.moments),
        "over_cap": outcome.over_cap,
        "lost": outcome.lost,
    }
    print(f"  {load.name}: {figures}", file=sys.stderr)
    return figures


def decider_ms(count: int, environment: Environment) -> float:
    """Return the CPU time of one round over a busy fleet, without reading queue and fleet; the median of thirty."""
    events = Schedule()
    queue = Queue(events, 30.0, 1.0, Random(0))  # noqa: S311 - not used
    fleet = SimulatedFleet(events, queue, environment, [], count, "timing")
    fleet.launch(range(1, count + 1))
    while events.now < 300:  # noqa: PLR2004 - all have booted
        events.step()
    decider = Decider(Policy(max_instances=count), Priors())
    seconds = []
    for turn in range(30):
        reading = Reading(QueueDepth(100 * count, 16 * count), fleet.observe())
        started = process_time()
        decider.step(reading, events.now + turn)
        seconds.append(process_time() - started)
    return round(1000 * median(seconds), 2)


if __name__ == "__main__":
    main()
