"""What a receive brings: nothing where it failed, and only tasks that Celery can carry out.

After a refused connection, a timeout, a 5xx or a missing queue kombu returns a list where a dict is expected; what it
cannot read raises in the event loop. Either way the worker dies. And where no answer comes at all (its connection was
forgotten by a gateway, say) kombu waits for ever: its requests carry timeouts of which curl is never told.
"""

from collections.abc import Callable, Collection
from typing import Any

from kombu.asynchronous.aws.connection import AsyncHTTPSConnection
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10
"""How long after the end of its long poll a receive may still be answered."""

# The stubs of kombu know almost none of the methods that are called and overridden here.
_BaseReceiver: Any = AsyncSQSConnection
_BaseConnection: Any = AsyncHTTPSConnection


class _BoundedConnection(_BaseConnection):  # type: ignore[misc]  # untyped on purpose, see above
    """kombu's, whose requests end after `timeout` seconds."""

    def getrequest(self) -> Any:
        """Override kombu's."""
        request = super().getrequest()
        request.on_prepare = self._bound
        return request

    def _bound(self, curl: Any) -> None:
        curl.setopt(curl.CONNECTTIMEOUT, CONNECT_SECONDS)
        curl.setopt(curl.TIMEOUT_MS, round(self.timeout * 1000))


class Receiver(_BaseReceiver):  # type: ignore[misc]  # untyped on purpose, see above
    """kombu's asynchronous client; a failed receive is an empty one, and is told to `on_outcome`.

    One that has no answer `ANSWER_SECONDS` after its long poll of `wait_seconds` has failed.
    """

    def __init__(
        self, *args: Any, wait_seconds: float, on_outcome: Callable[[str | None], None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._wait_seconds = wait_seconds
        self._on_outcome = on_outcome

    def get_http_connection(self) -> Any:
        """Override kombu's."""
        return _BoundedConnection(timeout=self._wait_seconds + ANSWER_SECONDS, http_client=self._httpclient)

    def _on_list_ready(self, parent: Any, markers: Any, operation: str, response: Any) -> dict[str, Any]:
        try:
            answer = super()._on_list_ready(parent, markers, operation, response)
        except Exception as exc:  # noqa: BLE001 - kombu raises Exception itself; a proxy may answer with anything
            self._on_outcome(str(exc))
            return {}
        if not isinstance(answer, dict):
            self._on_outcome(f"HTTP {response.status} {response.reason}")
            return {}
        self._on_outcome(None)
        return answer


def check_task(message: Any, tasks: Collection[str]) -> None:
    """Raise unless the message is one of these tasks in Celery's second protocol.

    Its body is decoded by Celery in a pool's thread, where an error would neither acknowledge nor reject the message,
    but hold its place for ever.
    """
    if message.headers is None or "task" not in message.headers:
        raise ValueError("not a task of Celery")
    if message.headers["task"] not in tasks:
        raise ValueError(f"there is no task {message.headers['task']!r}")
    args, kwargs, embed = message.decode()
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict | None)):
        raise TypeError("the body of the task is garbled")
