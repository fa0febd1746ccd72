"""A collection as the commands read it, and the services that hold it."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter

from facerec import bootstrap
from facerec.commands.damaged import known_dimensions
from facerec.commands.terminal import tracked
from facerec.engine.loading import load_artefact
from facerec.gallery.damaged import usable
from facerec.gallery.names import KnownNames, valid_collection
from facerec.gallery.people import NoSuchPerson, People
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

    @cached_property
    def people(self) -> People:
        """The use cases over the collection's people."""
        return People(
            enrolled=self.templates,
            records=bootstrap.person_records(self.settings),
            photos=self.photos,
        )

    def everyone(self) -> dict[str, list[Template]]:
        """Return the usable templates by identity, sorted by identity and id."""
        self.damaged.clear()
        stored = tracked(
            self.templates.templates(self.collection, self.damaged),
            f"reading {self.collection}",
            total=self.templates.count(self.collection) or None,
        )
        found = usable(stored, self.damaged, known_dimensions(self.settings))
        templates = sorted(found, key=attrgetter("identity", "template_id"))
        return {identity: list(found) for identity, found in groupby(templates, attrgetter("identity"))}

    def templates_of(self, name: str, *, exact: bool = False) -> list[Template]:
        """Return the templates of one person under all spellings; raises `NoSuchPerson`.

        A person that is only kept in the collection has none.
        """
        everyone = self.everyone()
        known = KnownNames([*everyone, *self.people.records.names(self.collection)])
        spellings = known.spellings(name, exact=exact)
        if spellings:
            return [*chain.from_iterable(everyone.get(spelling, ()) for spelling in spellings)]
        raise NoSuchPerson(name, self.collection, known.closest(name))


def open_gallery(collection: str) -> OpenGallery:
    """Check the name and read the settings; raises `InvalidName` and `ConfigurationError`."""
    return OpenGallery(valid_collection(collection), Settings.load())
