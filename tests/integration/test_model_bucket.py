"""The real artefact on its way through S3."""

from pathlib import Path

from facerec import bootstrap
from facerec.engine.registry import pull, push
from facerec.settings import Settings
from model.artefact import Artefact


def test_push_and_pull_copy_the_real_model(fresh: Settings, artefact_dir: Path, tmp_path: Path) -> None:
    """All 96 MB of it, verified on arrival; the second push and pull move nothing."""
    store, artefact = bootstrap.object_store(fresh), Artefact.load(artefact_dir)
    size = sum(stamp.size_bytes for stamp in artefact.files.values())
    assert push(store, fresh.model_bucket, artefact) == size
    pulled = pull(store, fresh.model_bucket, tmp_path / "model")
    pulled.verify()
    assert pulled.header == artefact.header
    assert push(store, fresh.model_bucket, pulled) == 0
    said: list[str] = []
    pull(store, fresh.model_bucket, tmp_path / "model", on_progress=lambda text, _: said.append(text))
    assert said == ["the model is there already and intact"]
