"""Looking at a request's head while its body still arrives: whoever is turned away has his body not kept."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from waitress.task import WSGITask

from facerec.web.auth.access import Denial
from facerec.web.auth.hook import DENIAL
from facerec.web.auth.key_cache import UNREAD, Unread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Preview = Callable[["WSGIEnvironment"], Denial | Unread | None]
"""Whether a request is turned away for its head; it must not wait. `UNREAD` means: ask again."""


class Screening:
    """The verdict on one request from the address: asked for with each piece of its body, and between, until known."""

    def __init__(self, preview: Preview, address: str) -> None:
        self._preview = preview
        self._address = address
        self.verdict: Denial | Unread | None = UNREAD

    def turns_away(self, parser: Any) -> bool:
        """Whether it is known since this call that the rest of the body is of no use.

        The connection will be closed then, after the application has worded the refusal.
        """
        if self.verdict is not UNREAD or parser.body_rcv is None or parser.completed:
            return False
        head = {f"HTTP_{name}": value for name, value in parser.headers.items()}
        self.verdict = self._preview(head | {"REQUEST_METHOD": parser.command, "REMOTE_ADDR": self._address})
        if not isinstance(self.verdict, Denial):
            return False
        parser.headers["CONNECTION"] = "close"
        return True


def ask_again(connections: Iterable[Any]) -> None:
    """Ask for the verdicts that were not known when the last bytes came; to be called on the loop, now and then.

    Otherwise what a client has sent would be kept for as long as it falls silent.
    """
    for connection in connections:
        with connection.requests_lock:
            request = connection.request
            if request is None or request.body_rcv is None or request.screening.verdict is not UNREAD:
                continue
            # A client that waits to be told to go on has sent nothing yet.
            if not request.expect_continue:
                request.received(b"")


class ScreenedTask(WSGITask):  # type: ignore[misc] # waitress has no annotations
    """Hands the verdict over to the application; the parser's `screening` has it."""

    def get_environment(self) -> "WSGIEnvironment":
        """The request as the application sees it, without a body when that was thrown away."""
        environ: WSGIEnvironment = super().get_environment()
        verdict = self.request.screening.verdict
        if isinstance(verdict, Denial):
            environ |= {DENIAL: verdict, "CONTENT_LENGTH": "0"}
        return environ
