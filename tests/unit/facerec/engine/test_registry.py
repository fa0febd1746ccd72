"""Push and pull of the artefact against a store in memory."""

from pathlib import Path

import pytest

from facerec.engine.registry import CURRENT, pull, push
from facerec.errors import ConfigurationError
from model.artefact import HEADER, Artefact, ArtefactInvalid, BuildFailed
from tests.fakes.object_store import RecordingObjectStore
from tests.support.artefacts import write_artefact

BUCKET = "models-here"


def test_pulled_model_equals_the_pushed_one(tmp_path: Path) -> None:
    """It is verified, in a directory that did not exist."""
    shelf, built = RecordingObjectStore(), write_artefact(tmp_path / "built")
    sent = push(shelf, BUCKET, built)
    pulled = pull(shelf, BUCKET, tmp_path / "new" / "model")
    assert sent == sum(stamp.size_bytes for stamp in built.files.values())
    assert pulled.model_id == built.model_id
    for name in (*built.files, HEADER):
        assert (pulled.directory / name).read_bytes() == (built.directory / name).read_bytes()


def test_pointer_is_written_last(tmp_path: Path) -> None:
    """A reader of the pointer finds all files of the model."""
    shelf = RecordingObjectStore()
    push(shelf, BUCKET, write_artefact(tmp_path))
    assert shelf.stored[-1] == CURRENT
    assert all(key.startswith("models/") for key in shelf.stored)


def test_second_push_sends_no_graph(tmp_path: Path) -> None:
    """Only the small descriptions are written again."""
    shelf, built = RecordingObjectStore(), write_artefact(tmp_path)
    push(shelf, BUCKET, built)
    assert push(shelf, BUCKET, built) == 0


def test_pull_fetches_missing_files_only(tmp_path: Path) -> None:
    """A damaged graph is replaced; intact graphs and a complete directory are kept."""
    shelf, here = RecordingObjectStore(), tmp_path / "here"
    push(shelf, BUCKET, write_artefact(tmp_path / "built"))
    pull(shelf, BUCKET, here)
    shelf.fetched.clear()
    (here / "pnet.onnx").write_bytes(b"damaged")
    pull(shelf, BUCKET, here).verify()
    assert shelf.fetched == ["current.json", HEADER, "pnet.onnx"]
    inode = here.stat().st_ino
    shelf.fetched.clear()
    pull(shelf, BUCKET, here)
    assert shelf.fetched == ["current.json", HEADER]
    assert here.stat().st_ino == inode


def test_earlier_model_is_pulled_by_its_id(tmp_path: Path) -> None:
    """So that a change of model can be undone."""
    shelf = RecordingObjectStore()
    old, new = (write_artefact(tmp_path / seed, seed=seed) for seed in ("old", "new"))
    push(shelf, BUCKET, old)
    push(shelf, BUCKET, new)
    assert pull(shelf, BUCKET, tmp_path / "here").model_id == new.model_id
    assert pull(shelf, BUCKET, tmp_path / "here", old.model_id).model_id == old.model_id


def test_damaged_object_is_not_pulled(tmp_path: Path) -> None:
    """The model in the directory stays in use."""
    shelf, here = RecordingObjectStore(), tmp_path / "here"
    push(shelf, BUCKET, write_artefact(tmp_path / "old", seed="old"))
    before = pull(shelf, BUCKET, here)
    push(shelf, BUCKET, write_artefact(tmp_path / "new", seed="new"))
    (key,) = [key for key in shelf.keys(BUCKET) if key.endswith("embedder.onnx") and before.model_id not in key]
    shelf.put(BUCKET, key, shelf.get(BUCKET, key)[::-1], "application/octet-stream")
    with pytest.raises(ConfigurationError, match=r"embedder\.onnx .* damaged"):
        pull(shelf, BUCKET, here)
    Artefact.load(here).verify()
    assert Artefact.load(here) == before


@pytest.mark.parametrize("pointer", [b"", b"{}", b"[]", b"\xff"])
def test_damaged_pointer_is_a_configuration_error(tmp_path: Path, pointer: bytes) -> None:
    """One sentence at an instance's boot, not a traceback."""
    shelf = RecordingObjectStore()
    shelf.put(BUCKET, CURRENT, pointer, "application/json")
    with pytest.raises(ConfigurationError, match="push a model again"):
        pull(shelf, BUCKET, tmp_path / "here")


def test_empty_bucket_names_the_remedy(tmp_path: Path) -> None:
    """No model was pushed yet."""
    with pytest.raises(ConfigurationError, match="facerec model push"):
        pull(RecordingObjectStore(), BUCKET, tmp_path / "here")


def test_damaged_model_is_not_pushed(tmp_path: Path) -> None:
    """The fleet would pull it."""
    shelf, built = RecordingObjectStore(), write_artefact(tmp_path)
    built.path("onet.onnx").write_bytes(b"damaged")
    with pytest.raises(ArtefactInvalid):
        push(shelf, BUCKET, built)
    assert not shelf.stored


def test_pull_refuses_a_directory_with_other_files(tmp_path: Path) -> None:
    """The directory may be mistyped."""
    shelf = RecordingObjectStore()
    push(shelf, BUCKET, write_artefact(tmp_path / "built"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    with pytest.raises(BuildFailed, match="other files"):
        pull(shelf, BUCKET, tmp_path / "photos")
