"""Folders and files that only their owner may change, because what they contain is trusted."""

import os
import shlex
import stat
from pathlib import Path

from facerec.errors import ConfigurationError


def others_may_write(status: os.stat_result) -> bool:
    """Whether somebody else may change what has this status: its owner, its group or everybody."""
    return status.st_uid != os.geteuid() or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def check_private_folder(folder: Path) -> None:
    """Refuse a folder that others may change or redirect.

    Raises `ConfigurationError` for a symbolic link, another user's folder and one that others may write, and `OSError`
    if there is none.
    """
    status = folder.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{folder} is a symbolic link; name the folder itself")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to another user; choose a folder of your own")
    if others_may_write(status):
        mend = f"chmod -R go-w {shlex.quote(str(folder))}"
        raise ConfigurationError(f"others may write to {folder}; make it yours alone with `{mend}`")


def make_private_folder(folder: Path) -> None:
    """Create the folder, or take an existing one, for this user alone; raises as `check_private_folder` does."""
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    check_private_folder(folder)
    folder.chmod(stat.S_IRWXU)


def open_own_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file of this user's own and return its descriptor; one that is created is for this user alone.

    It never waits, as opening a pipe does. Raises `ConfigurationError` for anything else, and `OSError`.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise ConfigurationError(f"{path} is no file of your own; remove it")
    return descriptor
