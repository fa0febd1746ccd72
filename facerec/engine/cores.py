"""How many cores this process may use: the scheduler's affinity and the quota of its control group."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """The whole cores that are ours, at least one.

    A container's share of CPU time (`docker run --cpus 2`, a Kubernetes limit) is a quota, not an affinity: a process
    that starts an engine for each core of the machine would be throttled by the kernel most of the time.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas(cgroups, membership)])))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """The quotas in cores that hold for us, each of which may be the least; unreadable ones are none."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        # `0::/path` in the unified hierarchy, `4:cpu,cpuacct:/path` in the older one (cgroups(7)).
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _along(cgroups, path, _unified)
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", controllers):
                yield from _along(cgroups / mount, path, _older)


def _along(root: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    # A container sees its own group at the root, whatever the path says; elsewhere every level above may limit us.
    group = Path(path.lstrip("/"))
    for level in {root, *(root / parent for parent in (group, *group.parents))}:
        quota = read(level)
        if quota is not None:
            yield quota


def _unified(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # "max 100000": no limit
        return None


def _older(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None
