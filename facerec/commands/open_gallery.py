"""A collection as the commands read it, and the services that hold it."""

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter

from facerec import bootstrap
from facerec.commands.damaged import known_dimensions
from facerec.engine.loading import load_artefact
from facerec.errors import FacerecError
from facerec.gallery.damaged import usable
from facerec.gallery.names import KnownNames, identity_key, same_person, valid_collection
from facerec.ports import DamagedTemplate, ObjectStore, Template, TemplateStore
from facerec.settings import Settings
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
