"""AWS target tracking on the backlog per instance, by its published rules and defaults.

Sources:

- https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-using-sqs-queue.html : the metric is
  ApproximateNumberOfMessages by instances in service; its target is the acceptable latency by the time for a message;
- https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html : capacity grows in proportion
  to the metric and shrinks more gradually; instances that warm up count as capacity; while they do, nothing is taken
  away; 300 s is the default;
- the alarms that it creates: three datapoints of a minute above the target, fifteen below nine tenths of it.

Choices, in its favour: the metric has no lag beyond its minute. At no instance it is not defined, so that a group
scales from one: `min_instances` is 1. How gradually it shrinks is not published: here by a tenth, at least one, a
minute.
"""

import math
from collections import deque
from collections.abc import Sequence

from autoscale.simulator.scalers import Loop, World


class TargetTracking:
    """A scaling group with one policy."""

    period_seconds = 60.0
    high_datapoints = 3
    low_datapoints = 15
    low_share = 0.9
    warm_up_seconds = 300.0
    min_instances = 1

    def __init__(self, world: World, acceptable_backlog: float) -> None:
        self.desired = self.min_instances
        self._world = world
        self._target = acceptable_backlog
        self._metric: deque[float] = deque(maxlen=self.low_datapoints)
        self._grew_at = -math.inf
        world.fleet.resize(self.desired)

    def loops(self) -> Sequence[Loop]:
        """The metric and its alarms; the group itself replaces at once who is missing."""
        return [(self.period_seconds, self._step), (5.0, self._keep)]

    def _keep(self) -> None:
        self._world.fleet.resize(self.desired)

    def _step(self) -> None:
        in_service = self._world.fleet.serving
        if in_service == 0:  # no datapoint: the alarms have insufficient data
            self._metric.clear()
            return
        self.desired = self.capacity(self._world.queue.counts.visible, in_service, self._world.events.now)
        self._world.fleet.resize(self.desired)

    def capacity(self, backlog: int, in_service: int, now: float) -> int:
        """The group's size after one more datapoint."""
        self._metric.append(backlog / in_service)
        latest = list(self._metric)
        if len(latest) >= self.high_datapoints and min(latest[-self.high_datapoints :]) > self._target:
            wanted = min(math.ceil(in_service * latest[-1] / self._target), self._world.fleet.max_instances)
            if wanted > self.desired:
                self._grew_at = now
                return wanted
        elif (
            len(latest) == self.low_datapoints
            and max(latest) < self.low_share * self._target
            and now - self._grew_at >= self.warm_up_seconds
        ):
            return max(self.min_instances, self.desired - max(1, self.desired // 10))
        return self.desired
