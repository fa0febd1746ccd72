"""Ends the processes of a parent that died without ending them; a script of the standard library alone.

It reads lines from its standard input: `+PID` registers the leader of a process group, `-PID` forgets it. The input
ends when the parent ends. Then each registered leader gets SIGTERM, and its group SIGKILL after the grace (the first
argument, in seconds). A process writes its own `+PID` before it becomes the command, so none is missed.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

_POLL_SECONDS = 0.05


def _signal(send: Callable[[int, int], None], leader: int, number: int) -> bool:
    """Send a signal; returns whether there was a process to receive it."""
    try:
        send(leader, number)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Register and forget processes until the input ends, then end those that are registered."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leaders: set[int] = set()
    for line in sys.stdin:
        leader = int(line[1:])
        (leaders.add if line[0] == "+" else leaders.discard)(leader)
    for leader in leaders:
        _signal(os.kill, leader, signal.SIGTERM)
    deadline = time.monotonic() + float(sys.argv[1])
    while any(_signal(os.killpg, leader, 0) for leader in leaders) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for leader in leaders:
        _signal(os.killpg, leader, signal.SIGKILL)


if __name__ == "__main__":
    main()
