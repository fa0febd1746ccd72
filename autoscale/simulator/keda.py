"""KEDA's scaler for SQS with the Kubernetes horizontal pod autoscaler, by their published rules and defaults.

An instance stands for a pod and its node. Sources:

- https://keda.sh/docs/latest/scalers/aws-sqs/ : queueLength 5, activation above 0, messages in
  flight count (scaleOnInFlight);
- https://keda.sh/docs/latest/reference/scaledobject-spec/ : pollingInterval 30 s, cooldownPeriod 300 s, both for 0 ↔ 1;
- https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ : every 15 s, desired = ceil(messages / 5)
  unless within a tenth of what there is; up at once, by at most max(100 %, 4 pods) in 15 s; down to the most that was
  recommended in the last 300 s. A pod that goes gets SIGTERM and time to finish: nothing is lost.
"""

import math
from collections import deque
from collections.abc import Sequence

from autoscale.simulator.scalers import Loop, World


class Keda:
    """Replicas of a ScaledObject with minReplicaCount 0."""

    polling_seconds = 30.0
    cooldown_seconds = 300.0
    sync_seconds = 15.0
    stabilisation_seconds = 300.0
    queue_length = 5
    tolerance = 0.1

    def __init__(self, world: World) -> None:
        self.desired = 0
        self._world = world
        self._last_active_at = 0.0
        self._recommended: deque[tuple[float, int]] = deque()
        self._added: deque[tuple[float, int]] = deque()

    def loops(self) -> Sequence[Loop]:
        """KEDA's operator, and the autoscaler."""
        return [(self.polling_seconds, self._poll), (self.sync_seconds, self._sync)]

    def _poll(self) -> None:
        """0 ↔ 1."""
        now = self._world.events.now
        if self._world.queue.counts.open > 0:
            self._last_active_at = now
            self.desired = max(1, self.desired)
        elif now - self._last_active_at >= self.cooldown_seconds:
            self.desired = 0
        self._world.fleet.resize(self.desired)

    def _sync(self) -> None:
        """1 ↔ N."""
        if self.desired == 0:  # the autoscaler is off
            return
        recommended = self.recommendation(self._world.queue.counts.open, self.desired)
        self.desired = self.stabilised(recommended, self._world.events.now)
        self._world.fleet.resize(self.desired)

    def recommendation(self, messages: int, replicas: int) -> int:
        """Replicas for an average of `queue_length` messages."""
        if abs(messages / (self.queue_length * replicas) - 1) <= self.tolerance:
            return replicas
        return min(max(1, math.ceil(messages / self.queue_length)), self._world.fleet.max_instances)

    def stabilised(self, recommended: int, now: float) -> int:
        """The recommendation within the behaviour's bounds, which it is remembered for."""
        self._recommended.append((now, recommended))
        while now - self._recommended[0][0] > self.stabilisation_seconds:
            self._recommended.popleft()
        while self._added and now - self._added[0][0] >= self.sync_seconds:
            self._added.popleft()
        if recommended > self.desired:
            before = self.desired - sum(count for _, count in self._added)
            allowed = min(recommended, max(2 * before, before + 4))
            self._added.append((now, max(0, allowed - self.desired)))
            return max(allowed, self.desired)
        return min(self.desired, max(count for _, count in self._recommended))
