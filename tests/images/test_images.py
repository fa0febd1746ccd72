"""The images: built as published but for the base, and run with a read-only root file system and without privileges."""

import base64
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from facerec.local.functions.events import UrlRequest, sqs_event, url_event
from facerec.local.functions.runtime_emulator import fetch_runtime_emulator
from facerec.processes.addresses import poll_until
from tests.support.certificates import CertificateAuthority
from tests.support.containers import FLOWER_PASSWORD, Container, Pod, compose_services
from tests.support.images import build, configuration, mounted
from tests.support.nginx import CONFIGURATION, find_nginx
from tests.support.processes import CHECKOUT, Command

pytestmark = pytest.mark.timeout(3600)  # the first test builds

LIMITS_MB = {"web": 250, "worker": 700, "autoscale": 400, "flower": 300, "aws": 300, "lambda": 700, "edge": 600}
"""The largest allowed sizes; those of web, worker and lambda are requirements."""
EXAMPLES = CHECKOUT / "examples"

_UPLOAD = """
import sys, httpx
from pathlib import Path
for photo in map(Path, sys.argv[2:]):
    files = {"inputFile": (photo.name, photo.read_bytes())}
    print(httpx.post(sys.argv[1], files=files, timeout=200, trust_env=False).text)
"""
_GET = """
import sys, httpx
print(httpx.get(sys.argv[1], auth=("facerec", sys.argv[2]), timeout=20, trust_env=False).text)
"""
_INVOKE = """
import sys, httpx
from pathlib import Path
url = f"http://127.0.0.1:{sys.argv[1]}/2015-03-31/functions/function/invocations"
print(httpx.post(url, content=Path(sys.argv[2]).read_bytes(), timeout=60, trust_env=False).text)
"""
_RECEIVE = """
import json, boto3
sqs = boto3.client("sqs", "us-east-1", endpoint_url="http://127.0.0.1:4566",
                   aws_access_key_id="any", aws_secret_access_key="any")
url = sqs.get_queue_url(QueueName="facerec-faces-queue")["QueueUrl"]
print(json.dumps(sqs.receive_message(QueueUrl=url, AttributeNames=["All"], WaitTimeSeconds=5)["Messages"]))
"""


@pytest.mark.parametrize("target", LIMITS_MB)
def test_image_is_within_its_limit(size_mb: Callable[[str], float], target: str) -> None:
    """With its base, unpacked."""
    assert size_mb(target) < LIMITS_MB[target]


@pytest.mark.parametrize("target", LIMITS_MB)
def test_image_holds_only_what_its_tier_needs(image: Callable[[str], str], target: str) -> None:
    """No installer, compiler or torch, nothing of the build's configuration, and no file that its user may replace."""
    with mounted(image(target)) as root:
        packages = next(root.glob("opt/facerec/venv/lib/python3*/site-packages"))
        assert not {"pip", "setuptools", "torch"} & {path.name for path in packages.iterdir()}
        assert not [path for path in ("usr/bin/gcc", "opt/tools", "build") if (root / path).exists()]
        for secret in ("etc/pip.conf", "run/secrets/ca.pem"):
            assert not (root / secret).exists()
        sources = [*packages.glob("facerec/**/*.py"), *packages.glob("boto3/**/*.py")]
        assert sources
        for source in sources:
            state = source.stat()
            assert (state.st_uid, state.st_mode & 0o022) == (0, 0)
            assert list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")), source


@pytest.mark.parametrize("target", LIMITS_MB)
def test_image_is_configured_for_its_tier(image: Callable[[str], str], target: str) -> None:
    """A fixed user, no shell before the command, a health check, and a title."""
    config = configuration(image(target))
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == (["python", "-m", "awslambdaric"] if target == "lambda" else ["facerec"])
    assert config["Labels"]["org.opencontainers.image.title"] == f"facerec-{target}"
    test = config["Healthcheck"]["Test"]
    own = {"lambda": ["NONE"], "edge": ["CMD", "facerec", "edge", "health"]}
    assert test == own[target] if target in own else test[:2] == ["CMD", "python"]


