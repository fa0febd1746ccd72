"""`facerec gallery`: the enrolled people of a collection, and collections as files."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from facerec import bootstrap
from facerec.commands.damaged import known_dimensions, print_damaged, print_not_imported
from facerec.commands.enrol import rebuild
from facerec.commands.gallery_check import check
from facerec.commands.terminal import (
    FILE,
    OTHER_PERSON_STATUS,
    collection_option,
    exact_names_option,
    json_option,
    print_columns,
    tracked,
    yes_option,
)
from facerec.echo import confirm, echo, echo_json
from facerec.engine.loading import load_artefact
from facerec.errors import AlreadyEnrolled, ConfigurationError, FacerecError, ObjectMissing
from facerec.gallery.damaged import usable
from facerec.gallery.enrolment import remove_templates, valid_collection
from facerec.gallery.names import KnownNames, identity_key, same_person
from facerec.messages import DEFAULT_COLLECTION
from facerec.ports import DamagedTemplate, ObjectStore, Template, TemplateStore
from facerec.settings import Settings
from facerec.text import counted
from model.artefact import Artefact


@dataclass(frozen=True)
class OpenGallery:
    """One collection and the services that hold it; `open_gallery` makes one."""

    collection: str
    settings: Settings
    damaged: list[DamagedTemplate] = field(default_factory=list)
    """The damaged templates that the last reading of the collection left out."""

    @cached_property
    def templates(self) -> TemplateStore:
        """The system of record."""
        return bootstrap.template_store(self.settings)

    @cached_property
    def photos(self) -> ObjectStore:
        """The store of the photos, in `settings.gallery_bucket`."""
        return bootstrap.object_store(self.settings)

    @cached_property
    def model(self) -> Artefact:
        """The model in use; raises `ConfigurationError` if there is none."""
        return load_artefact(self.settings)

    def everyone(self) -> dict[str, list[Template]]:
        """Return the usable templates by identity, sorted by identity and id."""
        self.damaged.clear()
        stored = self.templates.templates(self.collection, self.damaged)
        found = usable(stored, self.damaged, known_dimensions(self.settings))
        templates = sorted(found, key=attrgetter("identity", "template_id"))
        return {identity: list(found) for identity, found in groupby(templates, attrgetter("identity"))}

    def templates_of(self, name: str, *, exact: bool = False) -> list[Template]:
        """Return the templates of one person under all spellings; raises `FacerecError` if there are none."""
        everyone = self.everyone()
        spellings = KnownNames(everyone).spellings(name, exact=exact)
        if spellings:
            return [*chain.from_iterable(everyone[spelling] for spelling in spellings)]
        by_key = {identity_key(known): known for known in everyone}
        close = difflib.get_close_matches(identity_key(name), by_key, n=1)
        hint = f"did you mean {by_key[close[0]]!r}?" if close else "`facerec gallery list` shows everyone"
        raise FacerecError(f"nobody is enrolled as {name.strip()!r} in collection {self.collection}: {hint}")

    def ids_of(self, name: str, *, exact: bool = False) -> dict[str, str]:
        """Return the spelling of one person's name in each template by id, damaged ones included.

        Raises as `templates_of` does.
        """
        everyone = self.everyone()
        spellings = KnownNames(everyone).spellings(name, exact=exact)
        owned = {found.template_id: spelling for spelling in spellings for found in everyone[spelling]}
        for found in self.damaged:
            if found.identity.strip() and same_person(found.identity, name, exact=exact):
                owned[found.template_id] = found.identity
        return owned or {found.template_id: found.identity for found in self.templates_of(name, exact=exact)}


def open_gallery(collection: str) -> OpenGallery:
    """Check the name and read the settings; raises `InvalidName` and `ConfigurationError`."""
    return OpenGallery(valid_collection(collection), Settings.load())


@click.group("gallery")
def command() -> None:
    """List, show, remove, export, import, check and rebuild enrolled people.

    Damaged templates are left out, and listed with their ids on standard error.

    \b
    Examples:
      facerec gallery list
      facerec gallery remove --template 0123456789abcdef0123456789abcdef      # also a damaged one
      facerec gallery remove "Ada Lovelace" --template 0123456789abcdef0123456789abcdef --yes
      facerec gallery export --photos backup.facerec
      facerec gallery import backup.facerec
      facerec gallery import-pt data.pt --model casia-webface
      facerec gallery rebuild --all-collections     # after a change of the model
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


