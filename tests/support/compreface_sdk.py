"""CompreFace's official Python SDK, in a process of its own environment, which `make test-sdks` makes."""

import json
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.support.processes import CHECKOUT

_ENVIRONMENT = CHECKOUT / ".cache" / "compreface-sdk"
INSTALLED = any(_ENVIRONMENT.glob("lib/python*/site-packages/compreface"))
_SCRIPT = CHECKOUT / "tests" / "support" / "compreface_calls.py"


class Reply(NamedTuple):
    """What the server said."""

    status: int
    body: Any


class CompreFaceSdk:
    """A client with an API key; a context manager."""

    def __init__(self, url: str, key: str) -> None:
        self._argv: Sequence[str] = (str(_ENVIRONMENT / "bin" / "python"), str(_SCRIPT), url, key)

    def __enter__(self) -> Self:
        """Start its process."""
        environ = {"NO_PROXY": "*"}
        self._process = subprocess.Popen(
            self._argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End its process."""
        self._process.communicate(timeout=30)

    def __call__(self, name: str, *arguments: str, **options: Any) -> Reply:
        """Call the SDK, as `sdk("subjects.add", "Ada")`; raises `RuntimeError` if it fails."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([name, arguments, options]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the SDK failed in {name}{arguments}; its error is above")
        return Reply(*json.loads(line))
