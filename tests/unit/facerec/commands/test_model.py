"""`facerec model` as an operator types it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import model.packs.build
from facerec import bootstrap
from facerec.cli import cli
from facerec.engine.loading import load_artefact
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from model.artefact import Artefact, BuildFailed, OnProgress
from model.packs import Pack
from model.packs.catalogue import PACKS
from tests.fakes.object_store import RecordingObjectStore
from tests.support.artefacts import write_artefact


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's directory of the settings, without a model."""
    monkeypatch.setenv("FACEREC_MODEL__DIR", str(tmp_path / "model"))
    monkeypatch.setenv("FACEREC_MODEL__CACHE_DIR", str(tmp_path / "downloads"))
    return tmp_path / "model"


def run(*arguments: str) -> Result:
    """Run the command; a `FacerecError` is raised, as `facerec.cli.main` expects it."""
    return CliRunner().invoke(cli, ["model", *arguments], catch_exceptions=False)


def test_show_prints_id_threshold_and_licence(directory: Path) -> None:
    """An operator must know them before using it."""
    artefact = write_artefact(directory)
    output = " ".join(run("show").stdout.split())
    assert artefact.model_id in output
    assert "0.511 at FMR 0.001; 0.597 at FMR 0.0001; 0." in output
    assert "at FMR 1e-06 (extrapolated)" in output
    assert "published for non-commercial research" in output


def test_show_prints_json(directory: Path) -> None:
    """Stdout is model.json and nothing more."""
    artefact = write_artefact(directory)
    assert json.loads(run("show", "--json").stdout) == artefact.header


def test_verify_names_a_damaged_file(directory: Path) -> None:
    """A `FacerecError` becomes one line and exit status 1."""
    artefact = write_artefact(directory)
    assert "4 files intact" in run("verify").stdout
    content = artefact.path("embedder.onnx").read_bytes()
    artefact.path("embedder.onnx").write_bytes(content[::-1])
    with pytest.raises(ConfigurationError, match=r"embedder\.onnx is damaged"):
        run("verify")


def test_missing_model_error_says_how_to_build_one(directory: Path) -> None:
    """The same sentence for every subcommand that needs one."""
    for subcommand in ("show", "verify", "push"):
        with pytest.raises(ConfigurationError, match="run `facerec model build`"):
            run(subcommand)


def test_build_prints_steps_and_the_result(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps go to stderr, the result to stdout; weights, directory and --force reach the builder."""
    asked: dict[str, object] = {}

    def build(pack: Pack, *, output: Path, cache: Path, weights: str, on_progress: OnProgress, force: bool) -> Artefact:
        asked.update(pack=pack.name, weights=weights, output=output, cache=cache, force=force)
        on_progress("downloading", 0.5)
        on_progress("downloading", 1.0)
        return write_artefact(output)

    monkeypatch.setattr(model.packs.build, "build", build)
    result = run("build", "--pack", "classic", "--weights", "mine.pt", "--force")
    assert asked == {
        "pack": "classic",
        "weights": "mine.pt",
        "output": directory,
        "cache": directory.parent / "downloads",
        "force": True,
    }
    assert result.stderr.count("downloading") == 1
    assert f"is in {directory}" in result.stdout


def test_failed_build_is_a_facerec_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same sentence."""

    def build(*_: object, **__: object) -> Artefact:
        raise BuildFailed("there is no network")

    monkeypatch.setattr(model.packs.build, "build", build)
    with pytest.raises(ConfigurationError, match=r"^there is no network$"):
        run("build")


def test_show_and_build_say_that_other_weights_thresholds_are_not_measured(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other weights than the measured ones come with a warning."""
    tail = PACKS["classic"].tail.to_json() | {"calibrated": False}
    monkeypatch.setattr(model.packs.build, "build", lambda *_, output, **__: write_artefact(output, impostor_tail=tail))
    assert "NOT measured with these weights" in run("build").stderr
    assert "NOT measured with these weights" in " ".join(run("show").stdout.split())


def test_packs_have_accuracy_and_every_licence(directory: Path) -> None:
    """Without a built model."""
    listed = run("packs").stdout
    for pack in PACKS.values():
        assert f"{pack.measured.accuracy:.2%}" in listed
        for file in pack.files.values():
            assert file.weights_licence in listed
            assert file.training_data in listed
    assert [pack["name"] for pack in json.loads(run("packs", "--json").stdout)] == ["open", "accurate", "classic"]
    assert not directory.exists()


def test_research_weights_need_the_licence_setting(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error at building and at loading says what to set."""
    monkeypatch.setattr(model.packs.build, "build", lambda *_, output, **__: write_artefact(output, pack="accurate"))
    with pytest.raises(ConfigurationError, match="set FACEREC_MODEL__LICENCE=research"):
        run("build", "--pack", "accurate")
    assert not directory.exists()
    write_artefact(directory, pack="accurate")
    with pytest.raises(ConfigurationError, match="set FACEREC_MODEL__LICENCE=research"):
        load_artefact(Settings.load())
    monkeypatch.setenv("FACEREC_MODEL__LICENCE", "research")
    run("build", "--pack", "accurate")
    assert load_artefact(Settings.load()).pack == "accurate"


def test_push_and_pull_copy_the_model(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the model bucket of the settings."""
    shelf = RecordingObjectStore()
    monkeypatch.setattr(bootstrap, "object_store", lambda _settings: shelf)
    artefact = write_artefact(directory)
    assert "is the current model in facerec-model-bucket" in run("push").stdout
    assert artefact.model_id in run("pull", "--dir", str(tmp_path / "elsewhere")).stdout
    Artefact.load(tmp_path / "elsewhere").verify()
