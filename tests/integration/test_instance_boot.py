"""The boot of an EC2 instance: its user data's files, laid out below a directory as cloud-init does below `/`.

The boot script really runs, against a metadata service and the emulator's S3 that hold what an instance finds: a wheel
built from this checkout, and the real model. What pip would download besides is taken from this interpreter's packages.
"""

import hashlib
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
import zipfile
from collections.abc import Iterator
from configparser import RawConfigParser
from datetime import UTC, datetime
from importlib.metadata import distributions
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from pydantic import AnyHttpUrl

from facerec import __version__, bootstrap
from facerec.aws.clients import Clients
from facerec.aws.sqs.results import SqsResultInbox
from facerec.celery import CeleryTaskQueue
from facerec.engine.registry import push
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import input_key
from facerec.provision.provisioning import provision
from facerec.provision.user_data import user_data
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings, InstancesSettings
from model.artefact import Artefact
from tests.fakes.metadata import FakeMetadata
from tests.support.emulated import EmulatedAws
from tests.support.pictures import PORTRAIT
from tests.support.processes import CHECKOUT

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl, which every AMI has, is not installed here"),
]

INSTANCE_ID = "i-0123456789abcdef0"
REGION = "eu-central-1"
REQUIREMENTS = "facerec/provision/requirements.txt"
RELEASE = f"{__version__}+boot"
UNIT = "etc/systemd/system/facerec-worker.service"


def zipped(files: dict[str, str]) -> bytes:
    """A wheel with these files."""
    wheel = BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel.getvalue()


class Instance:
    """An instance's file system, and what systemd would do in it."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        for file in yaml.safe_load(user_data(settings))["write_files"]:
            path = root / file["path"].lstrip("/")
            path.parent.mkdir(parents=True)
            path.write_text(file["content"])
            path.chmod(int(file["permissions"], 8))
        (root / "dev").mkdir()
        self.console = root / "dev/console"
        self.console.touch()
        self.home, self.caught = root / "var/cache/facerec", root / "caught"
        self.python()
        self.plant()

    def python(self) -> None:
        """The operating system's Python, whose virtual environments see this interpreter's packages, pip among them."""
        command = self.root / "usr/bin/python3.12"
        command.parent.mkdir(parents=True)
        packages = sysconfig.get_path("purelib")
        command.write_text(
            f'#!/bin/sh\n[ "$3" != venv ] || set -- "$@" --without-pip\n{shlex.quote(sys.executable)} "$@" || exit\n'
            f'[ "$3" != venv ] || for packages in "$5"/lib/python*/site-packages; do\n'
            f'  echo {shlex.quote(packages)} > "$packages/of-the-test.pth"\ndone\n'
        )
        command.chmod(0o755)

    def environ(self) -> dict[str, str]:
        """What systemd passes on."""
        return {"PATH": f"{self.root}/usr/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "BOOT_ROOT": str(self.root)}

    def plant(self) -> None:
        """Leave in the worker's HOME what a program of root's would run or obey; it would leave a trace."""
        run = f"open({str(self.caught)!r}, 'a').write(__name__)"
        packages = f".local/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        planted = {
            ".curlrc": f'trace = "{self.caught}"',
            ".config/curlrc": f'trace = "{self.caught}"',
            ".aws/config": f"[default]\ncredential_process = /usr/bin/touch {self.caught}\n",
            ".aws/credentials": "[default]\naws_access_key_id = planted\naws_secret_access_key = planted\n",
            ".bashrc": f"touch {self.caught}",
            "startup.py": run,
            "facerec.py": run,
            "json.py": run,
            f"{packages}/usercustomize.py": run,
            f"{packages}/planted.pth": f"import os; {run}",
            ".config/pip/pip.conf": "[global]\nindex-url = http://127.0.0.1:1\nfind-links = /planted\n",
        }
        for name, content in planted.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def boot(self) -> subprocess.CompletedProcess[str]:
        """Run what the unit runs before the worker, with its HOME and more that a worker has no way to set."""
        home = str(self.home)
        environ = self.environ() | {
            "HOME": home,
            "XDG_CACHE_HOME": str(self.home.parent),
            "XDG_CONFIG_HOME": f"{home}/.config",
            "CURL_HOME": home,
            "PYTHONPATH": home,
            "PYTHONSTARTUP": f"{home}/startup.py",
            "PYTHONUSERBASE": f"{home}/.local",
            "PIP_CONFIG_FILE": f"{home}/.config/pip/pip.conf",
            "AWS_CONFIG_FILE": f"{home}/.aws/config",
            "AWS_SHARED_CREDENTIALS_FILE": f"{home}/.aws/credentials",
            "BASH_ENV": f"{home}/.bashrc",
            "TMPDIR": home,
        }
        return subprocess.run(
            self.command("ExecStartPre"), env=environ, cwd=home, capture_output=True, text=True, check=False
        )

    def command(self, key: str) -> list[str]:
        """A command of the unit, below our root."""
        unit = RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd tells upper from lower case
        unit.read(self.root / UNIT)
        return [
            f"{self.root}{word}" if word.startswith("/") else word for word in unit["Service"][key].lstrip("+").split()
        ]

    def worker_environ(self) -> dict[str, str]:
        """The environment of the worker: the environment file's lines."""
        lines = (self.root / "etc/facerec/worker.env").read_text().splitlines()
        return self.environ() | {name: shlex.split(value)[0] for name, value in (line.split("=", 1) for line in lines)}

    def said(self) -> list[str]:
        """The lines on the console."""
        return self.console.read_text().splitlines()


