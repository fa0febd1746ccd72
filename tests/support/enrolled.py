"""People who are enrolled in a fake web tier without a worker, for tests of many."""

from dataclasses import replace

from facerec.message_base import ObjectRef
from tests.fakes.drawn_faces import photo
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier


def enrol(tier: FakeWebTier, *names: str, first: int = 1, body: bytes | None = None) -> list[str]:
    """Enrol a photo for each name, numbered from `first` on; returns the ids of the templates."""
    ids = []
    for number, name in enumerate(names, first):
        made = make_template(number, name)
        picture = photo(name) if body is None else body
        key = f"{made.collection}/{made.template_id}/photo.jpg"
        tier.store.put(tier.settings.gallery_bucket, key, picture, "image/jpeg")
        kept = ObjectRef(bucket=tier.settings.gallery_bucket, key=key, size=len(picture))
        tier.templates.add(replace(made, photo=kept, quality=0.9))
        ids.append(made.template_id)
    return ids
