"""EC2's instance metadata service, version 2, as an instance with a role sees it: `FakeMetadata`."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_TOKEN = "a-session-token"
_ROLE = "facerec-worker"
_TOKEN_PATH = "/latest/api/token"


class FakeMetadata:
    """Serves on a loopback port within the block; `documents` are its answers by path to a request with a token."""

    def __init__(self, instance_id: str, region: str) -> None:
        expiration = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
        credentials = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "instance-role",
            "SecretAccessKey": "instance-role",
            "Token": "instance-role",
            "Expiration": expiration,
        }
        self.documents = {
            "/latest/meta-data/instance-id": instance_id,
            "/latest/meta-data/placement/region": region,
            "/latest/meta-data/iam/security-credentials/": _ROLE,
            f"/latest/meta-data/iam/security-credentials/{_ROLE}": json.dumps(credentials),
        }
        documents = self.documents

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                if self.path == _TOKEN_PATH and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers:
                    self._answer(HTTPStatus.OK, _TOKEN)
                else:
                    self._answer(HTTPStatus.BAD_REQUEST, "")

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != _TOKEN:
                    self._answer(HTTPStatus.UNAUTHORIZED, "")
                elif self.path in documents:
                    self._answer(HTTPStatus.OK, documents[self.path])
                else:
                    self._answer(HTTPStatus.NOT_FOUND, "")

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

            def _answer(self, status: HTTPStatus, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
