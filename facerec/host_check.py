"""Which name a request is addressed to, and whether a browser sends it for a page of another site. Pure.

Every HTTP server of the system uses these checks. Frameworks hand on two `Host` or `Origin` lines as one value with a
comma, so a value is read whole or not at all: a part of it could pass for an allowed name.
"""

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

MAX_PORT = 65_535

_AUTHORITY = re.compile(
    r"(?:(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?|\[(?P<ipv6>[0-9a-f:.]+)\])(?::(?P<port>[0-9]{0,5}))?",
    re.ASCII | re.IGNORECASE,
)
"""`host[:port]` of RFC 9112 with the characters of DNS names and `_`, which container networks use."""

_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://(?P<authority>[^/?#]*)", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(?P<authority>.+)", re.ASCII | re.IGNORECASE)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def host_name(authority: str) -> str | None:
    """Return the name in `host[:port]`, in lower case, without its last dot or brackets; None for any other form."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found["port"] or 0) > MAX_PORT:
        return None
    if found["name"] is not None:
        return found["name"].lower()
    try:
        IPv6Address(found["ipv6"])
    except AddressValueError:
        return None
    return found["ipv6"].lower()


def addressed_host(host: str | None, target: str = "/") -> str | None:
    """Return the name that a request is addressed to, `""` if it names none, or None if it is not clear.

    `host` is the value of its `Host` header. `target` is the request target: an absolute one (`http://name/path`) must
    name the same host.
    """
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        if host is not None and host.lower() != absolute["authority"].lower():
            return None
        return host_name(absolute["authority"])
    return host_name(host) if host else ""


def is_served(name: str, names: Sequence[str]) -> bool:
    """Return whether a server with these lower-case names serves `name`; it serves all if it has none.

    A name with a leading dot stands for every name below it. A request without a name is served: browsers, against
    which the check is, always send one.
    """
    if not names or not name:
        return True
    return name in names or any(one.startswith(".") and name.endswith(one) for one in names)


def is_safe(method: str) -> bool:
    """Return whether requests of this method change nothing."""
    return method in _SAFE


def is_from_another_site(method: str, *, host: str | None, origin: str | None, fetch_site: str | None) -> bool:
    """Return whether a browser sends a changing request for a page of another site."""
    return not is_safe(method) and is_cross_site(host=host, origin=origin, fetch_site=fetch_site)


def is_cross_site(*, host: str | None, origin: str | None, fetch_site: str | None) -> bool:
    """Return whether a browser sends the request for a page of another site; programs send neither header.

    Browsers send `Sec-Fetch-Site` over HTTPS and to loopback only. They send `Origin` with each request that changes
    something or whose answer the page reads; a page can make it `null`.
    """
    if fetch_site is not None:
        return fetch_site not in {"same-origin", "none"}
    if not origin:
        return False
    found = _ORIGIN.fullmatch(origin)
    return found is None or found["authority"].lower() != (host or "").lower()