@pytest.fixture(scope="module")
def metadata() -> Iterator[FakeMetadata]:
    """The metadata service, which also has the role's credentials."""
    with FakeMetadata(INSTANCE_ID, REGION) as found:
        yield found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a release of its own version, which pip tells from what is installed here."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in ("autoscale", "facerec", "model", "tasks"):
        shutil.copytree(CHECKOUT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / file, source)
    (source / "facerec/provision/requirements.txt").write_text(requirements())
    init = source / "facerec/__init__.py"
    init.write_text(init.read_text().replace(__version__, RELEASE))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    subprocess.run((*pip, "wheel", "--no-deps", "--wheel-dir", target, source), check=True)
    (built,) = target.iterdir()
    return built


def requirements() -> str:
    """This interpreter's packages with their versions; pip compares no hash of what is installed already."""
    pinned = {f"{found.name}=={found.version}" for found in distributions() if found.name not in {"facerec", "pip"}}
    return "".join(f"{one} --hash=sha256:{'0' * 64}\n" for one in sorted(pinned))


def sha256(content: bytes) -> str:
    """The hash as the setting has it."""
    return f"#sha256={hashlib.sha256(content).hexdigest()}"


@pytest.fixture(scope="module")
def deployment(emulator: EmulatedAws, metadata: FakeMetadata, artefact_dir: Path, wheel: Path) -> Settings:
    """A provisioned deployment in the instance's region, with its model and its release in place."""
    settings = deployed(emulator, metadata, f"releases/{wheel.name}{sha256(wheel.read_bytes())}")
    store = bootstrap.object_store(settings)
    push(store, settings.model_bucket, Artefact.load(artefact_dir))
    store.put(settings.model_bucket, f"releases/{wheel.name}", wheel.read_bytes(), "application/zip")
    return settings


def deployed(emulator: EmulatedAws, metadata: FakeMetadata, release: str | None) -> Settings:
    """A deployment of its own in the instance's region, provisioned."""
    settings = emulator.settings.changed(
        prefix=f"test-{uuid.uuid4().hex[:12]}",
        aws=emulator.settings.aws.model_copy(update={"region": REGION}),
        worker=emulator.settings.worker.model_copy(update={"engines": 1, "metadata_url": AnyHttpUrl(metadata.url)}),
        log=emulator.settings.log.model_copy(update={"format": "json"}),
    )
    provision(Clients(settings), settings)
    package = f"s3://{settings.model_bucket}/{release}" if release else None
    return settings.changed(instances=InstancesSettings(package=package))


