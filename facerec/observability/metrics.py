"""What the Prometheus metrics of all tiers share: their HTTP server, and sums over processes."""

import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from facerec.errors import ConfigurationError
from facerec.host_check import LOOPBACK_NAMES, addressed_host, is_served
from facerec.settings.values import on_loopback

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = structlog.get_logger(__name__)


@contextmanager
def serve_metrics(registry: CollectorRegistry, host: str, port: int, *, group: str) -> Iterator[str | None]:
    """Serve the metrics over HTTP within the block; yields their address, or `None` for port -1.

    Port 0 takes a free one. On loopback the server answers to loopback names only: a web page may make its own name
    point there (DNS rebinding). Raises `ConfigurationError`, which names the settings of `group`, if the address fails.
    """
    if port < 0:
        yield None
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot serve metrics on {host} port {port} ({exc.strerror or exc}): choose others with "
            f"FACEREC_{group.upper()}__METRICS_HOST and FACEREC_{group.upper()}__METRICS_PORT"
        ) from exc
    if on_loopback(host):
        server.set_app(answering_to((*LOOPBACK_NAMES, host.lower()), server.get_app()))
    named = f"[{host}]" if ":" in host else host
    address = f"http://{named}:{server.server_port}/metrics"
    log.info("metrics_served", address=address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answering_to(names: Sequence[str], app: "WSGIApplication | None") -> "WSGIApplication":
    """The same WSGI app, which refuses requests that are addressed to another host."""

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        name = addressed_host(environ.get("HTTP_HOST"), environ.get("PATH_INFO", "/"))  # wsgiref's: the whole target
        if app is None or name is None or not is_served(name, names):
            start_response("421 Misdirected Request", [("Content-Type", "text/plain")])
            return [f"the metrics are addressed as {names[0]} only".encode()]
        return app(environ, start_response)

    return wrapped


def ended_children_seconds() -> float:
    """Return the processor time, user and system, of this process's children that have ended and been waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


class ProcessSum(Collector):
    """The sums of the process metrics of several processes: memory, processor time, descriptors.

    `pids` returns the current ones, `ended` the processor time of ended ones: a counter may not decrease.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], namespace: str = "", *, ended: Callable[[], float]) -> None:
        self._pids = pids
        self._namespace = namespace
        self._ended = ended

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric, also without processes."""
        sums = dict.fromkeys(_ADDED_UP, 0.0)
        for pid in self._pids():
            for family in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                if family.name in sums:
                    sums[family.name] += family.samples[0].value
        sums[_CPU] += self._ended()
        prefix = f"{self._namespace}_" if self._namespace else ""
        for name, value in sums.items():
            make = CounterMetricFamily if name == _CPU else GaugeMetricFamily
            yield make(f"{prefix}{name}", _ADDED_UP[name], value=value)


_CPU = "process_cpu_seconds"
_ADDED_UP = {
    _CPU: "Processor time, user and system",
    "process_resident_memory_bytes": "Resident memory",
    "process_virtual_memory_bytes": "Virtual memory",
    "process_open_fds": "Open descriptors",
}
