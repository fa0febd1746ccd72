"""Makes the MQTT listener of ministack as strict as AWS IoT Core: for `facerec.local.ministack_server`.

ministack's own one listens on every interface, serves clients without a certificate, and evaluates the policies of a
certificate only if it checks the signature of every request. This one listens on one host, demands a certificate, and
always evaluates its policies.
"""

import asyncio
import ssl
from collections.abc import Callable
from functools import wraps
from typing import Any

PORT, ENABLED = "IOT_MTLS_PORT", "IOT_MTLS_ENABLED"
"""ministack's variables of its listener."""


def make_strict(host: str, delivered: Callable[[], None]) -> None:
    """Let the listener of this process bind to `host`, and be strict; `delivered` is called when a rule used a queue.

    Raises `AttributeError` if ministack has changed its inner parts, for which it has no public way.
    """
    from ministack.services import iot  # type: ignore[import-untyped] # noqa: PLC0415 - it ships no types, and is slow

    make_context, send = iot._mtls_build_ssl_context, iot._dispatch_rule_sqs  # noqa: SLF001 - no public way
    _ = iot._mtls_start_locked, iot._WSSession._evaluates_policies  # noqa: SLF001 - as above

    def demanding_context() -> ssl.SSLContext:
        context: ssl.SSLContext = make_context()
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    async def start() -> None:
        if iot._mtls_server is None:  # noqa: SLF001 - as above
            loop = asyncio.get_running_loop()
            port = iot._mtls_port()  # noqa: SLF001 - as above
            iot._mtls_server = await loop.create_server(iot._MtlsAcceptor, host=host, port=port)  # noqa: SLF001
            iot._mtls_loop = loop  # noqa: SLF001 - as above

    def evaluates_policies(session: Any) -> bool:
        return session.certificate_id is not None

    @wraps(send)
    def send_and_tell(*arguments: Any) -> None:
        send(*arguments)
        delivered()

    iot._mtls_build_ssl_context = demanding_context  # noqa: SLF001 - as above
    iot._mtls_start_locked = start  # noqa: SLF001 - as above
    iot._WSSession._evaluates_policies = evaluates_policies  # noqa: SLF001 - as above
    iot._dispatch_rule_sqs = send_and_tell  # noqa: SLF001 - as above
