"""No engine reports its use to its maker."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
_OPEN = """
import pathlib
from model.engines.onnxruntime import load_graph
load_graph(pathlib.Path("model/graphs/pnet.onnx"), 1)
"""


def test_onnxruntime_keeps_no_record_of_its_use(tmp_path: Path) -> None:
    """Its telemetry keeps a device id and what it has not sent yet below the home directory."""
    environ = {
        name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    }
    subprocess.run([sys.executable, "-c", _OPEN], cwd=ROOT, env=environ | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
