"""OpenVINO's own cache of compiled networks: shared by processes that start together, and not kept in memory.

OpenVINO 2026.4 writes a compiled network straight to its file and maps it from there. A process that maps a file which
another still writes would die of SIGBUS (seen once when two started on an empty cache; the cause is inferred), so they
take turns. And the weights stay resident in float32 although they have long been packed in bfloat16.

A process that has been stopped in its turn (by a debugger, by a frozen control group) does not stop the others: after
a while they compile for themselves.
"""

import ctypes
import fcntl
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openvino

_LONGEST_WAIT_SECONDS = 5.0
"""A turn takes a second at most; the first batch of an engine, which may have to wait for one, has a time limit."""


class CachingCore(openvino.Core):  # type: ignore[misc]  # it has no stubs
    """A core with a cache directory; of the processes that use it one at a time compiles, or reads what is there."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._patience_seconds = _LONGEST_WAIT_SECONDS
        self.set_property({"CACHE_DIR": str(directory)})

    def compile_model(
        self, model: Path | openvino.Model, device: str, config: Mapping[str, Any]
    ) -> openvino.CompiledModel:
        """Compile as `Core` does; a network that was compiled now is then read back, which takes half the memory."""
        with self._turn() as ours:
            if not ours:
                self._patience_seconds = 0.0  # for the networks that follow
                return super().compile_model(model, device, {**config, "CACHE_DIR": ""})
            compiled = super().compile_model(model, device, config)
            # What could not be saved cannot be read back, either.
            if not compiled.get_property("LOADED_FROM_CACHE") and os.access(self.directory, os.W_OK):
                del compiled
                compiled = super().compile_model(model, device, config)
            return compiled

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Wait for this process's turn; whether it came."""
        # The lock is on the directory itself: one that came ready-made may not be writable.
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            yield _locked(directory, time.monotonic() + self._patience_seconds)
        finally:
            os.close(directory)  # and with it the lock

    def release(self) -> None:
        """Give back the pages of the files that are mapped; whatever is read again comes from the file.

        Only mappings that cannot be written are touched: nothing but what is in the file can be lost.
        """
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        prefix = f"{self.directory.resolve()}/"
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, *_, path = line.split(maxsplit=5)
            if permissions.startswith("r--") and path.startswith(prefix):
                start, end = (int(address, 16) for address in addresses.split("-"))
                madvise(start, end - start, mmap.MADV_DONTNEED)


def _locked(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True
