"""The artefact: read cheaply, refused if it is wrong, replaced whole or not at all."""

import errno
import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from model.artefact import HEADER, Artefact, ArtefactInvalid, ArtefactMissing, BuildFailed, staged
from model.packs.catalogue import PACKS
from tests.support.artefacts import write_artefact

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(PACKS))
def test_artefact_has_the_values_of_its_pack(tmp_path: Path, name: str) -> None:
    """Artefact has the values of its pack."""
    artefact, pack = write_artefact(tmp_path, pack=name), PACKS[name]
    assert (artefact.pack, artefact.licence) == (name, pack.licence)
    assert (artefact.detector, artefact.crop, artefact.embedder) == (pack.detector, pack.crop, pack.embedder)
    assert (artefact.dimension, artefact.center_weight) == (pack.embedder.dimension, 2.0)
    assert artefact.tail == pack.tail
    assert artefact.threshold == pack.tail.similarity_at(1e-3).value
    assert artefact.path("embedder.onnx") == tmp_path / "embedder.onnx"
    with pytest.raises(KeyError):
        artefact.path("../model.json")


def test_loading_an_artefact_imports_nothing_heavy() -> None:
    """Loading an artefact imports nothing heavy."""
    script = (
        "import sys, model.artefact;"
        "print(sorted({'cv2', 'google', 'numpy', 'onnx', 'onnxruntime', 'openvino', 'torch'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_missing_artefact_says_how_to_get_one(tmp_path: Path) -> None:
    """Missing artefact says how to get one."""
    with pytest.raises(ArtefactMissing, match="facerec model build"):
        Artefact.load(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"model_id": "x"}', '{"schema": 1}'])
def test_garbled_description_is_refused(tmp_path: Path, text: str) -> None:
    """Garbled description is refused."""
    (tmp_path / HEADER).write_text(text)
    with pytest.raises(ArtefactInvalid, match="cannot be used"):
        Artefact.load(tmp_path)


def test_description_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Description that is no text is refused."""
    (tmp_path / HEADER).write_bytes(b"\xff")
    with pytest.raises(ArtefactInvalid, match="is not a description of a model"):
        Artefact.load(tmp_path)


@pytest.mark.parametrize("name", [HEADER, "onet.onnx"])
def test_unreadable_artefact_is_refused_in_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may have pulled it."""
    write_artefact(tmp_path)
    opened = io.open

    def denied(file: object, *arguments: object, **named: object) -> object:
        if Path(str(file)).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
        return opened(file, *arguments, **named)  # type: ignore[call-overload]  # as it was called

    monkeypatch.setattr("io.open", denied)  # the tests may run as root, which may read everything
    with pytest.raises(ArtefactInvalid, match=rf"{name} cannot be read \(Permission denied\): run") as refused:
        Artefact.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_artefact_is_readable_by_everyone(tmp_path: Path) -> None:
    """Whatever the umask: workers run as a user of their own."""
    before = os.umask(0o077)
    try:
        with staged(tmp_path / "model") as stage:
            write_artefact(stage)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "model", *tmp_path.glob("model/*")]}
    assert modes.pop("model") == 0o755
    assert set(modes.values()) == {0o644}


@pytest.mark.parametrize("schema", [1, 99])
def test_other_schema_is_refused_by_its_number(tmp_path: Path, schema: int) -> None:
    """Other schema is refused by its number."""
    write_artefact(tmp_path)
    header = json.loads((tmp_path / HEADER).read_text())
    (tmp_path / HEADER).write_text(json.dumps(header | {"schema": schema}))
    with pytest.raises(ArtefactInvalid, match=rf"schema {schema} .*run `facerec model build --force`"):
        Artefact.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"licence": "anything"},
        {"impostor_tail": {"points": [], "pairs": 1, "source": "", "calibrated": True}},
        {
            "impostor_tail": {
                "points": [[1e-3, 0.5], [1e-4, 0.4], [1e-5, 0.6]],
                "pairs": 1,
                "source": "",
                "calibrated": True,
            }
        },
        {"detector": {"kind": "guess", "options": {}}},
        {"crop": {"kind": "aligned"}},
        {"embedder": {"dimension": 128}},
    ],
)
def test_description_with_a_wrong_part_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """It may come from a bucket."""
    with pytest.raises(ArtefactInvalid, match="lacks or garbles"):
        write_artefact(tmp_path, **changes)


def test_description_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    """It may come from a bucket that others write to."""
    files = {name: {"size_bytes": 1, "sha256": ""} for name in ("../x", "rnet.onnx", "onet.onnx", "embedder.onnx")}
    with pytest.raises(ArtefactInvalid, match="files"):
        write_artefact(tmp_path, files=files)


def test_loading_finds_a_missing_or_truncated_graph(tmp_path: Path) -> None:
    """Loading finds a missing or truncated graph."""
    write_artefact(tmp_path)
    (tmp_path / "onet.onnx").write_bytes(b"cut")
    with pytest.raises(ArtefactInvalid, match=r"onet\.onnx has 3 bytes"):
        Artefact.load(tmp_path)
    (tmp_path / "onet.onnx").unlink()
    with pytest.raises(ArtefactInvalid, match=r"onet\.onnx is missing"):
        Artefact.load(tmp_path)


def test_verification_finds_a_single_wrong_byte(tmp_path: Path) -> None:
    """Sizes agree, contents do not."""
    artefact = write_artefact(tmp_path)
    artefact.verify()
    content = bytearray(artefact.path("rnet.onnx").read_bytes())
    content[0] ^= 1
    artefact.path("rnet.onnx").write_bytes(content)
    with pytest.raises(ArtefactInvalid, match=r"rnet\.onnx is damaged"):
        artefact.verify()


def test_failed_replacement_leaves_the_old_artefact(tmp_path: Path) -> None:
    """And no temporary directory."""
    old = write_artefact(tmp_path / "model")

    def fail() -> None:
        with staged(tmp_path / "model") as stage:
            (stage / HEADER).write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert Artefact.load(tmp_path / "model") == old
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_concurrent_writers_leave_one_whole_artefact(tmp_path: Path) -> None:
    """Two processes of one instance may pull at its boot."""
    at_once = threading.Barrier(4)
    failures: list[BaseException] = []

    def write(seed: str) -> None:
        try:
            for _ in range(20):
                with staged(tmp_path / "model") as stage:
                    write_artefact(stage, seed=seed)
                    at_once.wait(timeout=30)
        except BaseException as exc:  # noqa: BLE001 - reported by the test itself
            failures.append(exc)
            at_once.abort()

    writers = [threading.Thread(target=write, args=(f"seed {number}",)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    Artefact.load(tmp_path / "model").verify()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_directory_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    """`--output ~` must not delete a home directory."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildFailed, match="other files"), staged(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