command.add_command(check)
command.add_command(rebuild)


@command.command("list")
@collection_option
@json_option
def list_(collection: str, *, as_json: bool) -> None:
    """List everyone with the number of their templates and the models of these."""
    gallery = open_gallery(collection)
    everyone = gallery.everyone()
    models = {identity: sorted({t.model_id for t in templates}) for identity, templates in everyone.items()}
    if as_json:
        people = [
            {"identity": identity, "templates": len(templates), "models": models[identity]}
            for identity, templates in everyone.items()
        ]
        echo_json(people)
    elif everyone:
        rows = [(identity, len(templates), ", ".join(models[identity])) for identity, templates in everyone.items()]
        print_columns([("identity", "templates", "model"), *rows])
    else:
        echo(f"Nobody is enrolled in collection {collection}: `facerec enrol NAME PHOTO`.", err=True)
    _warn_of_other_models(gallery, [*chain.from_iterable(everyone.values())])
    print_damaged(gallery.collection, gallery.damaged)


def _warn_of_other_models(gallery: OpenGallery, templates: Sequence[Template]) -> None:
    try:
        in_use = gallery.model.model_id
    except ConfigurationError:
        return  # the list needs no model
    others = [template for template in templates if template.model_id != in_use]
    if others:
        echo(
            f"Made with another model than the one in use ({in_use}), so they never match: {len(others)} of "
            f"{counted(len(templates), 'template')}. `facerec gallery rebuild --collection {gallery.collection}` "
            "embeds their photos with the model in use; with --remove-old it then removes these templates.",
            err=True,
        )


@command.command("collections")
def collections() -> None:
    """List the collections that hold templates."""
    for name in open_gallery(DEFAULT_COLLECTION).templates.collections():
        echo(name)


@command.command("show")
@click.argument("name")
@collection_option
@exact_names_option
@json_option
def show(name: str, collection: str, *, exact_names: bool, as_json: bool) -> None:
    """Show each template of the person NAME, under all spellings that `enrol` takes for one person."""
    gallery = open_gallery(collection)
    try:
        templates = gallery.templates_of(name, exact=exact_names)
    finally:  # perhaps all templates of this person are damaged
        print_damaged(gallery.collection, gallery.damaged)
    if as_json:
        echo_json([_json_object(template) for template in templates])
        return
    rows = [
        (t.template_id, t.source, f"{t.probability:.3f}", f"{t.enrolled_at:%Y-%m-%d %H:%M}", t.model_id)
        for t in templates
    ]
    print_columns([("template", "photo", "probability", "enrolled (UTC)", "model"), *rows])
    if len(names := _names(templates)) > 1:
        echo(f"Under {len(names)} spellings: {', '.join(map(repr, names))}", err=True)


def _names(templates: Sequence[Template]) -> list[str]:
    return sorted({template.identity for template in templates})


def _json_object(template: Template) -> dict[str, Any]:
    return {
        "template_id": template.template_id,
        "identity": template.identity,
        "source": template.source,
        "photo": None if template.photo is None else template.photo.model_dump(),
        "probability": template.probability,
        "enrolled_at": template.enrolled_at.isoformat(),
        "model_id": template.model_id,
    }


