"""How many engines there are by default."""

import os
from pathlib import Path

import pytest

from facerec.engine.loading import available_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """An affinity of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(path: Path, text: str) -> None:
    """Write a file of the kernel, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("garbage", 8)],
)
def test_container_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    """A container sees its own group at the root; the result is rounded down, and at least 1."""
    write(tmp_path / "cpu.max", quota)
    write(tmp_path / "membership", "0::/\n")
    assert available_cores(tmp_path, tmp_path / "membership") == cores


def test_lowest_quota_of_all_levels_counts(tmp_path: Path) -> None:
    """Here the slice's, not the service's."""
    write(tmp_path / "system.slice/cpu.max", "300000 100000")
    write(tmp_path / "system.slice/worker.service/cpu.max", "max 100000")
    write(tmp_path / "membership", "0::/system.slice/worker.service\n")
    assert available_cores(tmp_path, tmp_path / "membership") == 3


def test_version_1_quota_limits_the_cores(tmp_path: Path) -> None:
    """Its controller has a mount of its own; a negative quota is no limit."""
    write(tmp_path / "cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path / "cpu/docker/abc/cpu.cfs_quota_us", "400000")
    write(tmp_path / "cpu/docker/abc/cpu.cfs_period_us", "100000")
    write(tmp_path / "membership", "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n")
    assert available_cores(tmp_path, tmp_path / "membership") == 4


def test_affinity_counts_without_control_groups(tmp_path: Path) -> None:
    """The files cannot be read."""
    assert available_cores(tmp_path, tmp_path / "missing") == 8
