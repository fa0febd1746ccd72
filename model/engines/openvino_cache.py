"""OpenVINO's own cache of compiled networks: shared by processes that start together, and not kept in memory.

OpenVINO 2026.4 writes a compiled network straight to its file and maps it from there. A process that maps a file which
another still writes would die of SIGBUS (seen once when two started on an empty cache; the cause is inferred), so they
take turns. And the weights stay resident in float32 although they have long been packed in bfloat16.
"""

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openvino


class CachingCore(openvino.Core):  # type: ignore[misc]  # it has no stubs
    """A core with a cache directory; of the processes that use it one at a time compiles, or reads what is there."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.set_property({"CACHE_DIR": str(directory)})

    def compile_model(self, *arguments: Any, **options: Any) -> openvino.CompiledModel:
        """Compile as `Core` does; a network that was compiled now is then read back, which takes half the memory."""
        with self._turn():
            compiled = super().compile_model(*arguments, **options)
            # What could not be saved cannot be read back, either.
            if not compiled.get_property("LOADED_FROM_CACHE") and os.access(self.directory, os.W_OK):
                del compiled
                compiled = super().compile_model(*arguments, **options)
            return compiled

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # The lock is on the directory itself: one that came ready-made may not be writable.
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
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
