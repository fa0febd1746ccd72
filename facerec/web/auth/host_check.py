"""Which names the server answers to, and whose pages may use it: browsers go wherever a page sends them."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from facerec.settings.tiers import WebSettings
from facerec.settings.values import on_loopback

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def host_names(settings: WebSettings, *, open_to_all: bool) -> tuple[str, ...]:
    """The names that requests may be addressed to, in lower case; none means any.

    Unless the settings say it: against DNS rebinding, where a foreign page whose name is made to point here comes under
    its own name. With keys it could do nothing; behind a proxy the names are the proxy's.
    """
    own = (*LOOPBACK_NAMES, settings.host.lower())
    named = tuple(host.lower() for host in settings.allowed_hosts)
    return named or (own if open_to_all and on_loopback(settings.host) and not settings.trusted_proxies else ())


def is_addressed(environ: "WSGIEnvironment", names: tuple[str, ...]) -> bool:
    """Whether the request is for one of the names. Browsers name a host; whoever names none is none."""
    if not names or not environ.get("HTTP_HOST"):
        return True
    name = _host(environ)
    return name in names or any(host.startswith(".") and name.endswith(host) for host in names)


def is_from_another_site(environ: "WSGIEnvironment") -> bool:
    """Whether a browser says that a request which changes something comes from a page not ours; programs say nothing.

    `Sec-Fetch-Site` is only sent over HTTPS and to loopback, `Origin` everywhere; a page may hide behind `null` there.
    """
    if environ["REQUEST_METHOD"] in _SAFE:
        return False
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin: str = environ.get("HTTP_ORIGIN", "")
    return bool(origin) and origin.rpartition("://")[2].lower() != environ.get("HTTP_HOST", "").lower()


def _host(environ: "WSGIEnvironment") -> str:
    try:
        return (urlsplit(f"//{environ['HTTP_HOST']}").hostname or "").removesuffix(".")
    except ValueError:
        return ""