@command.command("remove")
@click.argument("name", required=False)
@click.option("--template", "chosen", multiple=True, metavar="ID", help="Only this template; may be repeated.")
@collection_option
@exact_names_option
@yes_option
def remove(name: str | None, chosen: tuple[str, ...], collection: str, *, exact_names: bool, yes: bool) -> None:
    """Remove the person NAME, under all spellings that `enrol` takes for one person, or single templates.

    The photos are removed, too. Without NAME each --template is removed, also a damaged one whose name cannot be read.
    """
    gallery = open_gallery(collection)
    if name is None:
        _remove_by_id(gallery, chosen, yes=yes)
        return
    present = gallery.ids_of(name, exact=exact_names)
    names = " and ".join(map(repr, sorted(set(present.values()))))
    for identifier in chosen:
        if identifier not in present:
            raise FacerecError(f"{name!r} has no template {identifier!r}; `facerec gallery show` lists them")
    removed = chosen or list(present)
    if not yes:
        of_all = f"{len(removed)} of {counted(len(present), 'template')}"
        confirm(f"Remove {of_all} of {names}, photos included?")
    bucket = gallery.settings.gallery_bucket
    count = remove_templates(gallery.templates, gallery.photos, bucket, gallery.collection, removed)
    echo(f"{counted(count, 'template')} of {names} removed")


def _remove_by_id(gallery: OpenGallery, chosen: Sequence[str], *, yes: bool) -> None:
    if not chosen:
        raise click.UsageError("Give NAME, or --template with the id of each template to remove.")
    if not yes:
        confirm(f"Remove {counted(len(chosen), 'template')}, photos included?")
    bucket = gallery.settings.gallery_bucket
    count = remove_templates(gallery.templates, gallery.photos, bucket, gallery.collection, chosen)
    if not count:
        raise FacerecError(f"collection {gallery.collection} has no template {chosen[0]!r}")
    echo(f"{counted(count, 'template')} removed")


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--photos", is_flag=True, help="Include the photos; without it only names and embeddings are exported.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@collection_option
def export(file: Path, collection: str, *, photos: bool, force: bool) -> None:
    """Write a collection to one portable FILE. Only its owner can read it, because it holds biometric data."""
    from facerec.gallery.archive import write_archive

    gallery = open_gallery(collection)
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists already; --force overwrites it.")
    templates = [*chain.from_iterable(gallery.everyone().values())]
    if not templates:
        print_damaged(gallery.collection, gallery.damaged)
        raise FacerecError(f"collection {collection} holds nothing to export")
    missing: list[str] = []

    def stored() -> Iterator[tuple[str, bytes]]:
        for template in tracked(templates, "fetching photos"):
            try:
                if template.photo is not None:
                    yield template.template_id, gallery.photos.get(template.photo.bucket, template.photo.key)
                    continue
            except ObjectMissing:
                pass
            missing.append(template.template_id)

    try:
        left_out = write_archive(file, gallery.collection, templates, stored() if photos else (), datetime.now(UTC))
    except OSError as exc:
        raise click.FileError(str(file), exc.strerror) from exc
    echo(f"{counted(len(templates) - len(left_out), 'template')} exported to {file}")
    print_damaged(gallery.collection, [*gallery.damaged, *left_out])
    if missing:
        echo(f"without a photo: {counted(len(missing), 'template')}", err=True)


@command.command("import")
@click.argument("file", type=FILE)
@click.option("--collection", help="Import into this collection.  [default: the one in FILE]")
@click.option("--any-model", is_flag=True, help="Store templates of other models too, for when these are in use.")
@exact_names_option
def import_(file: Path, collection: str | None, *, any_model: bool, exact_names: bool) -> None:
    """Import what `export` wrote; templates that are present stay as they are.

    Names are compared as by `enrol`. A photo that is enrolled for another person is left out; the exit status is then
    3. Only embeddings of one model can be compared. A FILE with templates of other models is refused as a whole, unless
    --any-model is given.
    """
    from facerec.gallery.archive import open_archive

    with open_archive(file) as archive:
        gallery = open_gallery(collection or archive.collection)
        _check_archive(gallery, archive.templates, file, any_model=any_model)
        print_not_imported(archive.damaged)
        _restore(gallery, archive.templates, archive.photo, exact_names=exact_names)


