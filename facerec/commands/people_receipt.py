"""`facerec people receipt` and `receipt-key`: the signed proof of a removal."""

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from facerec import bootstrap
from facerec.commands.people_erasure import erasure_state, known_erasure
from facerec.commands.terminal import FILE, PictureFile, json_option, print_columns
from facerec.echo import echo, echo_document, echo_json
from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.receipts import content_of
from facerec.settings import Settings


@click.command("receipt")
@click.argument("erasure_id", metavar="[ID]", required=False)
@click.option("--out", type=PictureFile(), help="Write the receipt into this file.")
@click.option("--verify", type=FILE, help="Verify the receipt in this file, offline, and show it.")
@click.option("--key", type=FILE, help="With --verify: the public key that you trust, in PEM.  [default: your own]")
@click.option("--name", help="With --verify: whether the receipt is about this name; needs --subject-key.")
@click.option("--subject-key", help="The key that `facerec people remove` has shown.")
@json_option
def receipt(
    erasure_id: str | None,
    out: Path | None,
    verify: Path | None,
    key: Path | None,
    name: str | None,
    subject_key: str | None,
    *,
    as_json: bool,
) -> None:
    """Sign the receipt of the removal ID: what was removed where, who confirmed it, and what is still owed.

    FACEREC_ERASURE__SIGNING_KEY names the key; `facerec people receipt-key` makes one.

    \b
    Examples:
      facerec people receipt 3f6c0d5e9b1a4c7d8e2f0a1b2c3d4e5f --out receipt.json
      facerec people receipt --verify receipt.json --key operator.pub.pem
      facerec people receipt --verify receipt.json --name "Ada Lovelace" --subject-key 9c1d…
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    settings = Settings.load()
    if verify is not None:
        _verify(settings, verify, key, name, subject_key, as_json=as_json)
        return
    if erasure_id is None:
        raise click.UsageError("Give the ID of a removal, or --verify with a receipt.")
    record = known_erasure(bootstrap.erasures(settings), erasure_id)
    if settings.erasure.signing_key is None:
        raise ConfigurationError(
            "FACEREC_ERASURE__SIGNING_KEY is not set: make a key with `facerec people receipt-key FILE`, and name it"
        )
    from facerec.gallery.receipt_signing import SigningKey

    signed = SigningKey.load(settings.erasure.signing_key).sign(content_of(record, datetime.now(UTC)))
    if out is None:
        echo_json(signed)
        return
    try:
        out.write_text(json.dumps(signed, indent=2) + "\n")
    except OSError as exc:
        raise FacerecError(f"{out} cannot be written: {exc.strerror}") from exc
    echo(f"{out}: the receipt of erasure {record.erasure_id}, {erasure_state(record)}")


@click.command("receipt-key")
@click.argument("file", type=PictureFile())
def receipt_key(file: Path) -> None:
    """Make a key for receipts in FILE, for you alone to read, and print its public half."""
    from facerec.gallery.receipt_signing import SigningKey

    echo_document(SigningKey.create(file).public_pem)
    echo(
        f"Set FACEREC_ERASURE__SIGNING_KEY={file}, here and for the web tier; give the public key to others.", err=True
    )


def _verify(
    settings: Settings, file: Path, key: Path | None, name: str | None, subject_key: str | None, *, as_json: bool
) -> None:
    if (name is None) != (subject_key is None):
        raise click.UsageError("--name and --subject-key go together.")
    from facerec.gallery.receipt_signing import verified

    own = settings.erasure.signing_key
    trusted = key or (own if own is not None and own.exists() else None)
    found = verified(file.read_bytes(), None if trusted is None else trusted.read_bytes())
    if name is not None and not found.is_about(name, subject_key or ""):
        raise FacerecError("the signature is good, but the receipt is not about this name with this subject key")
    content = found.content
    if as_json:
        echo_json({"key_id": found.key_id, "key_known": found.known_key, **content})
        return
    echo(f"The signature is good; key {found.key_id}.")
    if not found.known_key:
        echo("Compare this key with the operator's: no trusted key was given with --key.", err=True)
    if name is not None:
        echo(f"The receipt is about {name!r}.")
    ended = content["completed_at"]
    echo(f"Erasure {content['erasure_id']} in collection {content['collection']}, asked by {content['asked_by']}")
    echo(f"begun {content['begun_at']}, " + (f"complete {ended}" if ended else "not complete"))
    places = [*content["places"], *content["still_owed"]]
    rows = [(each["place"], each["state"], each["removed"], each["confirmed_by"], each["detail"]) for each in places]
    print_columns([("place", "state", "removed", "confirmed by", "detail"), *rows])
