"""The functions run without Celery, without the web tier, and with ONNX Runtime alone, and start quickly."""

import subprocess
import sys

import pytest

SCRIPT = r"""
import ast, importlib, sys
from pathlib import Path

# The module opens the function when it is imported: what it imports is read from its text.
tree = ast.parse(Path(sys.argv[1]).read_text())
nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
nodes.sort(key=lambda node: node.lineno)
modules = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]
assert "facerec.recognition" in modules
sys.modules["rich"] = None
for module in modules:
    importlib.import_module(module)

from facerec import bootstrap
from facerec.settings import Settings

for open_port in (bootstrap.object_store, bootstrap.faces_publisher, bootstrap.result_publisher):
    open_port(Settings())
absent = {
    "celery", "kombu", "flask", "werkzeug", "moto", "prometheus_client", "pycurl", "torch", "openvino", "onnxruntime",
    "cv2", "PIL", "tasks", "facerec.celery", "facerec.celery_sqs.transport", "aws_lambda_powertools.utilities.parser",
}
if "detection" in sys.argv[1]:
    absent |= {"numpy", "facerec.gallery", "facerec.aws.dynamodb"}
print(*sorted(absent & set(sys.modules)))
"""


@pytest.mark.parametrize("half", ["detection", "recognition"])
def test_function_loads_neither_celery_nor_an_engine(half: str) -> None:
    """Its image has no Celery, and native code sees a stranger's picture in the engine's child alone."""
    command = [sys.executable, "-c", SCRIPT, f"facerec/serverless/{half}.py"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