@command.command("import-pt")
@click.argument("file", type=FILE)
@click.option("--model", "model_name", required=True, metavar="NAME", help="The model that made the embeddings.")
@collection_option
@exact_names_option
def import_pt(file: Path, model_name: str, collection: str, *, exact_names: bool) -> None:
    """Import a saved pair: a .pt FILE with a list of 1xD embeddings and the list of their names.

    Needs torch (`make install-reference`). NAME is the weights' name (casia-webface, vggface2) or the model id of
    `facerec model show`, and must be the model in use; D is its dimension. "Model" means the crop as well as the
    weights: embeddings from scripts with MTCNN(image_size=240, margin=0) come from another crop than this model's, and
    match worse than photos that are enrolled with `facerec enrol`. Photos are not part of such a file. Names are
    compared as by `enrol`.
    """
    from facerec.gallery.import_pt import read_pair, templates_of_pair

    gallery = open_gallery(collection)
    model = gallery.model
    if model_name not in {model.weights_name, model.model_id}:
        raise FacerecError(
            f"the model in use is {model.weights_name} ({model.model_id}), and embeddings of {model_name} cannot be "
            "compared with its own; enrol the photos instead"
        )
    embeddings, names = read_pair(file)
    damaged: list[DamagedTemplate] = []
    templates = templates_of_pair(
        file,
        embeddings,
        names,
        collection=gallery.collection,
        model_id=model.model_id,
        dimension=model.dimension,
        now=datetime.now(UTC),
        exact_names=exact_names,
        damaged=damaged,
    )
    print_not_imported(damaged)
    _restore(gallery, templates, lambda _: None, exact_names=exact_names)


def _check_archive(gallery: OpenGallery, templates: Sequence[Template], file: Path, *, any_model: bool) -> None:
    """Refuse templates of other models, and those of a wrong length, which no worker could use."""
    try:
        model = gallery.model
    except ConfigurationError:
        if any_model:
            return
        raise
    others = {template.model_id for template in templates} - {model.model_id}
    if others and not any_model:
        count = sum(template.model_id in others for template in templates)
        raise FacerecError(
            f"{count} of {counted(len(templates), 'template')} in {file} belong to {', '.join(sorted(others))}, and "
            f"the model in use is {model.model_id}: enrol the photos again, or store these with --any-model"
        )
    own = [template.embedding.size for template in templates if template.model_id == model.model_id]
    wrong = [size for size in own if size != model.dimension]
    if wrong:
        raise FacerecError(
            f"{counted(len(wrong), 'template')} in {file} claim to be of {model.model_id} and have {wrong[0]} numbers "
            f"each instead of {model.dimension}: the file was not written by `facerec gallery export`"
        )


def _restore(
    gallery: OpenGallery,
    templates: Sequence[Template],
    photo: Callable[[str], bytes | None],
    *,
    exact_names: bool,
) -> None:
    from facerec.gallery.archive import restore

    store, photos, bucket = gallery.templates, gallery.photos, gallery.settings.gallery_bucket
    known = KnownNames(store.owners(gallery.collection).values())
    renamed: dict[str, str] = {}
    counts = Counter[str]()
    for template in tracked(templates, "importing"):
        identity = known.adopt(template.identity, exact=exact_names)
        if identity != template.identity:
            renamed[template.identity] = identity
        try:
            named = replace(template, identity=identity)
            new = restore(
                named,
                photo(template.template_id),
                gallery.collection,
                bucket,
                store,
                photos,
                exact_names=exact_names,
            )
            counts["new" if new else "present"] += 1
        except AlreadyEnrolled as exc:
            counts["other"] += 1
            echo(f"Left out: the photo {template.source!r} of {identity!r} is enrolled for {exc.identity!r}", err=True)
    for written, identity in renamed.items():
        echo(f"{written!r} is imported as {identity!r}", err=True)
    rest = f"; {counted(counts['present'], 'template')} already present" if counts["present"] else ""
    rest += f"; {counted(counts['other'], 'template')} enrolled for another person" if counts["other"] else ""
    echo(f"{counted(counts['new'], 'template')} imported into collection {gallery.collection}{rest}")
    if counts["other"]:
        raise SystemExit(OTHER_PERSON_STATUS)
