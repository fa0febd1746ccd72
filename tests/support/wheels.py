"""Small wheels, for what installs packages without an index."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], needs: Sequence[str] = (), extra: str | None = None
) -> Path:
    """Write a wheel of pure Python; with `extra` its needs are those of an extra."""
    info = f"{name}-{version}.dist-info"
    marker = "" if extra is None else f"; extra == '{extra}'"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [] if extra is None else [f"Provides-Extra: {extra}"]
    metadata += [f"Requires-Dist: {need}{marker}" for need in needs]
    described = {
        f"{info}/METADATA": "\n".join([*metadata, ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    written = {**files, **described}
    record = "".join(f"{path},,\n" for path in (*written, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, text in {**written, f"{info}/RECORD": record}.items():
            file.writestr(zipfile.ZipInfo(path), text)
    return wheel
