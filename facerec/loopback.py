"""Which addresses only this machine reaches: one rule for all that may be open there."""

import ipaddress


def on_loopback(host: str) -> bool:
    """Whether what listens on the host, an address or a name, is reached from this machine alone; resolves nothing."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
