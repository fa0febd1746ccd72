"""The archive of the Greengrass component, its Install step, and the local nucleus that runs both.

The wheels are small ones of the test's own; `make demo ARGS='--tier edge'` installs the real ones.
"""

import json
import queue
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from facerec.edge.ipc_link import IpcLink
from facerec.edge.mqtt_link import MqttLink
from facerec.edge.nucleus_configuration import NucleusConfiguration
from facerec.edge_messages import faces_topic, results_topic
from facerec.errors import FacerecError, Refused
from facerec.local.edge.iot_core import DeviceIotCore
from facerec.local.edge.lifecycle import Lifecycle
from facerec.local.edge.nucleus import Broken, LocalNucleus
from facerec.processes.addresses import poll_until
from facerec.provision.edge.artefact import EdgeArtefact, build_artefact
from facerec.provision.edge.recipe import Architecture, default_configuration, deployed_configuration, recipe
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from model.artefact import Artefact
from tests.support.mosquitto import CLOUD, Mosquitto, find_mosquitto
from tests.support.processes import CHECKOUT, Command
from tests.support.wheels import write_wheel

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_COMPONENT = """
import json, os, signal, sys, threading, tiny
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ), "tiny": tiny.__file__}))
sys.stdout.flush()
ended.wait()
print("ended by SIGTERM")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, artefact_dir: Path) -> Callable[..., Path]:
    """Makes an archive of small wheels and a real model; `packages` is pip's only source."""
    folder = tmp_path_factory.mktemp("package")
    packages = folder / "packages"
    write_wheel(packages, "tiny", "1.5", {"tiny.py": ""})
    constraints = folder / "constraints.txt"
    constraints.write_text("tiny==1.5\n")
    wheel = write_wheel(
        folder, "facerec", "0.1.0", {"facerec/__init__.py": "", "facerec/cli.py": _COMPONENT}, ["tiny>=1"], "edge"
    )

    def make(name: str, *, model: bool = True, packages: Path = packages) -> Path:
        archive = folder / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PIP_NO_INDEX", "1")
            patch.setenv("PIP_FIND_LINKS", str(packages))
            build(archive, model=model)
        return archive

    def build(archive: Path, *, model: bool) -> None:
        build_artefact(
            archive,
            "x86_64",
            pythons=["3.99", PYTHON],
            wheel=wheel,
            constraints=constraints,
            model=Artefact.load(artefact_dir) if model else None,
        )

    return make


@pytest.fixture(scope="module")
def archive(package: Callable[..., Path]) -> Path:
    """One with a model."""
    return package("facerec-edge.zip")


@pytest.fixture(scope="module")
def archive_without_model(package: Callable[..., Path]) -> Path:
    """One whose device pulls the model."""
    return package("without-model.zip", model=False)


@pytest.fixture
def unpacked(archive: Path, tmp_path: Path) -> Path:
    """What a nucleus unpacks."""
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def test_equal_inputs_make_equal_archives(archive_without_model: Path, package: Callable[..., Path]) -> None:
    """Byte for byte."""
    assert package("again.zip", model=False).read_bytes() == archive_without_model.read_bytes()


def test_archive_is_described(archive: Path) -> None:
    """Each file is named with its hash, and no entry has what Java cannot read."""
    described = EdgeArtefact.read(archive)
    assert (described.architecture, described.pythons) == ("x86_64", ("3.99", PYTHON))
    with zipfile.ZipFile(archive) as file:
        assert set(file.namelist()) == {"artefact.json", *described.files}
        assert {"wheels/facerec-0.1.0-py3-none-any.whl", "wheels/tiny-1.5-py3-none-any.whl"} <= set(described.files)
        # A data descriptor after a stored entry: `java.util.zip.ZipInputStream` refuses it.
        assert not [entry.filename for entry in file.infolist() if entry.flag_bits & 0x08]
        lines = file.read("requirements.txt").decode().splitlines()
    assert [line.split(" ")[0] for line in lines] == ["facerec==0.1.0", "tiny==1.5"]
    assert all("--hash=sha256:" in line for line in lines)


def test_archive_without_a_model_says_so(archive_without_model: Path, tmp_path: Path) -> None:
    """Its device pulls the model; any other file is no archive."""
    described = EdgeArtefact.read(archive_without_model)
    assert described.model is None
    assert not [name for name in described.files if name.startswith("model/")]
    (tmp_path / "other.zip").write_bytes(b"PK")
    with pytest.raises(FacerecError, match="is no archive of `facerec edge package`"):
        EdgeArtefact.read(tmp_path / "other.zip")


