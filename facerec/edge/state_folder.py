"""The folder that a component keeps its spool and its client id in, for one process at a time."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from facerec.errors import ConfigurationError
from facerec.private_files import make_private_folder, open_own_file

log = structlog.get_logger(__name__)

SPOOL = "spool.db"
_LOCK, _CLIENT = "lock", "client-id"
_SUFFIX = re.compile(r"[0-9a-f]{8}")


@contextmanager
def locked_state(folder: Path) -> Iterator[None]:
    """Make the folder, for this user alone, and keep it for this process; raises `ConfigurationError`.

    The kernel releases it with the process, however that ends.
    """
    try:
        make_private_folder(folder)
        lock = open_own_file(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as exc:
        raise ConfigurationError(
            f"the state folder {folder} cannot be used ({exc.strerror}): set FACEREC_EDGE__STATE_DIR"
        ) from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigurationError(
                f"another process uses the state folder {folder}: end it, or set another FACEREC_EDGE__STATE_DIR"
            ) from exc
        yield
    finally:
        os.close(lock)


def client_id(folder: Path, thing: str) -> str:
    """The MQTT client id of the process that has locked the folder: the thing's name with eight digits.

    It stays the same over restarts, so that the broker knows the session again; two processes never share it, because
    AWS IoT ends the connection of one when the other connects. A folder that cannot be written gets a new id each time.
    """
    path = folder / _CLIENT
    with suppress(OSError, UnicodeDecodeError):
        kept = path.read_text(encoding="ascii").strip()
        if _SUFFIX.fullmatch(kept):
            return f"{thing}-{kept}"
    made = secrets.token_hex(4)
    try:
        descriptor = open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{made}\n")
    except OSError as exc:
        log.warning("client_id_not_kept", reason=exc.strerror, effect="frames that wait at the broker are not received")
    return f"{thing}-{made}"
