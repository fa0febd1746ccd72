"""Which requests the emulated AWS refuses: what a browser sends for a web page, and what is not addressed to loopback.

The emulators check no signature, and allow every web page to read their answers. A GET can send a message there, so
no method is safe.
"""

from collections.abc import Sequence
from http import HTTPStatus

from facerec.host_check import LOOPBACK_NAMES, addressed_host, is_cross_site, is_served

CORS_PREFIX = "access-control-"
"""Of the headers that let pages of other sites read an answer; the emulated AWS sends none."""

_NAMES = (*LOOPBACK_NAMES, *(f".{name}" for name in ("localhost", "127.0.0.1")))
"""boto3 may put a bucket's name before the endpoint's. No web site can have one of these names."""


def refusal(
    *, host: str | None, origin: str | None, fetch_site: str | None, target: str = "/", names: Sequence[str] = ()
) -> tuple[HTTPStatus, str] | None:
    """Return the status and a sentence if a request with these headers and this target is refused, otherwise None.

    `names` are served beside those of loopback: the emulator's own on a network of containers.
    """
    name = addressed_host(host, target)
    if name is None or not is_served(name, (*_NAMES, *names)):
        return HTTPStatus.MISDIRECTED_REQUEST, "the emulated AWS is addressed as 127.0.0.1 or localhost only"
    if is_cross_site(host=host, origin=origin, fetch_site=fetch_site):
        return HTTPStatus.FORBIDDEN, "web pages cannot use the emulated AWS"
    return None