def test_package_that_has_no_wheel_is_named(package: Callable[..., Path], tmp_path: Path) -> None:
    """As for a processor or a version of Python that a package does not support."""
    with pytest.raises(FacerecError, match=r"(?s)pip could not make the wheels:\n.*tiny"):
        package("none.zip", packages=tmp_path)


def test_install_refuses_a_wheel_with_other_bytes(unpacked: Path, tmp_path: Path) -> None:
    """The hashes of `requirements.txt` are checked, and the half-made environment has no mark."""
    write_wheel(unpacked / "wheels", "tiny", "1.5", {"tiny.py": "evil = True"})
    done = _install(unpacked, tmp_path / "work")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "work/venv/facerec-artefact").exists()


def test_install_names_the_python_that_is_missing(unpacked: Path, tmp_path: Path) -> None:
    """Nothing was changed."""
    (unpacked / "pythons").write_text("3.98\n3.99\n")
    done = _install(unpacked, tmp_path / "work")
    assert done.returncode == 1
    assert "wheels for Python 3.98 3.99 alone" in done.stderr
    assert not (tmp_path / "work/venv").exists()


def _install(files: Path, work: Path) -> subprocess.CompletedProcess[str]:
    work.mkdir()
    command = ["sh", str(files / "install.sh"), str(files), str(work)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nucleus_installs_and_runs_the_component_of_the_recipe(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment of its own, with the nucleus' variables and no other; a second start installs nothing."""
    monkeypatch.setenv("FACEREC_PREFIX", "of-the-nucleus-alone")
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe(Settings(), "1.0.0", {"x86_64": "s3://bucket/edge/x/facerec-edge.zip"})))
    options = ["--recipe", str(file), "--archive", str(archive), "--thing", "gate-1", "--root", str(tmp_path / "gg")]
    argv = [sys.executable, "-m", "facerec.local.edge.nucleus", *options]
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(CHECKOUT)}
    work = tmp_path / "gg/work/com.facerec.FaceDetection"
    made = 0
    for _ in range(2):
        with Command(argv, environ, merged=True) as nucleus:
            told = json.loads(nucleus.wait_for('{"argv"'))
            assert told["argv"] == ["edge", "run"]
            assert told["cwd"] == str(work)
            assert told["tiny"].startswith(str(work / "venv"))
            mark = (work / "venv/facerec-artefact").stat().st_mtime_ns
            assert made in {0, mark}
            made = mark
            assert nucleus.stop() == 0
            assert "ended by SIGTERM" in nucleus.output
    seen = told["environ"]
    assert (seen["AWS_IOT_THING_NAME"], seen["AWS_REGION"]) == ("gate-1", "us-east-1")
    assert seen["FACEREC_EDGE__STATE_DIR"] == f"{work}/state"
    assert json.loads(Path(seen["FACEREC_MODEL__DIR"], "model.json").read_text())
    assert "FACEREC_PREFIX" not in seen


def test_install_pulls_the_model_that_the_archive_lacks(archive_without_model: Path, tmp_path: Path) -> None:
    """Into the work folder, where the Run step looks for it; the packages are those of an earlier attempt."""
    work = tmp_path / "work/com.facerec.FaceDetection"
    python = work / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nmkdir "$FACEREC_MODEL__DIR"\necho "$@" > pulled\n')
    python.chmod(0o755)
    with zipfile.ZipFile(archive_without_model) as file:
        (work / "venv/facerec-artefact").write_bytes(file.read("artefact.json"))
    uris: dict[Architecture, str] = {"x86_64": "s3://b/a/facerec-edge.zip"}
    document = recipe(Settings(), "1.0.0", uris, with_model=False)
    nucleus = LocalNucleus(Lifecycle.read(document, "x86_64"), thing="gate-1", root=tmp_path, changes={})
    nucleus.install(archive_without_model, threading.Event())
    assert (work / "pulled").read_text() == "-I -m facerec.cli model pull\n"
    assert (work / "model").is_dir()


def _nucleus(tmp_path: Path, script: str, **steps: Any) -> LocalNucleus:
    document = recipe(Settings(), "1.0.0", {"x86_64": "s3://bucket/a/facerec-edge.zip"})
    document["Manifests"][0]["Lifecycle"] = {"run": {"Script": script}, **steps}
    return LocalNucleus(Lifecycle.read(document, "x86_64"), thing="gate-1", root=tmp_path, changes={})