def test_model_is_mounted_into_an_image_without_one(image: Callable[[str], str], pod: Pod) -> None:
    """The image of `MODEL=mounted` runs with a folder that is mounted."""
    bare = build("worker-mounted", target="worker", MODEL="mounted")
    with mounted(bare) as root:
        assert list((root / "opt/facerec/model").iterdir()) == []
    with mounted(image("worker")) as root:
        model = {"/opt/facerec/model": root / "opt/facerec/model"}
        shown = pod.run("facerec-worker-mounted", ["model", "verify"], name="verify", environ={}, binds=model)
        assert shown.command.wait() == 0, shown.command.output
        assert "files intact" in shown.command.output


def test_containers_recognise_photos(image: Callable[[str], str], pod: Pod, tmp_path: Path) -> None:
    """The services of compose.yaml: uploads through nginx are answered as in the demonstration; SIGTERM ends each."""
    aws = _start_aws(image, pod)
    for target in ("worker", "autoscale", "flower"):
        image(target)
    _run_once(pod, "enrol")
    tiers = {service: pod.start(service) for service in ("worker", "web", "autoscale", "flower")}
    for tier in tiers.values():
        tier.await_health()
    photos = sorted((EXAMPLES / "probes").glob("*.jpg"))
    with _nginx(pod, tmp_path):
        replies = pod.python(_UPLOAD, "http://127.0.0.1/", *map(str, photos))
    assert replies.splitlines() == [
        "image_01.jpg: face detected - Barack Obama",
        "image_02.jpg: face not recognized",
        "image_03.jpg: face detected - Joe Biden",
        "image_04.jpg: no face detected",
        "image_05.jpg: face detected - Barack Obama",
    ]
    tiers["autoscale"].command.wait_for("would")
    assert "celery@" in pod.python(_GET, "http://127.0.0.1:5555/api/workers", FLOWER_PASSWORD)
    for container in (*tiers.values(), aws):
        assert container.command.stop() == 0, container.command.output


def test_functions_recognise_a_photo(image: Callable[[str], str], pod: Pod, tmp_path: Path) -> None:
    """Both, by the image's entry point, under AWS's runtime emulator: a call of the URL, then the faces' message."""
    _start_aws(image, pod)
    image("worker")
    _run_once(pod, "enrol")
    detection = _start_function(image, pod, "detection", 8080)
    recognition = _start_function(image, pod, "recognition", 8081)

    answer = _invoke(pod, tmp_path, 8080, _url_event(EXAMPLES / "probes" / "image_04.jpg"))
    assert answer.get("statusCode") == 200, (answer, detection.command.output)
    assert json.loads(answer["body"])["result"] == "No-Face"

    answer = _invoke(pod, tmp_path, 8080, _url_event(EXAMPLES / "probes" / "image_01.jpg"))
    assert answer.get("statusCode") == 202, (answer, detection.command.output)
    messages = json.loads(pod.python(_RECEIVE))
    event = sqs_event(messages, "arn:aws:sqs:us-east-1:000000000000:facerec-faces-queue", "us-east-1")
    assert _invoke(pod, tmp_path, 8081, event) == {"batchItemFailures": []}, recognition.command.output
    assert '"outcome":"match"' in recognition.command.wait_for("recognised")


