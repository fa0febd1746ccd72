"""A clock that jumps for chosen processes only: a library to be preloaded, built with the machine's C compiler.

Setting the machine's clock would harm everybody on it. libfaketime 0.9.10 breaks Python's `time.sleep`, which waits for
a moment of the monotonic clock (`clock_nanosleep` answers EINVAL there, with `DONT_FAKE_MONOTONIC`, too). This library
shifts the real-time clock alone, which is what jumps when a clock is set right; time-outs use the monotonic one.
"""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = "SHIFTED_CLOCK"
_FORM = struct.Struct("=q")
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long zero, *offset;

static long long shift(void) {
    if (!offset) {
        const char *name = getenv("SHIFTED_CLOCK");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        offset = page == MAP_FAILED ? &zero : page;
    }
    return *offset;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return (int)failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def compiler() -> str | None:
    """The machine's C compiler."""
    return shutil.which("cc")


def shifted_clock(folder: Path) -> dict[str, str]:
    """Build it; returns the variables of a process whose clock is to be shifted."""
    library, offset = folder / "shifted_clock.so", folder / "offset"
    offset.write_bytes(bytes(_FORM.size))
    command = (compiler() or "cc", "-shared", "-fPIC", "-O2", "-x", "c", "-o", str(library), "-")
    subprocess.run(command, input=_SOURCE, text=True, check=True)
    return {"LD_PRELOAD": str(library), _VARIABLE: str(offset)}


def shift(environ: Mapping[str, str], seconds: int) -> None:
    """Have the processes with these variables go so many seconds ahead of the true time from now on."""
    with Path(environ[_VARIABLE]).open("r+b") as file:
        file.write(_FORM.pack(seconds))  # in one step: the processes look at this very page
