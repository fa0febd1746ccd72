"""The sample pictures: of stated origin, expected outcomes for all, and no probe that is an enrolled photo."""

import csv
import hashlib
import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageOps

EXAMPLES = Path(__file__).parents[2] / "examples"
GALLERY = sorted((EXAMPLES / "gallery").glob("*/*"))
PROBES = sorted((EXAMPLES / "probes").glob("*"))
LARGEST_TOTAL_BYTES = 2_000_000


def digest(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pixels(path: Path) -> Image.Image:
    """Return the decoded picture."""
    with Image.open(path) as image:
        return image.convert("RGB")


def stated_digests() -> dict[str, str]:
    """Return the SHA-256 that NOTICE.md states under each picture's heading."""
    sections = re.split(r"^### ", (EXAMPLES / "NOTICE.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    stated = {}
    for section in sections:
        name, text = section.split("\n", 1)
        digests = re.findall(r"^- sha256: `([0-9a-f]{64})`$", text, flags=re.MULTILINE)
        assert len(digests) == 1, f"{name} states {len(digests)} hashes of its own"
        stated[name.strip("` ")] = digests[0]
    return stated


def expected() -> dict[str, tuple[str, str]]:
    """Return outcome and name by probe."""
    with (EXAMPLES / "expected.csv").open(encoding="utf-8", newline="") as rows:
        return {row["file"]: (row["outcome"], row["name"]) for row in csv.DictReader(rows)}


def test_notice_lists_every_picture_as_it_is() -> None:
    """A picture that was changed or added without stating its origin is found here."""
    assert stated_digests() == {path.relative_to(EXAMPLES).as_posix(): digest(path) for path in GALLERY + PROBES}


def test_notice_tells_the_origin_of_every_picture() -> None:
    """Each section says what it shows, who made it, where it was found, why it is free, and what was done to it."""
    sections = re.split(r"^### ", (EXAMPLES / "NOTICE.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        for fact in (r"Shows:", r"Authors?\b", r"(Source:|sources)", r"Licence:.*public domain", r"Done to it:"):
            assert re.search(rf"^- .*{fact}", section, flags=re.MULTILINE), (section.split("\n", 1)[0], fact)


@pytest.mark.parametrize("probe", PROBES, ids=lambda path: path.name)
def test_no_probe_is_an_enrolled_photo(probe: Path) -> None:
    """Neither the bytes nor the decoded pixels, plain or mirrored, are those of a photo in the gallery."""
    submitted = pixels(probe)
    for photo in GALLERY:
        assert digest(probe) != digest(photo)
        enrolled = pixels(photo)
        if enrolled.size == submitted.size:
            for variant in (submitted, ImageOps.mirror(submitted)):
                assert ImageChops.difference(enrolled, variant).getbbox() is not None


def test_expected_outcomes_cover_all_probes_and_only_enrolled_names() -> None:
    """The demo compares with this file, so it must neither miss a probe nor name a stranger."""
    outcomes = expected()
    assert sorted(outcomes) == [path.name for path in PROBES]
    people = {photo.parent.name for photo in GALLERY}
    assert len(people) >= 2
    for outcome, name in outcomes.values():
        assert outcome in {"match", "unknown", "no_face"}
        assert name in people if outcome == "match" else name == ""
    assert {outcome for outcome, _ in outcomes.values()} == {"match", "unknown", "no_face"}


@pytest.mark.parametrize("path", GALLERY + PROBES, ids=lambda path: path.name)
def test_pictures_are_plain_jpegs_without_metadata(path: Path) -> None:
    """Clones stay small, and nothing but the picture itself is published."""
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert max(image.size) <= 1000
        assert not {"exif", "photoshop", "xmp", "icc_profile", "comment"} & set(image.info)


def test_pictures_are_small_in_sum() -> None:
    """The samples travel with every clone."""
    assert sum(path.stat().st_size for path in GALLERY + PROBES) < LARGEST_TOTAL_BYTES
