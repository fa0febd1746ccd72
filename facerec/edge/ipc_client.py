"""Connects AWS's own IPC client to the Greengrass nucleus of this device, and says what its errors mean."""

from collections.abc import Callable
from concurrent.futures import wait

import structlog
from awscrt.exceptions import AwsCrtError  # type: ignore[import-untyped] # it ships no types
from awsiot import greengrasscoreipc as ipc  # type: ignore[import-untyped] # as above
from awsiot.eventstreamrpc import LifecycleHandler  # type: ignore[import-untyped] # as above
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2  # type: ignore[import-untyped] # as above

log = structlog.get_logger(__name__)

FAILURES = (RuntimeError, AwsCrtError, TimeoutError, OSError)
"""How AWS's client says that the connection, or a stream of it, is lost, or that the nucleus does not answer."""
_CLOSE_SECONDS = 5.0


def connect(lost: Callable[[], None], timeout_seconds: float) -> GreengrassCoreIPCClientV2:
    """Return a client that is connected; raises one of `FAILURES`. `lost` is called when the connection has ended."""
    core = ipc.connect(lifecycle_handler=_Lifecycle(lost), timeout=timeout_seconds)
    # Without an executor, messages come in order, on the client's own thread.
    return GreengrassCoreIPCClientV2(core, executor=None)


def disconnect(client: GreengrassCoreIPCClientV2) -> None:
    """End the connection, and wait for that, but not for ever."""
    wait([client.close()], _CLOSE_SECONDS)


def said(error: BaseException) -> str:
    """Return what the error says; the nucleus' own errors keep their text in a field."""
    return getattr(error, "message", None) or repr(error)


class _Lifecycle(LifecycleHandler):  # type: ignore[misc] # AWS's client ships no types
    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def on_disconnect(self, reason: Exception | None) -> None:  # noqa: ARG002 - it says no more than its end
        self._lost()

    def on_error(self, error: Exception) -> bool:
        log.warning("nucleus_reports_error", reason=repr(error))
        return True
