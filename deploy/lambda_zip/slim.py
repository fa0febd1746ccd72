"""Removes from a folder of installed packages what a function never runs; needs the standard library alone.

    python slim.py FOLDER

Results stay the same: only files go that no import of the functions reaches. It also shortens the start: botocore looks
through the folders of all its services and reads a list of all their endpoints for the first client.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

SERVICES = frozenset({"dynamodb", "s3", "sqs", "sts"})
"""The services whose descriptions botocore keeps."""
UNUSED = (
    "onnxruntime/capi/libonnxruntime.so*",  # the Python extension contains the same code
    "onnxruntime/[bdqt]*",  # backend, datasets, quantization, tools, transformers
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/_core/_simd.*",  # for numpy's own tests
    "boto3/examples",
    "botocore/data/*/*/examples-1.json",
    # ONNX Runtime's tools need them.
    "google",
    "flatbuffers",
    "aws_lambda_powertools/event_handler/openapi/swagger_ui/*.[cj]s*",
    # structlog and pydantic import rich if they find it, for tracebacks on a terminal.
    "rich",
    "pygments",
    "markdown_it",
    "mdurl",
    # Pillow's decoder of AVIF, its fonts, and its window.
    "PIL/_avif.*",
    "PIL/_imagingft.*",
    "PIL/_imagingtk.*",
    "bin",
)
"""Patterns of files and folders."""
_EVERYWHERE = ("**/tests", "**/__pycache__", "**/*.pyi", "**/*.a", "*.dist-info/RECORD")


def slim(folder: Path) -> int:
    """Remove it and return the bytes removed; raises `SystemExit` if a pattern finds nothing: a package has changed."""
    before = size_bytes(folder)
    for pattern in UNUSED:
        package = folder / pattern.split("/", maxsplit=1)[0]
        found = list(folder.glob(pattern))
        if package.exists() and not found:
            raise SystemExit(f"{package.name} has no {pattern} any more: adapt {Path(__file__).name}")
        _remove(found)
    for pattern in _EVERYWHERE:
        _remove(list(folder.glob(pattern)))
    _keep_services(folder / "botocore" / "data")
    return before - size_bytes(folder)


def size_bytes(folder: Path) -> int:
    """Return the sum of the sizes of all files."""
    return sum(path.stat().st_size for path in files(folder))


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, sorted, so that archives of equal folders are equal."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # its folder may have been removed before it


def _keep_services(data: Path) -> None:
    """Keep the descriptions and endpoints of `SERVICES` among botocore's data."""
    if not data.exists():
        return
    _remove([path for path in data.iterdir() if path.is_dir() and path.name not in SERVICES])
    endpoints = json.loads((data / "endpoints.json").read_text(encoding="utf-8"))
    for partition in endpoints["partitions"]:
        services = partition["services"].items()
        partition["services"] = {name: service for name, service in services if name in SERVICES}
    (data / "endpoints.json").write_text(json.dumps(endpoints), encoding="utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(f"removed {slim(folder) / 1e6:.0f} MB from {folder}", file=sys.stderr)
