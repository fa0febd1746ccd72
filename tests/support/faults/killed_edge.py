"""`facerec edge run` that kills itself at a step: `python -m tests.support.faults.killed_edge STEP`.

It is SIGKILL, at the second time that the step is reached: nothing can be finished.
"""

import functools
import itertools
import os
import signal
import sys
from typing import Any

from facerec.cli import main
from facerec.edge.detection import Detection
from facerec.edge.sender import Sender
from facerec.edge.sources.folder import FolderSource
from facerec.edge.sources.topic import TopicSource
from facerec.edge.spool import Spool

STEPS: dict[str, tuple[type, str, bool]] = {
    "looked at": (Detection, "_message", True),
    "spooled": (Spool, "add", True),
    "file removed": (FolderSource, "_remove", True),
    "frame acknowledged": (TopicSource, "_settle", True),
    "sent": (Sender, "_send", True),
    "acknowledged": (Spool, "remove", False),
}
"""The class, the method, and whether it has returned by then."""
_CALL = 2


def kill_at(step: str) -> None:
    """Have this process killed there."""
    owner, name, returned = STEPS[step]
    original, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(original)
    def killed(*arguments: Any, **named: Any) -> Any:
        last = next(calls) == _CALL
        if last and not returned:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, killed)


if __name__ == "__main__":
    kill_at(sys.argv[1])
    sys.argv[1:] = ["edge", "run"]
    main()
