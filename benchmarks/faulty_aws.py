"""A proxy in front of the emulated AWS that fails chosen requests, for a process with few of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from flask import Flask, Response, request
from werkzeug.serving import make_server

_UPSTREAM_SECONDS = 30.0
_HOP_BY_HOP = frozenset({"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"})


class FaultyAws:
    """`url` is what a process gets as its endpoint; `failing` decides by a request's body which get HTTP 503."""

    def __init__(self, upstream: str) -> None:
        self._client = httpx.Client(base_url=upstream, timeout=_UPSTREAM_SECONDS, trust_env=False)
        self.failing: Callable[[bytes], bool] = lambda _: False
        app = Flask("faulty-aws")
        app.add_url_rule("/", view_func=self._pass_on, defaults={"path": ""}, methods=["GET", "POST", "PUT", "DELETE"])
        app.add_url_rule("/<path:path>", view_func=self._pass_on, methods=["GET", "POST", "PUT", "DELETE", "HEAD"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def serve(self) -> None:
        """Serve until `close`."""
        self._server.serve_forever()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._client.close()

    def _pass_on(self, path: str) -> Response:
        body = request.get_data()
        if self.failing(body):
            return Response("<Response><Errors><Error><Code>Unavailable</Code></Error></Errors></Response>", 503)
        headers = {name: value for name, value in request.headers if name.lower() != "content-length"}
        try:
            answer = self._client.request(
                request.method, f"/{path}", params=request.query_string.decode(), headers=headers, content=body
            )
        except httpx.HTTPError as exc:
            return Response(str(exc), 502)
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        return Response(answer.content, answer.status_code, kept)


@contextmanager
def faulty_aws(upstream: str) -> Iterator[FaultyAws]:
    """A proxy that serves within the block."""
    proxy = FaultyAws(upstream)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
