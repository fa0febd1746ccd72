"""The status in the state folder, for the health check of a container and for people at the device."""

import json
import time
from pathlib import Path
from typing import Any

from facerec.edge.status import State
from facerec.errors import FacerecError

EVERY_SECONDS = 30.0
"""A running component writes it so often: an SD card lasts long at 4 MB a day."""
_OLD_SECONDS = 3 * EVERY_SECONDS
_FILE = "status.json"


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace the file; it is not synced, since a power cut ends the component, too. Raises `OSError`."""
    new = folder / f"{_FILE}.new"
    new.write_text(json.dumps(status), encoding="utf-8")
    new.replace(folder / _FILE)


def read_status(folder: Path) -> dict[str, Any]:
    """Return the status of the component that works now; raises `FacerecError` if none does."""
    path = folder / _FILE
    try:
        age = time.time() - path.stat().st_mtime
        status: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise FacerecError(
            f"no component has written {path}: is FACEREC_EDGE__STATE_DIR that of the component?"
        ) from exc
    if status["state"] not in {State.RUNNING, State.DEGRADED}:
        raise FacerecError(f"the component is {status['state']}, since {status['at']}")
    if age > _OLD_SECONDS:
        raise FacerecError(f"the component has not written its status since {status['at']}: it has ended, or hangs")
    return status
