"""The logs of supervised processes."""

import os
from pathlib import Path

import pytest

from facerec.processes.log_files import LogFiles


def contents(folder: Path) -> dict[str, str]:
    """Each file's text."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_large_log_is_emptied_while_its_process_writes(tmp_path: Path) -> None:
    """What was in it is kept once; small logs stay as they are."""
    logs = LogFiles(tmp_path, largest_bytes=5)
    logs.of("web").write_text("four")
    with logs.of("worker").open("ab", buffering=0) as worker:
        for line in (b"first\n", b"second\n", b"3\n"):
            worker.write(line)
            logs.bound(["web", "worker", "no-log"])
    assert contents(tmp_path) == {"web.log": "four", "worker.log": "3\n", "worker.log.1": "second\n"}


def test_large_log_is_emptied_also_where_it_cannot_be_kept(tmp_path: Path) -> None:
    """As on a full disk."""
    logs = LogFiles(tmp_path, largest_bytes=5)
    logs.of("web").write_text("12345")
    (tmp_path / "web.log.1").mkdir()
    logs.bound(["web"])
    assert logs.of("web").read_text() == ""


def test_oldest_logs_of_ended_processes_are_removed(tmp_path: Path) -> None:
    """Twenty stay, and those of running processes."""
    logs = LogFiles(tmp_path)
    for number in range(30):
        logs.of(f"i-{number}").write_text("log")
        logs.of(f"i-{number}").with_suffix(".log.1").write_text("former")
        os.utime(logs.of(f"i-{number}"), (number, number))
    logs.remove_old(["i-0", "i-1"])
    left = {f"i-{number}.log" for number in (0, 1, *range(10, 30))}
    assert contents(tmp_path).keys() == left | {f"{name}.1" for name in left}


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a\0b", "x" * 300, ".."])
def test_log_of_any_name_is_in_the_folder(tmp_path: Path, name: str) -> None:
    """An instance's name is a tag, which anybody writes who reaches the emulated EC2."""
    logs = LogFiles(tmp_path / "logs")
    logs.of("web").parent.mkdir()
    logs.of(name).write_text("log")
    assert len(contents(tmp_path / "logs")) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "logs"]
