"""`facerec evaluate` and `facerec calibrate` as an operator types them, with an engine that needs no weights."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

import model.engines
from facerec import bootstrap
from facerec.accuracy.calibration import TooFewPairs
from facerec.accuracy.pairs import InvalidPairs
from facerec.cli import cli
from facerec.engine import loading
from facerec.errors import ConfigurationError, FacerecError
from model.artefact import Artefact
from model.embedding import Embeddings
from model.faces import Box, DetectedFace
from model.tail import identification_threshold
from tests.fakes.model_engine import FakeEngine
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import InMemoryTemplateStore, make_template
from tests.support.artefacts import write_artefact


class ColourEngine(FakeEngine):
    """Sees one face in every picture that is not black; its embedding is the picture's mean colour, less grey."""

    name = "colour"

    def __init__(self, model_id: str) -> None:
        super().__init__()
        self.model_id = model_id

    def detect(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        """See the protocol."""
        return [DetectedFace(Box(0, 0, 8, 8), 0.99, ((0.0, 0.0),) * 5)] if image.any() else []

    def crop(self, image: NDArray[np.uint8], face: DetectedFace) -> NDArray[np.uint8]:
        """See the protocol."""
        return image[:8, :8]

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """See the protocol."""
        means = crops.reshape(len(crops), -1, 3).mean(axis=1)
        means -= means.mean(axis=1, keepdims=True)
        unit: NDArray[np.float32] = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
        return Embeddings(unit, None)


@pytest.fixture
def artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[dict[str, object]]) -> Artefact:
    """The model in use, with the engine for colours under every name."""
    artefact = write_artefact(tmp_path / "model")
    monkeypatch.setenv("FACEREC_MODEL__DIR", str(tmp_path / "model"))

    def open_engine(artefact: Artefact, name: str, threads: int, cache_directory: Path, precision: str) -> ColourEngine:
        opened.append({"name": name, "threads": threads, "cache": cache_directory, "precision": precision})
        return ColourEngine(artefact.model_id)

    monkeypatch.setattr(model.engines, "open_engine", open_engine)
    return artefact


