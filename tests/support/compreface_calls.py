"""Calls CompreFace's SDK; a script for the environment that has it: `compreface_calls.py URL KEY`.

It reads a line of JSON for each call, `[name, arguments, options]`, and writes a line with the status and the body of
the reply. The SDK itself hides the status.
"""

import json
import sys
from typing import Any

import requests
from compreface import CompreFace


class NotedSession(requests.Session):
    """A session that notes the status of each reply."""

    statuses: list[int] = []  # noqa: RUF012 - one list of all sessions: the SDK makes one for each request

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """Send, and note the status."""
        response = super().send(request, **settings)
        self.statuses.append(response.status_code)
        return response


def main(url: str, key: str) -> None:
    """Do the calls of standard input."""
    requests.sessions.Session = NotedSession  # type: ignore[misc] # what the functions that the SDK calls make
    domain, _, port = url.rstrip("/").rpartition(":")
    client = CompreFace(domain, port)
    recognition = client.init_face_recognition(key)
    parts = {
        "recognition": recognition,
        "subjects": recognition.get_subjects(),
        "faces": recognition.get_face_collection(),
        "detection": client.init_face_detection(key),
        "verification": client.init_face_verification(key),
    }
    for line in sys.stdin:
        name, arguments, options = json.loads(line)
        part, _, method = name.partition(".")
        call = getattr(parts[part], method)
        body = call(*arguments, options) if options else call(*arguments)
        sys.stdout.write(json.dumps([NotedSession.statuses[-1], body]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
