"""What a receive brings: nothing where it failed, and only tasks that Celery can carry out.

After a refused connection, a timeout, a 5xx or a missing queue kombu returns a list where a dict is expected; what it
cannot read raises in the event loop. Either way the worker dies. And where no answer comes at all (its connection was
forgotten by a gateway, say) kombu waits for ever: its requests carry timeouts of which curl is never told. Nor could
it be told as things are, since kombu takes curl's milliseconds for seconds: each receive would leave a timer that is
kept for hours.
"""

from collections.abc import Callable, Collection
from typing import Any

from kombu.asynchronous import get_event_loop
from kombu.asynchronous.aws.connection import AsyncHTTPSConnection
from kombu.asynchronous.aws.sqs.connection import AsyncSQSConnection
from kombu.asynchronous.http.curl import CurlClient

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10
"""How long after the end of its long poll a receive may still be answered."""

# The stubs of kombu know almost none of the methods that are called and overridden here.
_BaseReceiver: Any = AsyncSQSConnection
_BaseConnection: Any = AsyncHTTPSConnection
_BaseClient: Any = CurlClient

_LOOK_MS = 1000
"""So often kombu looks at what curl has to do in any case."""


class HttpClient(_BaseClient):  # type: ignore[misc]  # untyped on purpose, see above
    """kombu's, with a timer for what is due before the next look, and for nothing else."""

    def _set_timeout(self, msecs: int) -> None:
        if 0 <= msecs < _LOOK_MS:
            self.hub.call_later(msecs / 1000, self._timeout_check)

    def _timeout_check(self) -> None:
        if not self._closed:
            super()._timeout_check()


def http_client() -> HttpClient:
    """That of this thread's event loop, made when it is first asked for."""
    hub: Any = get_event_loop()
    client: HttpClient | None = getattr(hub, "_current_http_client", None)  # where kombu keeps it, and takes it away
    if client is None:
        client = hub._current_http_client = HttpClient(hub)  # noqa: SLF001 - as above
    return client


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
        self,
        *args: Any,
        wait_seconds: float,
        on_outcome: Callable[[str | None], None],
        http: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, http_client=http or http_client(), **kwargs)
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
        if not response.read().lstrip().startswith(b"{"):  # botocore makes an empty receive of a page, too
            self._on_outcome("the answer is no JSON; does a proxy answer for SQS?")
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
    if not isinstance(message.headers.get("id"), str):
        raise TypeError("the task has no id")
    args, kwargs, embed = message.decode()
    if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(embed, dict | None)):
        raise TypeError("the body of the task is garbled")
