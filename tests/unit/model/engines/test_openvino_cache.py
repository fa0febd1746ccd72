"""OpenVINO's cache of compiled networks, among processes and in memory."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from model.engines.openvino import CachingCore

SIZE = 1024


def network() -> openvino.Model:
    """A product with four megabytes of weights, the same in every process."""
    weights = np.random.default_rng(3).normal(size=(SIZE, SIZE)).astype(np.float32)
    query = ops.parameter([1, SIZE], openvino.Type.f32)
    return openvino.Model([ops.matmul(query, ops.constant(weights), False, False)], [query])


def answer(directory: Path) -> tuple[CachingCore, np.ndarray]:
    """Compile in this cache and run once."""
    core = CachingCore(directory)
    compiled = core.compile_model(network(), "CPU", {"INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()
    first: np.ndarray = request.infer([np.ones((1, SIZE), np.float32)])[0].copy()
    core.release()
    assert np.array_equal(request.infer([np.ones((1, SIZE), np.float32)])[0], first)  # and once more without the pages
    return core, first


def resident(directory: Path) -> int:
    """Kibibytes of the directory's files that are in this process's memory."""
    found, ours = [0], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = str(directory) in line
        elif ours and line.startswith("Rss:"):
            found.append(int(line.split()[1]))
    return sum(found)


def test_network_is_compiled_once_and_released(tmp_path: Path) -> None:
    """Both cores compute the same; neither keeps the file's weights in memory."""
    core, first = answer(tmp_path / "new")
    (blob,) = (tmp_path / "new").glob("*.blob")
    written = blob.stat().st_mtime_ns
    again, second = answer(tmp_path / "new")
    assert np.array_equal(first, second)
    assert blob.stat().st_mtime_ns == written
    for each in (core, again):
        each.release()
    assert resident(tmp_path) < blob.stat().st_size / 1024 / 4


def test_processes_that_start_together_share_an_empty_cache(tmp_path: Path) -> None:
    """No process reads an unfinished file."""
    command = f"from pathlib import Path; from {__name__} import answer; answer(Path({str(tmp_path)!r}))"
    processes = [
        subprocess.Popen([sys.executable, "-c", command], env={"PYTHONPATH": ":".join(sys.path)}) for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]


def test_stopped_process_does_not_block_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They compile without the cache after a while."""
    monkeypatch.setattr("model.engines.openvino._LOCK_SECONDS", 0.1)
    stopped = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    _, alone = answer(tmp_path)
    assert list(tmp_path.iterdir()) == []
    os.close(stopped)
    assert np.array_equal(alone, answer(tmp_path)[1])
    assert len(list(tmp_path.iterdir())) == 1


def test_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The message has its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        CachingCore(tmp_path / "file")
