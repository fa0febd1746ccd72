"""The component's configuration at its Greengrass nucleus, which deployments change while the component runs."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from awsiot.greengrasscoreipc import model  # type: ignore[import-untyped] # it ships no types
from awsiot.greengrasscoreipc.client import (  # type: ignore[import-untyped] # as above
    SubscribeToConfigurationUpdateStreamHandler,
)
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2  # type: ignore[import-untyped] # as above

from facerec.edge.ipc_client import FAILURES, connect, disconnect, said
from facerec.errors import Transient

_KEY = ["edge"]
"""The part of the configuration that has the fields of `EdgeSettings`, as the recipe has it."""
_ANSWER_SECONDS = 3.0
"""A nucleus is on the same device."""
_FAILURES = (*FAILURES, model.GreengrassCoreIPCError)


class NucleusConfiguration:
    """The `ConfigurationSource` of a component that a nucleus has started; for one thread.

    The connection is one of its own, also beside an `IpcLink`, which may be made again for a change that is read here.
    After a lost connection the configuration is read again, since a change may have been missed.
    """

    def __init__(self) -> None:
        self._client: GreengrassCoreIPCClientV2 | None = None
        self._outdated = threading.Event()
        """Set when a deployment has changed the configuration, or the connection is lost."""
        self._lost = threading.Event()
        self._last: Mapping[str, Any] | None = None

    def changes(self) -> Mapping[str, Any] | None:
        """Return the configured fields if they have changed, as `ConfigurationSource` has it; raises `Transient`."""
        if self._client is not None and not self._outdated.is_set():
            return None
        try:
            if self._client is None or self._lost.is_set():
                self._connect()
            self._outdated.clear()
            fields = self._read()
        except _FAILURES as exc:
            self._outdated.set()
            raise Transient(f"the nucleus does not tell the component's configuration ({said(exc)})") from exc
        if fields == self._last:
            return None
        self._last = fields
        return fields

    def close(self) -> None:
        """Disconnect; idempotent."""
        client, self._client = self._client, None
        if client is not None:
            disconnect(client)

    def _connect(self) -> None:
        """Connect, and subscribe before the first look: no change is missed between the two."""
        self.close()
        self._lost.clear()
        self._client = client = connect(self._note_lost, _ANSWER_SECONDS)
        answer, _ = client.subscribe_to_configuration_update_async(
            key_path=_KEY, stream_handler=_Updates(self._outdated.set, self._note_lost)
        )
        answer.result(_ANSWER_SECONDS)

    def _read(self) -> Mapping[str, Any]:
        if self._client is None:
            raise RuntimeError("not connected")
        try:
            answer = self._client.get_configuration_async(key_path=_KEY).result(_ANSWER_SECONDS)
        except model.ResourceNotFoundError:
            return {}
        return answer.value or {}

    def _note_lost(self) -> None:
        self._lost.set()
        self._outdated.set()


class _Updates(SubscribeToConfigurationUpdateStreamHandler):  # type: ignore[misc] # it ships no types
    def __init__(self, changed: Callable[[], None], lost: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed
        self._lost = lost

    def on_stream_event(self, event: model.ConfigurationUpdateEvents) -> None:  # noqa: ARG002 - it is read as a whole
        self._changed()

    def on_stream_error(self, error: Exception) -> bool:  # noqa: ARG002 - the stream ends, and is made again
        return True

    def on_stream_closed(self) -> None:
        self._lost()