def test_component_that_fails_is_started_again_and_then_broken(tmp_path: Path) -> None:
    """Three times, as by the nucleus."""
    nucleus = _nucleus(tmp_path, "echo started >> {work:path}/starts; exit 7")
    with pytest.raises(Broken, match=r"its step run failed 3 times, last exit status 7"):
        nucleus.run(threading.Event())
    assert len((tmp_path / "work/com.facerec.FaceDetection/starts").read_text().splitlines()) == 3


def test_component_that_fails_once_goes_on(tmp_path: Path) -> None:
    """It is started again at once; one that ends by itself has finished, and is not."""
    nucleus = _nucleus(tmp_path, "echo started >> starts; test $(wc -l < starts) -eq 2")
    nucleus.run(threading.Event())
    assert len((tmp_path / "work/com.facerec.FaceDetection/starts").read_text().splitlines()) == 2


def test_step_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    """With all that it has started."""
    nucleus = _nucleus(tmp_path, "exit 0", install={"Script": "echo x >> tries; sleep 60 & wait", "Timeout": 1})
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("any", "")
    with pytest.raises(Broken, match="its step install failed 3 times, last it took longer than 1 s"):
        nucleus.install(archive, threading.Event())
    assert (tmp_path / "work/com.facerec.FaceDetection/tries").read_text() == "x\n" * 3


def test_stop_reaches_all_processes_of_the_component(tmp_path: Path) -> None:
    """A child of it gets SIGTERM, too."""
    script = (
        "trap : TERM; (trap 'echo child >> ended; exit' TERM; echo > ready; while :; do sleep 0.1; done) & wait; wait"
    )
    nucleus, stopping = _nucleus(tmp_path, script), threading.Event()
    thread = threading.Thread(target=nucleus.run, args=(stopping,))
    thread.start()
    work = tmp_path / "work/com.facerec.FaceDetection"
    assert poll_until((work / "ready").exists, 10)
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()
    assert (work / "ended").read_text() == "child\n"


def test_component_hears_of_a_changed_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By AWS's own client, in the environment that the nucleus gives; what a later deployment leaves out is gone."""
    nucleus = _nucleus(tmp_path, "exit 0")
    for name, value in nucleus.environ.items():
        monkeypatch.setenv(name, value)
    source = NucleusConfiguration()
    with nucleus:
        assert source.changes() == default_configuration()
        for changes in ({"camera": "1"}, {"source": "folder"}):
            nucleus.reconfigure({"edge": changes})
            assert poll_until(lambda: source.changes() == {**default_configuration(), **changes}, 10)  # noqa: B023
        source.close()


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_messages_reach_the_broker_through_the_nucleus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And results come back; both with the certificate of the device, and as the access control allows."""
    thing = "gate-1"
    (tmp_path / "broker").mkdir()
    with Mosquitto(tmp_path / "broker") as broker:
        _write_device(tmp_path / "device", broker.settings(thing))
        iot_core = DeviceIotCore(thing, tmp_path / "device")
        component = Lifecycle.read(recipe(Settings(), "1.0.0", {"x86_64": "s3://b/a/facerec-edge.zip"}), "x86_64")
        changes = deployed_configuration(Settings(), thing)
        nucleus = LocalNucleus(component, thing=thing, root=tmp_path / "gg", changes=changes, iot_core=iot_core)
        for name, value in nucleus.environ.items():
            monkeypatch.setenv(name, value)
        cloud, link = MqttLink(broker.settings(CLOUD), CLOUD, "cloud-1"), IpcLink(EdgeSettings(), thing)
        received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        for one, topic in ((cloud, faces_topic(thing)), (link, results_topic(thing))):
            one.subscribe(topic, lambda message: received.put((message.topic, message.payload)))
        iot_core.start()
        try:
            with nucleus:
                for one in (cloud, link):
                    one.start()
                    assert one.wait_connected(10)
                link.publish(faces_topic(thing), b"a face").result(10)
                assert received.get(timeout=10) == (faces_topic(thing), b"a face")
                cloud.publish(results_topic(thing), b"a result").result(10)
                assert received.get(timeout=10) == (results_topic(thing), b"a result")
                with pytest.raises(Refused, match="accessControl"):
                    link.publish(faces_topic("gate-2"), b"").result(10)
        finally:
            link.close()
            cloud.close()
            iot_core.stop()


def _write_device(folder: Path, settings: EdgeSettings) -> None:
    folder.mkdir()
    names = ("endpoint", "port", "certificate_file", "key_file", "ca_file")
    lines = [f"FACEREC_EDGE__{name.upper()}={getattr(settings, name)}\n" for name in names]
    (folder / "edge.env").write_text("".join(lines))
