"""What the `facerec gallery` commands share: the gallery that the settings name."""

import difflib
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter

import click

from facerec import bootstrap
from facerec.engine.loading import load_artefact
from facerec.errors import FacerecError
from facerec.gallery.enrolment import valid_collection, valid_identity
from facerec.messages import DEFAULT_COLLECTION
from facerec.ports import ObjectStore, Template, TemplateStore
from facerec.settings import Settings
from model.artefact import Artefact

collection_option = click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="Which gallery.")


@dataclass(frozen=True)
class OpenGallery:
    """One collection and the services that hold it; `open_gallery` makes one."""

    collection: str
    settings: Settings

    @cached_property
    def templates(self) -> TemplateStore:
        """The system of record."""
        return bootstrap.template_store(self.settings)

    @cached_property
    def photos(self) -> ObjectStore:
        """Where the photos are, in `settings.gallery_bucket`."""
        return bootstrap.object_store(self.settings)

    @cached_property
    def model(self) -> Artefact:
        """The model in use; raises `ConfigurationError` where there is none."""
        return load_artefact(self.settings)

    def sorted_templates(self) -> list[Template]:
        """Every template, sorted by identity and id."""
        return sorted(self.templates.templates(self.collection), key=attrgetter("identity", "template_id"))

    def everyone(self) -> dict[str, list[Template]]:
        """Templates by identity."""
        found = groupby(self.sorted_templates(), attrgetter("identity"))
        return {identity: list(templates) for identity, templates in found}

    def templates_of(self, name: str) -> list[Template]:
        """The templates of one person; raises `FacerecError` where there are none."""
        everyone, identity = self.everyone(), valid_identity(name)
        if identity in everyone:
            return everyone[identity]
        by_letters = {known.casefold(): known for known in everyone}
        close = difflib.get_close_matches(identity.casefold(), by_letters, n=1)
        hint = f"did you mean {by_letters[close[0]]!r}?" if close else "`facerec gallery list` tells who is"
        raise FacerecError(f"nobody is enrolled as {identity!r} in collection {self.collection}: {hint}")


def open_gallery(collection: str) -> OpenGallery:
    """Check the name and read the settings; raises `InvalidName` and `ConfigurationError`."""
    return OpenGallery(valid_collection(collection), Settings.load())


def counted(number: int) -> str:
    """`1 template`, `2 templates`."""
    return f"{number} template" if number == 1 else f"{number} templates"