@pytest.fixture(scope="module")
def booted(deployment: Settings, tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """An instance after its first boot."""
    instance = Instance(tmp_path_factory.mktemp("instance"), deployment)
    boot = instance.boot()
    assert boot.returncode == 0, boot.stderr
    return instance


def test_the_first_boot_installs_and_says_so(booted: Instance) -> None:
    """The release is in its own environment, the model is intact, and the console tells it in a line."""
    installed = subprocess.run(
        [booted.root / "opt/facerec/venv/bin/facerec", "--version"],
        env=booted.environ(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert RELEASE in installed.stdout
    Artefact.load(booted.root / "var/lib/facerec/model").verify()
    first, last = booted.said()[0], booted.said()[-1]
    assert first.startswith("facerec: installing s3://")
    assert last == f"facerec: {INSTANCE_ID} in {REGION} is ready to start {installed.stdout.strip()}"


def test_a_release_can_make_user_data(booted: Instance) -> None:
    """The script and the unit are in the wheel, so that an installed facerec provisions, too."""
    script = (
        "from facerec.provision.user_data import user_data;"
        "from facerec.settings import Settings;"
        "print(user_data(Settings()), end='')"
    )
    made = subprocess.run(
        [booted.root / "opt/facerec/venv/bin/python", "-c", script],
        env=booted.environ(),
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == user_data(Settings(aws=AwsSettings()))


def test_the_worker_learns_who_it_is(booted: Instance, deployment: Settings, metadata: FakeMetadata) -> None:
    """Its environment has the deployment's settings, the instance's id and region, and no credentials."""
    environ = booted.worker_environ()
    assert environ["FACEREC_PREFIX"] == deployment.prefix
    assert environ["FACEREC_AWS__REGION"] == REGION
    assert environ["FACEREC_WORKER__INSTANCE_ID"] == INSTANCE_ID
    assert environ["FACEREC_WORKER__METADATA_URL"].rstrip("/") == metadata.url
    assert not any("SECRET" in name or "ACCESS_KEY" in name for name in environ)


def test_the_worker_recognises_and_leaves_cleanly(booted: Instance, deployment: Settings) -> None:
    """Started as systemd starts it, with the role's credentials, it answers; SIGTERM ends it with status 0."""
    worker = subprocess.Popen(
        booted.command("ExecStart"),
        env=booted.worker_environ(),
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    try:
        ready = next((line for line in worker.stderr if '"worker_ready"' in line), None)
        assert ready is not None
        answer = recognised(deployment)
        assert (answer.outcome, len(answer.faces)) == (Outcome.UNKNOWN, 1)
        worker.send_signal(signal.SIGTERM)
        rest = worker.stderr.read()
        assert worker.wait(60) == 0, rest
        assert '"worker_stopped"' in rest
    finally:
        worker.kill()
        worker.wait()


def recognised(settings: Settings) -> RecognitionResult:
    """The result of a portrait that is submitted as the web tier does it."""
    request_id, picture = uuid.uuid4(), PORTRAIT.read_bytes()
    key = input_key(request_id, PORTRAIT.name)
    bootstrap.object_store(settings).put(settings.input_bucket, key, picture, "image/jpeg")
    request = RecognitionRequest(
        request_id=request_id,
        input=ObjectRef(bucket=settings.input_bucket, key=key, size=len(picture)),
        filename=PORTRAIT.name,
        reply_to=settings.response_queue,
        submitted_at=datetime.now(UTC),
    )
    CeleryTaskQueue(settings).submit(request)
    inbox = SqsResultInbox(Clients(settings), settings.response_queue)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        for delivery in inbox.receive(5):
            if delivery.result.request_id == request_id:
                return delivery.result
    raise AssertionError("the worker has not answered")


def test_a_second_boot_installs_nothing(booted: Instance, deployment: Settings) -> None:
    """A stopped instance starts again without its package, and needs no pip; the model is looked at, not fetched."""
    store, key = bootstrap.object_store(deployment), f"releases/{wheel_name(deployment)}"
    wheel = store.get(deployment.model_bucket, key)
    said = len(booted.said())
    store.delete(deployment.model_bucket, key)
    try:
        boot = booted.boot()
    finally:
        store.put(deployment.model_bucket, key, wheel, "application/zip")
    assert boot.returncode == 0, boot.stderr
    assert "the model is there already and intact" in boot.stderr
    assert len(booted.said()) == said + 1


def wheel_name(settings: Settings) -> str:
    """The file name of the deployment's package."""
    return str(settings.instances.package).rpartition("/")[2].partition("#")[0]


def test_an_image_that_has_the_worker_needs_no_package(booted: Instance, deployment: Settings, tmp_path: Path) -> None:
    """Made from an instance that was set up once, it starts with the deployment's settings alone."""
    instance = Instance(tmp_path, deployment.changed(instances=InstancesSettings()))
    (tmp_path / "opt/facerec/venv").symlink_to(booted.root / "opt/facerec/venv")
    boot = instance.boot()
    assert boot.returncode == 0, boot.stderr
    (line,) = instance.said()
    assert f"{INSTANCE_ID} in {REGION} is ready to start" in line


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (None, "could not run {root}/opt/facerec/venv/bin/facerec; set FACEREC_INSTANCES__PACKAGE"),
        (f"releases/missing.whl{sha256(b'')}", "could not fetch s3://{bucket}/releases/missing.whl;"),
    ],
)
def test_a_boot_that_fails_is_loud(
    emulator: EmulatedAws, metadata: FakeMetadata, tmp_path: Path, release: str | None, words: str
) -> None:
    """The unit fails, and one sentence on the console says what could not be done."""
    settings = deployed(emulator, metadata, release)
    instance = Instance(tmp_path, settings)
    assert instance.boot().returncode != 0
    assert words.format(root=tmp_path, bucket=settings.model_bucket) in instance.said()[-1]


def test_a_boot_without_an_identity_fails(emulator: EmulatedAws, tmp_path: Path) -> None:
    """A worker that could not report would never be drained: there is none."""
    with FakeMetadata(INSTANCE_ID, REGION) as nameless:
        del nameless.documents["/latest/meta-data/instance-id"]
        instance = Instance(tmp_path, deployed(emulator, nameless, None))
        assert instance.boot().returncode != 0
        assert f"could not learn this instance's id and region from {nameless.url};" in instance.said()[-1]
    assert not (tmp_path / "etc/facerec/worker.env").exists()


@pytest.mark.parametrize(
    ("stated", "stored", "words"),
    [
        (b"the release", b"another one", "against the hash in FACEREC_INSTANCES__PACKAGE"),
        (zipped({"facerec/__init__.py": ""}), None, "read the hashes of what"),
    ],
    ids=["another wheel", "no hashes"],
)
def test_boot_installs_nothing_but_what_hashes_name(
    emulator: EmulatedAws, metadata: FakeMetadata, tmp_path: Path, stated: bytes, stored: bytes | None, words: str
) -> None:
    """A replaced wheel, and packages other than the tested ones, do not run as root."""
    settings = deployed(emulator, metadata, f"releases/facerec.whl{sha256(stated)}")
    store = bootstrap.object_store(settings)
    store.put(settings.model_bucket, "releases/facerec.whl", stated if stored is None else stored, "application/zip")
    instance = Instance(tmp_path, settings)
    assert instance.boot().returncode != 0
    assert words in instance.said()[-1]
    assert not (tmp_path / "opt/facerec/package").exists()


def test_boot_installs_no_package_without_its_hash(
    emulator: EmulatedAws, metadata: FakeMetadata, tmp_path: Path
) -> None:
    """Its version alone does not name it: an index may have another file. The console tells which Python looked."""
    needed = tmp_path / "needed-1.0-py3-none-any.whl"
    facts = {
        "METADATA": "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    needed.write_bytes(zipped({f"needed-1.0.dist-info/{name}": content for name, content in facts.items()}))
    wheel = zipped({REQUIREMENTS: f"{needed}\n"})
    settings = deployed(emulator, metadata, f"releases/facerec.whl{sha256(wheel)}")
    bootstrap.object_store(settings).put(settings.model_bucket, "releases/facerec.whl", wheel, "application/zip")
    instance = Instance(tmp_path / "instance", settings)
    assert "Hashes are required" in instance.boot().stderr
    assert "could not install what s3://" in instance.said()[-1]
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    assert f"whose hashes must be of {version} and {platform.machine()}" in instance.said()[-1]


def test_boot_reads_nothing_that_the_worker_can_write(booted: Instance) -> None:
    """Whatever a worker that was taken over leaves in its HOME, or gets into its environment, root does not run it."""
    assert not booted.caught.exists()
    assert "planted" not in (booted.root / "etc/facerec/worker.env").read_text()
    assert not list(booted.home.rglob("pip-*"))


def test_a_boot_without_a_model_fails(
    booted: Instance, emulator: EmulatedAws, metadata: FakeMetadata, tmp_path: Path
) -> None:
    """The operator reads which command to run."""
    instance = Instance(tmp_path, deployed(emulator, metadata, None))
    (tmp_path / "opt/facerec/venv").symlink_to(booted.root / "opt/facerec/venv")
    boot = instance.boot()
    assert boot.returncode != 0
    assert "holds no model: run `facerec model push`" in boot.stderr
    assert "could not fetch the model" in instance.said()[-1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_accepts_the_unit(booted: Instance, tmp_path: Path) -> None:
    """Every line of it; a systemd that is older than the back-off says that it ignores it, and no more."""
    unit = tmp_path / "facerec-worker.service"
    unit.write_text(
        (booted.root / UNIT).read_text().replace("=/opt", f"={booted.root}/opt").replace("+/opt", f"+{booted.root}/opt")
    )
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    unknown = [
        line for line in verified.stderr.splitlines() if "RestartSteps" not in line and "RestartMaxDelaySec" not in line
    ]
    assert (verified.returncode, unknown) == (0, [])
