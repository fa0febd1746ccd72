"""How a process shows its Prometheus metrics: a server of its own, from the client library."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from facerec.errors import ConfigurationError

log = structlog.get_logger(__name__)


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int, *, group: str) -> Iterator[str | None]:
    """Show the metrics over HTTP within the block; yields their address, or nothing for port -1.

    Port 0 takes a free one. Raises `ConfigurationError` when the address is taken or not this machine's; `group` is the
    group of settings that it names then.
    """
    if port < 0:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot show metrics on {host} port {port} ({exc.strerror or exc}): choose others with "
            f"FACEREC_{group.upper()}__METRICS_HOST and FACEREC_{group.upper()}__METRICS_PORT"
        ) from exc
    named = f"[{host}]" if ":" in host else host
    address = f"http://{named}:{server.server_port}/metrics"
    log.info("metrics_served", address=address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
