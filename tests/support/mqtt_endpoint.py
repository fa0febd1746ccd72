"""An MQTT 5 endpoint that does what AWS IoT Core may and mosquitto cannot: it ends a connection for its topic."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from facerec.processes.addresses import LOOPBACK
from tests.support.certificates import CertificateAuthority

_CONNACK, _PUBLISH, _PUBACK, _DISCONNECT = 0x20, 3, 0x40, 0xE0
_NOT_AUTHORIZED = 0x87


class MqttEndpoint:
    """Keeps every session, and serves the publishes of one client; run it with `mqtt_endpoint`.

    A publish on `forbidden` ends the connection with the reason "not authorised". While `answering` is false, publishes
    are not acknowledged.
    """

    def __init__(self, forbidden: str) -> None:
        self.port = 0
        self.forbidden = forbidden
        self.answering = True
        self.received: list[tuple[str, bytes, bool]] = []
        """Topic, payload and whether the client has marked it as a duplicate."""
        self.started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()

    def serve(self, tls: ssl.SSLContext) -> None:
        """Serve until `close`."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(tls))

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._ended.set)

    def cut(self) -> None:
        """End all connections without a reason."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, tls: ssl.SSLContext) -> None:
        server = await asyncio.start_server(self._converse, LOOPBACK, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await self._ended.wait()
        server.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await _read_packet(reader)
            # The session is present; no properties.
            writer.write(bytes([_CONNACK, 3, 1, 0, 0]))
            while True:
                first, body = await _read_packet(reader)
                if first >> 4 == _PUBLISH and not self._take(writer, first, body):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _take(self, writer: asyncio.StreamWriter, first: int, body: bytes) -> bool:
        """Take a publish; returns whether the connection goes on."""
        end = 2 + int.from_bytes(body[:2])
        topic, packet_id, properties = body[2:end].decode(), body[end : end + 2], body[end + 2]
        self.received.append((topic, body[end + 3 + properties :], bool(first & 8)))
        if topic == self.forbidden:
            writer.write(bytes([_DISCONNECT, 1, _NOT_AUTHORIZED]))
            return False
        if self.answering:
            writer.write(bytes([_PUBACK, 2]) + packet_id)
        return True


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return first, await reader.readexactly(length)


@contextmanager
def mqtt_endpoint(authority: CertificateAuthority, forbidden: str) -> Iterator[MqttEndpoint]:
    """Run an endpoint on loopback with a certificate for `localhost`."""
    certificate = authority.issue("endpoint", hosts=("localhost",))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.certificate_file, certificate.key_file)
    tls.load_verify_locations(authority.ca_file)
    tls.verify_mode = ssl.CERT_REQUIRED
    endpoint = MqttEndpoint(forbidden)
    thread = threading.Thread(target=endpoint.serve, args=(tls,), daemon=True)
    thread.start()
    assert endpoint.started.wait(10)
    try:
        yield endpoint
    finally:
        endpoint.close()
        thread.join()
