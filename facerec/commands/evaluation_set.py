"""What `facerec evaluate` and `facerec calibrate` share: labelled pairs of photos, scored with the model in use."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec.commands.terminal import tracked
from facerec.settings import Settings
from model.artefact import Artefact

if TYPE_CHECKING:
    from facerec.accuracy.report import Measured
    from facerec.accuracy.scoring import Embedding, Scored, Skip
    from model.engines import Engine
    from model.evaluation import Interval

engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "openvino", "onnxruntime", "torch"]),
    help="What runs the networks.  [default: FACEREC_ENGINE]",
)


def score_pairs(
    pairs_file: Path, folder: Path, settings: Settings, artefact: Artefact, engine_name: str | None
) -> "tuple[Scored, Engine]":
    """Read the list, embed its photos as a worker does, compare; returns the trials and the engine that did it.

    Raises `InvalidPairs` before anything is loaded, and `ConfigurationError` where the engine cannot be opened.
    """
    from facerec.accuracy.scoring import photos_of, read_pairs, score

    pairs = read_pairs(pairs_file)
    found, engine = embed_tracked(photos_of(pairs), folder, settings, artefact, engine_name)
    return score(pairs, found), engine


def embed_tracked(
    photos: Iterable[str], folder: Path, settings: Settings, artefact: Artefact, engine_name: str | None
) -> "tuple[dict[str, Embedding | Skip], Engine]":
    """Embed photos as a worker does, with progress shown, and return the engine that did it.

    Raises `ConfigurationError` where the engine cannot be opened.
    """
    from facerec.accuracy.scoring import embed_photos
    from facerec.engine.loading import analyser, open_engine

    engine = open_engine(settings, artefact, engine_name)
    return embed_photos(tracked(photos, "embedding photos"), folder, analyser(settings, engine)), engine


def used_and_skipped(scored: "Scored") -> str:
    """`5 used (3 same, 2 different), 2 skipped for 1 of 6 photos (1 no face)`."""
    trials = scored.trials
    text = f"{len(trials.cosines)} used ({len(trials.genuine)} same, {len(trials.impostor)} different)"
    if not scored.skipped_pairs:
        return f"{text}, none skipped; {scored.photos} photos"
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in scored.reasons.items())
    skipped = len(scored.skipped_photos)
    return f"{text}, {scored.skipped_pairs} skipped for {skipped} of {scored.photos} photos ({reasons})"


def percent(figure: "Measured") -> str:
    """`98.667% [98.1%, 99.2%]`."""
    return f"{figure.value:.3%}{interval(figure.interval, '.3%')}"


def interval(found: "Interval | None", form: str) -> str:
    """The interval after its figure, or why there is none."""
    return " (too few errors for an interval)" if found is None else f" [{found.low:{form}}, {found.high:{form}}]"
