"""`facerec local aws`: the emulated AWS alone."""

import os
import signal
from pathlib import Path

import httpx

from facerec.processes.addresses import answers_ok, free_port, poll_until
from tests.support.processes import Command, facerec


def test_emulated_aws_runs_alone_under_its_name(tmp_path: Path) -> None:
    """It answers to the given name, to no other one, and ends with SIGTERM."""
    port = free_port()
    argv = facerec("local", "aws", "--port", str(port), "--name", "aws", "--state", str(tmp_path))
    with Command(argv, os.environ) as command:
        url = f"http://127.0.0.1:{port}/_ministack/ready"
        assert poll_until(lambda: answers_ok(url), 30), command.output
        statuses = [httpx.get(url, headers={"Host": host}).status_code for host in ("aws:4566", "evil.example")]
        assert statuses == [200, 421]
        assert command.stop(signal.SIGTERM) == 0, command.output