def test_device_detects_faces_and_keeps_them_without_a_connection(
    image: Callable[[str], str], pod: Pod, tmp_path: Path
) -> None:
    """With a certificate that its user alone may read, in a root file system that is read-only."""
    image("edge")
    ca = tmp_path / "ca"
    ca.mkdir()
    authority = CertificateAuthority(ca)
    certificate = authority.issue("gate-1")
    frames, state = tmp_path / "frames", tmp_path / "state"
    frames.mkdir()
    state.mkdir()
    for path in (frames, state, certificate.certificate_file, certificate.key_file):
        os.chown(path, 10001, 10001)
    names = ("certificate_file", "key_file", "ca_file")
    files = dict(zip(names, (certificate.certificate_file, certificate.key_file, authority.ca_file), strict=True))
    environ = {
        "FACEREC_EDGE__THING": "gate-1",
        "FACEREC_EDGE__ENDPOINT": "127.0.0.1",
        "FACEREC_EDGE__SOURCE": "folder",
        "FACEREC_EDGE__FOLDER": "/frames",
        **{f"FACEREC_EDGE__{name.upper()}": f"/device/{name}" for name in names},
    }
    binds = {"/frames": frames, "/var/lib/facerec": state, **{f"/device/{name}": path for name, path in files.items()}}
    device = pod.run("facerec-edge", name="edge", environ=environ, binds=binds)
    device.await_health()
    shutil.copy(EXAMPLES / "probes" / "image_01.jpg", frames / "image_01.jpg")
    assert poll_until(lambda: not list(frames.iterdir()), 60), device.command.output
    assert device.command.stop() == 0, device.command.output
    assert '"spooled": 1' in device.command.output


def _start_aws(image: Callable[[str], str], pod: Pod) -> Container:
    image("aws")
    image("web")
    aws = pod.start("aws").await_health()
    _run_once(pod, "provision")
    return aws


def _run_once(pod: Pod, service: str) -> None:
    command = pod.start(service).command
    assert command.wait() == 0, command.output


def _start_function(image: Callable[[str], str], pod: Pod, name: str, port: int) -> Container:
    entrypoint = configuration(image("lambda"))["Entrypoint"]
    emulator = [
        *("/rie", "--log-level", "error"),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{port + 1000}"),
    ]
    return pod.run(
        "facerec-lambda",
        [f"facerec.serverless.{name}.handler"],
        name=name,
        environ=compose_services()["worker"]["environment"] | {"AWS_LAMBDA_FUNCTION_NAME": name},
        entrypoint=[*emulator, *entrypoint],
        binds={"/rie": fetch_runtime_emulator((CHECKOUT / ".cache").resolve() / "downloads")},
    )


def _url_event(photo: Path) -> dict[str, Any]:
    request_id, content = str(uuid.uuid4()), base64.b64encode(photo.read_bytes()).decode()
    request = UrlRequest(
        method="POST",
        path="/",
        query="",
        headers={"content-type": "application/json"},
        body=json.dumps({"request_id": request_id, "content": content, "filename": photo.name}).encode(),
        source_ip="127.0.0.1",
        protocol="HTTP/1.1",
    )
    return url_event(request, request_id, datetime.now(UTC))


def _invoke(pod: Pod, folder: Path, port: int, event: dict[str, Any]) -> Any:
    file = folder / "event.json"
    file.write_text(json.dumps(event))
    return json.loads(pod.python(_INVOKE, str(port), str(file)))


def _nginx(pod: Pod, folder: Path) -> Command:
    """This machine's nginx on the containers' network, configured as in compose.yaml; `web` is on loopback here."""
    nginx = find_nginx()
    assert nginx is not None, "nginx is not installed (apt-get install nginx-light)"
    [_, _, script] = compose_services()["nginx"]["command"]
    edit = shlex.split(script)[1].replace("$$", "$").replace("web:8000", "127.0.0.1:8000")
    text = Command(["sed", edit, str(CONFIGURATION)], {"PATH": "/usr/bin:/bin"}, merged=True)
    assert text.wait() == 0
    configured = folder / "nginx.conf"
    configured.write_text(
        text.output.replace("/var/log/nginx/", f"{folder}/").replace("/run/nginx.pid", f"{folder}/nginx.pid")
    )
    return Command(pod.inside(nginx, "-p", str(folder), "-c", str(configured), "-g", "daemon off; user root;"), {})
