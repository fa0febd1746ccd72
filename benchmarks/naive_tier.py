"""The common app tier, for comparison: one process that handles one message at a time.

    python -m benchmarks.naive_tier   # configured as `benchmarks.pipeline` does it, by a JSON object on stdin

receive one message (long poll) → get the photo from S3 → `benchmarks.naive` at 240 px → put the result → send it →
delete the message. It is not slowed down: it polls long, never sleeps, keeps its connections, and has run the
networks before its first message.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from benchmarks.naive import Naive
from model.artefact import Artefact

FACE_PIXELS = 240
POLL_SECONDS = 20


def main() -> None:
    """Serve until killed; one line on stdout says that everything is warm."""
    options: Mapping[str, Any] = json.load(sys.stdin)
    naive = Naive(Artefact.load(Path(options["artefact"])), FACE_PIXELS)
    enrolled = sorted(Path(options["people"]).glob("*/*"))
    names = [path.parent.name for path in enrolled if naive.enrol(path.read_bytes())]
    for path in enrolled[:3]:
        naive.recognise(path.read_bytes())
    s3 = boto3.client("s3", endpoint_url=options["endpoint_url"])
    sqs = boto3.client("sqs", endpoint_url=options["endpoint_url"])
    print("warm", flush=True)
    while True:
        received = sqs.receive_message(
            QueueUrl=options["requests"], MaxNumberOfMessages=1, WaitTimeSeconds=POLL_SECONDS
        )
        for message in received.get("Messages", []):
            request = json.loads(message["Body"])
            photo = s3.get_object(Bucket=options["input_bucket"], Key=request["key"])["Body"].read()
            nearest = naive.recognise(photo)
            name = "No-Face" if nearest is None else names[nearest[0]]
            s3.put_object(Bucket=options["output_bucket"], Key=request["filename"], Body=name.encode())
            sqs.send_message(
                QueueUrl=options["responses"], MessageBody=json.dumps({"filename": request["filename"], "result": name})
            )
            sqs.delete_message(QueueUrl=options["requests"], ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
