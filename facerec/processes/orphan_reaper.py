"""Ends the processes of a supervisor that died without ending them; a script of the standard library alone.

It reads lines from its standard input: `+PID` puts the leader of a process group on the leash, `-PID` takes it off.
The end of the input means that the supervisor has gone, however it went: every leader still on the leash gets SIGTERM,
and after the grace (the first argument, in seconds) its whole group gets SIGKILL. Every started process writes its own
`+PID` before it becomes the command, so there is no moment at which it could be forgotten.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

_POLL_SECONDS = 0.05


def _group_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def _signal(send: Callable[[int, int], None], leader: int, number: signal.Signals) -> None:
    try:
        send(leader, number)
    except ProcessLookupError:
        return


def main() -> None:
    """Keep the book until the input ends, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leaders: set[int] = set()
    for line in sys.stdin:
        leader = int(line[1:])
        (leaders.add if line[0] == "+" else leaders.discard)(leader)
    for leader in leaders:
        _signal(os.kill, leader, signal.SIGTERM)
    deadline = time.monotonic() + float(sys.argv[1])
    while any(map(_group_alive, leaders)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for leader in leaders:
        _signal(os.killpg, leader, signal.SIGKILL)


if __name__ == "__main__":
    main()
