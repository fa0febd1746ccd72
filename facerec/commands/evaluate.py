"""`facerec evaluate`: how well the model in use tells people apart on labelled pairs of photos."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.evaluation_set import engine_option, load_model, score_pairs, used_and_skipped
from facerec.commands.picture_file import PictureFile
from facerec.errors import FacerecError
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.accuracy import AccuracyReport, Measured, OperatingPoint
    from model.confidence import Interval
    from model.evaluation import FoldAccuracy


@click.command("evaluate")
@click.option(
    "--pairs",
    "pairs_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with the columns left,right,same (and fold), or LFW's pairs.txt.",
)
@click.option(
    "--folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the photos are that the pairs name.",
)
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("--plot", type=PictureFile(), help="Draw ROC and distributions as a PNG.")
def command(
    pairs_file: Path,
    folder: Path,
    engine: str | None,
    as_json: bool,  # noqa: FBT001 - click passes by name
    plot: Path | None,
) -> None:
    """Measure the model in use on labelled pairs of photos.

    Each photo is detected, cropped and embedded once, as a worker does it; its primary face counts. What is told of a
    false match rate (FMR) is marked as weak where fewer than 10/FMR pairs of different people are there: it rests on
    few false matches, or on none. Intervals hold with 95 % confidence; those of TAR take the threshold as given.

    \b
    Examples:
      facerec evaluate --pairs pairs.csv --folder photos/ --plot roc.png
      facerec evaluate --pairs lfw/pairs.txt --folder lfw/ --json     # ten folds, as published figures are
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.accuracy import assess

    settings = Settings.load()
    artefact = load_model(settings)
    scored, used_engine = score_pairs(pairs_file, folder, settings, artefact, engine)
    if not len(scored.trials.cosines):
        raise FacerecError(f"no pair can be used: {used_and_skipped(scored)}; is --folder where the photos are?")
    report = assess(scored.trials, scored.folds, artefact.threshold)
    if plot is not None:
        from facerec.commands.evaluation_plot import draw

        title = f"{artefact.model_id}, {used_engine.name} {used_engine.precision}"
        try:
            draw(scored.trials, artefact.threshold, title).save(plot, "PNG")
        except OSError as exc:
            raise click.FileError(str(plot), exc.strerror or str(exc)) from exc
    if as_json:
        rest = {
            "model_id": used_engine.model_id,
            "engine": used_engine.name,
            "precision": used_engine.precision,
            "photos": scored.photos,
            "skipped_pairs": scored.skipped_pairs,
            "skipped_photos": {photo: str(reason) for photo, reason in scored.skipped_photos.items()},
        }
        click.echo(json.dumps(rest | report.to_json(), indent=2, ensure_ascii=False))
        return
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl(
        [
            ("Pairs", used_and_skipped(scored)),
            ("Model", f"{used_engine.model_id}, {used_engine.name} {used_engine.precision}"),
            *_rows(report),
        ],
        col_max=20,
    )
    click.echo(formatter.getvalue(), nl=False)
    if plot is not None:
        click.echo(f"Plot: {plot}", err=True)


def _rows(report: "AccuracyReport") -> list[tuple[str, str]]:
    from model.evaluation import pairs_needed

    if report.auc is None or report.eer is None:
        missing = "different people" if report.genuine_pairs else "the same person"
        rows = [("AUC, EER", f"not measurable: no pair of {missing}")]
    else:
        rows = [("AUC", _number(report.auc)), ("EER", _percent(report.eer))]
    for target, point in report.at_fmr.items():
        told = "not measurable: no pair of different people" if point is None else _point(point)
        if point is not None and report.weak(target):
            told += f"; weak: {report.impostor_pairs} impostor pairs, {pairs_needed(target)} are needed"
        rows.append((f"At FMR {target:g}", told))
    rows.append(("At the default", _point(report.at_threshold)))
    if report.folds is not None:
        rows.append(("Accuracy", _folds(report.folds)))
    return [*rows, ("Intervals", report.intervals)]


def _folds(folds: "FoldAccuracy") -> str:
    return (
        f"{folds.mean:.2%} ± {folds.standard_error:.2%} (standard error) over {folds.folds} folds, each with the "
        f"threshold that is best on the others (mean {folds.threshold:.4f})"
    )


def _point(point: "OperatingPoint") -> str:
    tar = "no pair of the same person" if point.tar is None else f"TAR {_percent(point.tar)}"
    fmr = "no pair of different people" if point.fmr is None else f"FMR {_percent(point.fmr)}"
    return f"threshold {point.threshold:.4f}: {tar}, {fmr}"


def _percent(figure: "Measured") -> str:
    return f"{figure.value:.3%}{_range(figure.interval, '.3%')}"


def _number(figure: "Measured") -> str:
    return f"{figure.value:.5f}{_range(figure.interval, '.5f')}"


def _range(interval: "Interval | None", form: str) -> str:
    return (
        " (too few errors for an interval)" if interval is None else f" [{interval.low:{form}}, {interval.high:{form}}]"
    )