@pytest.fixture
def opened() -> list[dict[str, object]]:
    """The arguments that opened each engine."""
    return []


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> InMemoryTemplateStore:
    """The gallery of the installation."""
    store = InMemoryTemplateStore()
    monkeypatch.setattr(bootstrap, "template_store", lambda _settings: store)
    return store


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Reddish pictures of one person and greenish ones of another, a black one and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = {"r1": (200, 10, 20), "r2": (210, 30, 10), "g1": (10, 200, 20), "g2": (30, 190, 10), "none": (0, 0, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Five usable pairs, and two that are not."""
    path = tmp_path / "pairs.csv"
    rows = ["r1,r2,1", "g1,g2,1", "r1,g1,0", "r2,g2,0", "r1,g2,0", "r1,none,0", "bad,g1,0"]
    lines = [",".join((f"{left}.png", f"{right}.png", same)) for left, right, same in (r.split(",") for r in rows)]
    path.write_text("\n".join(["left,right,same", *lines]))
    return path


def run(*arguments: str | Path, status: int = 0) -> Result:
    """Run a command; a `FacerecError` is raised, as `facerec.cli.main` expects it."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result


def printed(*arguments: str | Path) -> Any:
    """The JSON of the command."""
    return json.loads(run(*arguments, "--json").stdout)


def test_evaluate_prints_what_was_measured_and_what_was_not(artefact: Artefact, pairs: Path, photos: Path) -> None:
    """Skipped pairs with their reasons, and the rates for which three impostor pairs are few."""
    output = " ".join(run("evaluate", "--pairs", pairs, "--folder", photos).stdout.split())
    assert "5 used (2 same, 3 different), 2 skipped for 2 of 6 photos (1 no face, 1 unreadable)" in output
    assert "AUC 1.00000" in output
    assert re.search(r"At FMR 0\.001 threshold 0\.\d{4}: TAR 100\.000% .*; weak: 3 impostor pairs, 10000 are", output)
    assert f"threshold {artefact.threshold:.4f}: TAR 100.000%" in output
    assert artefact.model_id in output


def test_evaluate_prints_the_same_as_json(artefact: Artefact, pairs: Path, photos: Path) -> None:
    """Nothing but JSON on stdout."""
    report = printed("evaluate", "--pairs", pairs, "--folder", photos)
    assert (report["genuine_pairs"], report["impostor_pairs"], report["skipped_pairs"]) == (2, 3, 2)
    assert report["skipped_photos"] == {"none.png": "no_face", "bad.png": "unreadable"}
    point = report["at_fmr"]["0.01"]
    assert (point["fmr"]["value"], point["tar"]["value"]) == (0, 1)
    assert (point["weak"], point["impostor_pairs_needed"]) == (True, 1000)
    assert report["at_threshold"]["tar"]["value"] == 1
    assert (report["engine"], report["precision"], report["model_id"]) == ("colour", "fp32", artefact.model_id)


@pytest.mark.usefixtures("artefact", "store")
@pytest.mark.parametrize("command", ["evaluate", "calibrate", "enrol"])
def test_evaluate_opens_the_engine_with_the_workers_precision_on_the_available_cores(
    command: str,
    opened: list[dict[str, object]],
    pairs: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container's share of the cores counts, and what is measured holds for the precision in use."""
    monkeypatch.setenv("FACEREC_PRECISION", "bf16")
    monkeypatch.setenv("FACEREC_ENGINE", "openvino")
    monkeypatch.setenv("FACEREC_MODEL__CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "available_cores", lambda: 3)
    monkeypatch.setattr(bootstrap, "object_store", lambda _settings: InMemoryObjectStore())
    arguments: dict[str, tuple[str | Path, ...]] = {
        "evaluate": ("--pairs", pairs, "--folder", photos),
        "calibrate": ("--target-fmr", "0.9", "--pairs", pairs, "--folder", photos),
        "enrol": ("Ada", photos / "r1.png"),
    }
    CliRunner().invoke(cli, [command, *map(str, arguments[command])])
    assert opened == [{"name": "openvino", "threads": 3, "cache": tmp_path / "cache", "precision": "bf16"}]


@pytest.mark.usefixtures("artefact")
@pytest.mark.parametrize("kinds", ["01", "0", "1"])
def test_evaluate_draws_pairs_of_any_kind(kinds: str, pairs: Path, photos: Path, tmp_path: Path) -> None:
    """A picture with both colours for both kinds, and with one of them for one."""
    header, *rows = pairs.read_text().splitlines()
    pairs.write_text("\n".join([header, *(row for row in rows if row[-1] in kinds)]))
    run("evaluate", "--pairs", pairs, "--folder", photos, "--plot", tmp_path / "plot.png")
    with Image.open(io.BytesIO((tmp_path / "plot.png").read_bytes())) as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 20) or []}
    assert (picture.format, picture.width > picture.height) == ("PNG", True)
    assert ((0x00, 0x72, 0xB2) in colours) == ("1" in kinds)
    assert ((0xD5, 0x5E, 0x00) in colours) == ("0" in kinds)


@pytest.mark.usefixtures("artefact")
def test_evaluate_without_a_usable_pair_fails(pairs: Path, tmp_path: Path) -> None:
    """The error says how many photos are missing."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(FacerecError, match=r"7 skipped for 6 of 6 photos \(6 missing\); is --folder where"):
        run("evaluate", "--pairs", pairs, "--folder", tmp_path / "empty")


def test_unreadable_pairs_fail_before_the_model_is_loaded(
    artefact: Artefact, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error costs no time."""
    monkeypatch.setattr(model.engines, "open_engine", lambda *_, **__: pytest.fail("the engine was opened"))
    (tmp_path / "list").write_text("hello\n")
    with pytest.raises(InvalidPairs, match="line 1"):
        run("evaluate", "--pairs", tmp_path / "list", "--folder", photos)


@pytest.fixture
def visitors(tmp_path: Path) -> Path:
    """Four people with two photos each, one with one, and a stranger who resembles two of the four."""
    people = {
        "Ada": [(200, 10, 20), (210, 12, 18)],
        "Bea": [(200, 90, 20), (190, 88, 22)],
        "Cem": [(10, 200, 20), (12, 190, 18)],
        "Dan": [(20, 200, 90), (22, 190, 88)],
        "Eva": [(10, 20, 200)],
    }
    for name, colours in people.items():
        (tmp_path / "people" / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (8, 8), colour).save(tmp_path / "people" / name / f"{number}.png")
    (tmp_path / "people" / "Ada" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "strangers").mkdir()
    Image.new("RGB", (8, 8), (200, 50, 20)).save(tmp_path / "strangers" / "between.png")
    return tmp_path


def test_open_set_is_measured_at_the_threshold_for_its_number_of_people(artefact: Artefact, visitors: Path) -> None:
    """Of two strangers the reddish one gets a name at any such threshold."""
    report = printed(
        "evaluate", "--open-set", visitors / "people", "--strangers", visitors / "strangers", "--threshold", "1"
    )
    assert (report["identities"], report["known_probes"]) == (4, 4)
    assert (report["strangers"], report["stranger_probes"]) == (2, 2)
    assert list(report["skipped_photos"].values()) == ["unreadable"]
    ours, strictest = report["at"]
    assert ours["threshold"] == identification_threshold(artefact.tail, artefact.threshold, 0.01, 4).value
    assert (ours["right_name"]["value"], ours["wrong_name"]["value"], ours["no_name"]["value"]) == (1, 0, 0)
    assert ours["strangers_named"]["value"] == 0.5
    assert ours["strangers_named"]["interval"]["high"] < 1
    assert (strictest["right_name"]["value"], strictest["strangers_named"]["value"]) == (0, 0)
    assert [size["identities"] for size in report["expected"]] == [4, 10_000, 1_000_000]
    assert [size["extrapolated"] for size in report["expected"]] == [False, True, True]
    assert report["expected"][2]["strangers_named"] == pytest.approx(0.01, rel=0.01)


def test_open_set_is_printed_for_people(artefact: Artefact, visitors: Path) -> None:
    """With what the threshold is for, and the prediction for more people."""
    output = " ".join(run("evaluate", "--open-set", visitors / "people").stdout.split())
    threshold = identification_threshold(artefact.tail, artefact.threshold, 0.01, 4).value
    assert "10, skipped 1 (1 unreadable)" in output
    assert "4 people by one photo each; 4 probes of them, 1 probes of 1 strangers" in output
    assert f"At {threshold:.4f} the model's threshold for 4 people at 1 %" in output
    assert "right name (TPIR) 100.000% [" in output
    assert re.search(r"With 1000000 people at 0\.8\d+: right name .* \(threshold extrapolated\)", output)


@pytest.mark.usefixtures("artefact")
def test_left_out_people_are_strangers(visitors: Path) -> None:
    """Half of the four, and the one with a single photo; the same seed chooses the same."""
    arguments = ("evaluate", "--open-set", visitors / "people", "--left-out", "0.5")
    report = printed(*arguments)
    assert (report["identities"], report["strangers"], report["stranger_probes"]) == (2, 3, 5)
    assert printed(*arguments) == report


@pytest.mark.usefixtures("artefact")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--pairs", "pairs.csv"),
        ("--folder", "photos"),
        ("--open-set", "photos", "--plot", "x.png"),
        ("--open-set", "photos", "--folder", "photos"),
        ("--pairs", "pairs.csv", "--folder", "photos", "--left-out", "0.1"),
        ("--pairs", "pairs.csv", "--folder", "photos", "--threshold", "0.1"),
        (),
    ],
)
def test_evaluate_needs_pairs_or_an_open_set(
    arguments: tuple[str, ...], pairs: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anything else is a usage error."""
    monkeypatch.chdir(pairs.parent)
    assert photos.is_dir()
    assert "--open-set" in run("evaluate", *arguments, status=2).output


def enrol(store: InMemoryTemplateStore, artefact: Artefact, people: int) -> None:
    """Made-up people with one template each."""
    for number in range(people):
        store.add(make_template(number, f"person {number:03d}", model_id=artefact.model_id))


def test_calibrate_stores_the_threshold_with_its_source(artefact: Artefact, store: InMemoryTemplateStore) -> None:
    """1035 pairs of 46 people, found again in the store and in the next run's output."""
    enrol(store, artefact, 46)
    version = store.version("default")
    report = printed("calibrate", "--target-fmr", "0.01")
    threshold = store.threshold("default", artefact.model_id)
    assert threshold is not None
    assert report["stored"] is True
    assert report["threshold"]["value"] == threshold.value
    assert (threshold.target_fmr, threshold.impostor_pairs) == (0.01, 1035)
    assert threshold.fmr <= 0.01
    assert "46 people" in threshold.source
    assert store.version("default") > version
    again = run("calibrate", "--target-fmr", "0.02")
    assert f"so far {threshold.value}" in " ".join(again.stdout.split())
    assert "within 5 seconds" in again.stdout


def test_calibrate_dry_run_stores_nothing(artefact: Artefact, store: InMemoryTemplateStore) -> None:
    """The threshold is shown, and the version stays."""
    enrol(store, artefact, 46)
    version = store.version("default")
    assert "Nothing stored" in run("calibrate", "--target-fmr", "1e-2", "--dry-run").stdout
    assert store.threshold("default", artefact.model_id) is None
    assert store.version("default") == version


def test_calibrate_refuses_a_rate_with_too_few_pairs(artefact: Artefact, store: InMemoryTemplateStore) -> None:
    """The error has both numbers of pairs; nothing is stored."""
    enrol(store, artefact, 3)
    with pytest.raises(TooFewPairs, match="needs 10000 impostor pairs and there are 3"):
        run("calibrate", "--target-fmr", "1e-3")
    assert store.threshold("default", artefact.model_id) is None


def test_calibrate_uses_an_evaluation_set_too(
    artefact: Artefact, store: InMemoryTemplateStore, pairs: Path, photos: Path
) -> None:
    """Its impostor pairs count, its genuine pairs give the true accepts, and skipped pairs are counted."""
    enrol(store, artefact, 45)
    arguments = ("calibrate", "--target-fmr", "0.0101", "--pairs", pairs, "--folder", photos)
    report = printed(*arguments)
    assert (report["gallery_pairs"], report["evaluation_pairs"], report["skipped_pairs"]) == (990, 3, 2)
    output = " ".join(run(*arguments, "--dry-run").stdout.split())
    assert "990 pairs of 45 templates of 45 people and 3 pairs of an evaluation set" in output
    assert "of the evaluation set's genuine pairs" in output


def test_calibrate_reset_applies_the_models_threshold_again(artefact: Artefact, store: InMemoryTemplateStore) -> None:
    """Without a threshold of its own nothing changes."""
    enrol(store, artefact, 46)
    run("calibrate", "--target-fmr", "1e-2")
    assert "would apply" in run("calibrate", "--reset", "--dry-run").stdout
    assert store.threshold("default", artefact.model_id) is not None
    models = identification_threshold(artefact.tail, artefact.threshold, 0.01, 46).value
    assert f"the model's {models:.4f} for 46 people at 1 % applies again" in run("calibrate", "--reset").stdout
    assert store.threshold("default", artefact.model_id) is None
    told = run("calibrate", "--reset").stdout
    assert f"no threshold of its own; the model's {models:.4f} for 46 people at 1 % applies" in told


def test_calibrate_takes_a_share_of_strangers_with_a_name(artefact: Artefact, store: InMemoryTemplateStore) -> None:
    """It is divided by the number of people; the model's threshold is printed, too."""
    enrol(store, artefact, 46)
    report = printed("calibrate", "--false-names", "0.5")
    assert report["threshold"]["target_fmr"] == pytest.approx(0.5 / 46)
    assert report["strangers_taken"] <= 0.5
    run("calibrate", "--reset")
    again = " ".join(run("calibrate", "--false-names", "0.5", "--dry-run").stdout.split())
    models = identification_threshold(artefact.tail, artefact.threshold, 0.01, 46).value
    assert f"(so far the model's {models:.4f} for 46 people at 1 %)" in again
    with pytest.raises(TooFewPairs, match=r"0\.000217 \(0\.01 of strangers / 46 people\) needs 46000"):
        run("calibrate", "--false-names", "0.01")


def test_calibrate_names_the_share_of_strangers_of_the_settings(
    artefact: Artefact, store: InMemoryTemplateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of it equals a tenfold gallery; a value out of range is refused."""
    enrol(store, artefact, 46)
    monkeypatch.setenv("FACEREC_GALLERY__FALSE_NAMES", "0.001")
    stricter = identification_threshold(artefact.tail, artefact.threshold, 0.01, 460).value
    assert f"{stricter:.4f} for 46 people at 0.1 %" in run("calibrate", "--reset").stdout
    for wrong in ("0", "1.01", "nan"):
        monkeypatch.setenv("FACEREC_GALLERY__FALSE_NAMES", wrong)
        with pytest.raises(ConfigurationError, match="FALSE_NAMES"):
            run("calibrate", "--reset")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--reset", "--target-fmr", "0.1"),
        ("--reset", "--false-names", "0.1"),
        ("--false-names", "0.1", "--target-fmr", "0.1"),
        ("--false-names", "0"),
        ("--false-names", "1.5"),
        ("--target-fmr", "0"),
        ("--target-fmr", "1"),
        ("--target-fmr", "2"),
    ],
)
def test_calibrate_needs_one_of_rate_share_and_reset(arguments: tuple[str, ...]) -> None:
    """A usage error otherwise, before anything is read."""
    assert "Error" in run("calibrate", *arguments, status=2).output


def test_calibrate_needs_pairs_and_folder_together(pairs: Path) -> None:
    """One without the other is a usage error."""
    assert "together" in run("calibrate", "--target-fmr", "0.1", "--pairs", pairs, status=2).output
