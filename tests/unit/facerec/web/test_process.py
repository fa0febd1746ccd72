"""What a web process needs before it takes uploads."""

import platform
import subprocess
import sys

import pytest

from facerec.errors import QueueMissing, Transient
from facerec.web.process import START_SECONDS, await_resources
from tests.support.logs import capture_logs


class Aws:
    """An AWS that comes up after a while, with or without the queue."""

    def __init__(self, up_at: float, *, provisioned: bool = True) -> None:
        self.now = 0.0
        self._up_at = up_at
        self._provisioned = provisioned

    def check(self) -> None:
        """Look at the queue."""
        if self.now < self._up_at:
            raise Transient("connection refused")
        if not self._provisioned:
            raise QueueMissing("facerec-req-queue")

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def await_resources(self) -> None:
        """Wait as a starting process does."""
        await_resources({"store": lambda: None, "queue": self.check}, clock=lambda: self.now, pause=self.pause)


def test_start_waits_for_aws() -> None:
    """The outage is logged once."""
    aws = Aws(up_at=20)
    with capture_logs() as logs:
        aws.await_resources()
    assert 20 <= aws.now <= 21
    assert [line["event"] for line in logs] == ["aws_unreachable", "aws_reachable_again"]


def test_start_does_not_wait_for_a_missing_queue() -> None:
    """Waiting would not create it."""
    aws = Aws(up_at=3, provisioned=False)
    with pytest.raises(QueueMissing):
        aws.await_resources()
    assert aws.now <= 4


def test_start_gives_up_after_a_while() -> None:
    """With the reason."""
    aws = Aws(up_at=3600)
    with pytest.raises(Transient, match="connection refused"):
        aws.await_resources()
    assert aws.now <= START_SECONDS + 1


HOLD_UPLOADS = """
import threading
from pathlib import Path
from facerec.web.server import return_large_blocks

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1_000_000

def upload():
    for _ in range(3):
        together.wait()
        body = b"x" * 15_000_000
        copy = bytearray(body)
        together.wait()
        del body, copy

return_large_blocks()
before = megabytes()
together = threading.Barrier(8)
threads = [threading.Thread(target=upload) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such option")
def test_memory_of_large_uploads_is_given_back() -> None:
    """The C library would keep a large upload's memory for each thread: here more than 200 MB."""
    done = subprocess.run([sys.executable, "-c", HOLD_UPLOADS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50
