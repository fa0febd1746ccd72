"""The people's pages over the use cases, without a browser."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.errors import Transient
from facerec.gallery.people_index import FEW_TEMPLATES
from facerec.gallery.receipt_signing import SigningKey, verified
from facerec.gallery.removal import thumbnail_key
from facerec.settings import Settings
from facerec.settings.resources import ErasureSettings
from facerec.web.pages.people import drawing
from tests.fakes.drawn_faces import photo
from tests.fakes.templates import make_template
from tests.fakes.web_tier import FakeWebTier
from tests.support.enrolled import enrol

MARKUP = "<b>R&D</b>/Lab"


@pytest.fixture
def tier() -> FakeWebTier:
    """An open web tier."""
    return FakeWebTier()


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def page(response: TestResponse, status: int = 200) -> str:
    """The text of a page, whose status is checked."""
    assert response.status_code == status, response.text
    assert response.mimetype == "text/html"
    return response.text


def cards(text: str) -> list[str]:
    """The names of the people that a page shows."""
    return [unescape(name) for name in re.findall(r'<strong dir="auto">(.*?)</strong>', text)]


def act(client: FlaskClient, path: str, **form: str) -> TestResponse:
    """Send a form as htmx does."""
    return client.post(path, data=form, headers={"HX-Request": "true", "HX-Target": "view"})


def test_grid_shows_everybody_by_name_a_page_at_a_time(client: FlaskClient, tier: FakeWebTier) -> None:
    """The address of the last page shows all pages; "Show more" gets the next one alone."""
    names = [f"Person {number:03}" for number in range(130)]
    enrol(tier, *names)
    first = page(client.get("/people"))
    assert cards(first) == names[:60]
    assert '<data value="130">130</data> people' in first
    assert 'hx-get="/people?page=2"' in first
    assert cards(page(client.get("/people?page=2"))) == names[:120]
    appended = page(client.get("/people?page=3", headers={"HX-Request": "true", "HX-Target": "more"}))
    assert cards(appended) == names[120:]
    assert "<h1" not in appended
    assert "hx-get" not in appended
    for wrong in ("0", "-1", "x", "1e9"):
        assert cards(page(client.get(f"/people?page={wrong}"))) == names[:60]
    assert cards(page(client.get("/people?page=99999"))) == []


def test_list_of_many_photos_follows_the_page(client: FlaskClient, tier: FakeWebTier) -> None:
    """Until the process has read it; a reader without JavaScript can wait for a whole page."""
    enrol(tier, *["Ada"] * FEW_TEMPLATES, "Grace", body=b"a photo")
    for path in ("/people", "/people?q=gra&page=2"):
        frame = page(client.get(path))
        assert "The list of people is being read." in frame
        assert 'type="search"' in frame
        assert "/enrol" in frame
        assert cards(frame) == []
    assert re.findall(r'type="hidden" name="(\w+)" value="(\w+)"', frame) == [
        ("q", "gra"),
        ("page", "2"),
        ("wait", "1"),
    ]
    tier.templates.outage = Transient("the table cannot be reached")
    failed = client.get("/people?wait=1", headers={"HX-Request": "true", "HX-Target": "people"})
    assert (failed.status_code, failed.mimetype) == (503, "text/plain")
    tier.templates.outage = None
    assert cards(page(client.get("/people?wait=1"))) == ["Ada", "Grace"]
    assert cards(page(client.get("/people"))) == ["Ada", "Grace"]
    tier.templates.add(make_template(5_000, "Joan"))
    assert cards(page(client.get("/people"))) == ["Ada", "Grace", "Joan"]


def test_list_of_many_photos_comes_to_its_page_by_itself(client: FlaskClient, tier: FakeWebTier) -> None:
    """As a part of it, which leaves the search field alone."""
    enrol(tier, *["Ada"] * FEW_TEMPLATES, "Grace", body=b"a photo")
    part = page(client.get("/people?wait=1", headers={"HX-Request": "true", "HX-Target": "people"}))
    assert cards(part) == ["Ada", "Grace"]
    assert '<data value="1001">1001</data> photos' in part
    assert "<h1" not in part


def test_search_finds_names_and_says_how_many(client: FlaskClient, tier: FakeWebTier) -> None:
    """Without regard to case and accents; a page of its own without a script."""
    enrol(tier, "Ada Lovelace", "Karen Spärck Jones", "Grace Hopper")
    found = page(client.get("/people?q=SPARCK", headers={"HX-Request": "true", "HX-Target": "people"}))
    assert cards(found) == ["Karen Spärck Jones"]
    assert '<data value="1">1</data> of <data value="3">3</data> people' in found
    assert "<h1" not in found
    assert cards(page(client.get("/people?q=ada"))) == ["Ada Lovelace"]
    none = page(client.get("/people?q=%3Cb%3E"))
    assert cards(none) == []
    assert "No name contains “&lt;b&gt;”" in none


def test_empty_collection_says_how_to_enrol(client: FlaskClient) -> None:
    """Without a search."""
    shown = page(client.get("/people"))
    assert "facerec enrol" in shown
    assert 'type="search"' not in shown


def test_reader_of_an_open_server_chooses_the_collection(client: FlaskClient, tier: FakeWebTier) -> None:
    """Every link of the page keeps it."""
    enrol(tier, "Ada")
    tier.templates.add(make_template(7, "Bob", "guests"))
    assert 'href="/people?collection=guests"' in page(client.get("/people"))
    guests = page(client.get("/people?collection=guests"))
    assert cards(guests) == ["Bob"]
    assert "/people/Bob?collection=guests" in guests
    assert "collection=guests" in page(client.get("/people/Bob?collection=guests"))


def test_person_without_a_photo_is_drawn(client: FlaskClient, tier: FakeWebTier) -> None:
    """With the initials."""
    tier.records.add_name("default", "Ada King Lovelace")
    shown = page(client.get("/people"))
    assert ">AL</text>" in shown
    assert "No photos" in shown
    assert [drawing(name).initials for name in ("ada", "<b>x</b>", "…", "李 明", "Ada B.")] == [
        "A",
        "B",
        "?",
        "李明",
        "AB",
    ]


@pytest.mark.parametrize("name", ["enrol", "erasures", "rejections", "photos/Ada"])
def test_name_of_another_view_is_a_name(client: FlaskClient, tier: FakeWebTier, name: str) -> None:
    """No view lies below the people."""
    enrol(tier, name)
    assert f'<h1 dir="auto">{name}</h1>' in page(client.get(f"/people/{name}"))


def test_name_with_markup_and_slashes_is_a_name(client: FlaskClient, tier: FakeWebTier) -> None:
    """On every page that shows it."""
    [identifier] = enrol(tier, MARKUP)
    for path in ("/people", "/people/%3Cb%3ER%26D%3C%2Fb%3E%2FLab", f"/photos/{identifier}/view"):
        shown = page(client.get(path))
        assert "<b>R" not in shown
        assert "&lt;b&gt;R&amp;D&lt;/b&gt;/Lab" in shown
    assert "/people/%3Cb%3ER%26D%3C%2Fb%3E%2FLab" in page(client.get("/people"))
    renamed = act(client, "/people/%3Cb%3ER%26D%3C%2Fb%3E%2FLab/rename", name="a/../b")
    assert renamed.headers["HX-Replace-Url"] == "/people/a%2F..%2Fb"
    assert "a/../b" in page(client.get("/people/a%2F..%2Fb"))


def test_rename_says_so_and_gives_the_new_address(client: FlaskClient, tier: FakeWebTier) -> None:
    """A name that is taken leads to a merge; an invalid one is refused."""
    enrol(tier, "Ada", "Grace")
    renamed = act(client, "/people/Ada/rename", name="Ada Lovelace")
    assert "Ada is called Ada Lovelace now." in page(renamed)
    assert renamed.headers["HX-Replace-Url"] == "/people/Ada%20Lovelace"
    taken = act(client, "/people/Grace/rename", name="ADA LOVELACE")
    assert taken.headers["HX-Retarget"] == "#taken"
    assert "/people/Grace/merge?into=Ada+Lovelace" in page(taken)
    refused = act(client, "/people/Grace/rename", name=" ")
    assert (refused.status_code, refused.text) == (400, "a person needs a name")


def test_people_are_merged_after_a_look_at_both_and_taken_apart(client: FlaskClient, tier: FakeWebTier) -> None:
    """The merge knows who asked for it."""
    enrol(tier, "Joan", "Jane", "Alan")
    assert "Joan" not in cards(page(client.get("/people/Joan/merge")))
    found = page(client.get("/people/Joan/merge?q=jan"))
    assert "/people/Joan/merge?into=Jane" in found
    assert "Alan" not in found
    both = page(client.get("/people/Joan/merge?into=jane"))
    assert cards(both) == ["Joan", "Jane"]
    merged = act(client, "/people/Joan/merge", into="Jane")
    assert "Joan is part of Jane now, with <data" in page(merged)
    assert merged.headers["HX-Replace-Url"] == "/people/Jane"
    [record] = tier.records.merges("default")
    assert record.by == "page, 127.0.0.1"
    assert "by page, 127.0.0.1" in page(client.get("/people/Jane"))
    undone = act(client, f"/people/merges/{record.merge_id}/undo")
    assert "Joan is separate from Jane again" in page(undone)
    assert 'href="/people/Joan"' in undone.text
    assert act(client, f"/people/merges/{record.merge_id}/undo").status_code == 404
    assert act(client, "/people/Jane/merge", into="jane").status_code == 409


def test_stale_page_leads_on(client: FlaskClient, tier: FakeWebTier) -> None:
    """To where the person is now, to a similar name, and to everybody."""
    enrol(tier, "Joan", "Jane")
    act(client, "/people/Joan/merge", into="Jane")
    gone = page(client.get("/people/Joan"), 404)
    assert 'Joan was merged into another person: <a dir="auto" href="/people/Jane">Jane</a>' in gone
    assert 'href="/people/Jane">Jane</a>' in page(client.get("/people/Jan"), 404)
    for path in ("Joan/rename", "Joan/delete", "Nobody/merge"):
        stale = act(client, f"/people/{path}", name="Jo", into="Jane")
        assert 'href="/people"' in page(stale)
        assert stale.headers["HX-Reselect"] == "#view"


def test_photos_of_a_person_are_paged_newest_first(client: FlaskClient, tier: FakeWebTier) -> None:
    """The large view goes round all of them."""
    ids = enrol(tier, *["Ada"] * 70)[::-1]
    shown = page(client.get("/people/Ada"))
    assert re.findall(r"photos/(\w+)/view", shown) == ids[:60]
    more = page(client.get("/people/Ada?page=2", headers={"HX-Request": "true", "HX-Target": "more"}))
    assert re.findall(r"photos/(\w+)/view", more) == ids[60:]
    last = page(client.get(f"/photos/{ids[-1]}/view"))
    assert re.findall(r"photos/(\w+)/view", last) == [ids[-2], ids[0]]


def test_picture_is_sent_as_what_it_is(client: FlaskClient, tier: FakeWebTier) -> None:
    """A large photo is no face; what browsers do not show, or could run, is drawn instead."""
    png = photo("Ada", form="PNG")
    large = photo("Ada") + bytes(300_000)
    script = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    ids = [enrol(tier, "Ada", first=n, body=body)[0] for n, body in enumerate((photo("Ada"), png, large, script), 1)]
    imported = make_template(9, "Ada")
    tier.templates.add(replace(imported, photo=None))
    drawn = "image/svg+xml"
    expected = ["image/jpeg", "image/png", drawn, drawn, drawn]
    faces = [client.get(f"/photos/{each}/face") for each in [*ids, imported.template_id]]
    assert [face.mimetype for face in faces] == expected
    assert all(b"script" not in face.data for face in faces)
    tier.store.put(tier.settings.gallery_bucket, thumbnail_key("default", ids[2]), photo("Ada"), "image/jpeg")
    assert client.get(f"/photos/{ids[2]}/face").mimetype == "image/jpeg"
    whole = [client.get(f"/photos/{each}") for each in ids]
    assert [each.mimetype for each in whole] == ["image/jpeg", "image/png", "image/jpeg", drawn]
    assert whole[2].data == large
    for response in (*faces, *whole):
        assert response.headers["Cache-Control"] == "private, max-age=3600"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    tier.store.delete(tier.settings.gallery_bucket, f"default/{ids[0]}/photo.jpg")
    kept = client.get(f"/photos/{ids[0]}/face", headers={"If-None-Match": faces[0].headers["ETag"]})
    assert kept.status_code == 304
    assert client.get(f"/photos/{ids[0]}/face").mimetype == drawn
    assert client.get(f"/photos/{0:032x}/face").status_code == 404
    assert client.get(f"/photos/{ids[0]}/face?collection=guests").status_code == 404


def test_deleted_photo_leaves_the_person_and_the_last_one_takes_it(client: FlaskClient, tier: FakeWebTier) -> None:
    """The ledger of either is linked."""
    ids = enrol(tier, "Ada", "Ada")
    assert "only photo" not in page(client.get(f"/photos/{ids[0]}/view"))
    left = act(client, f"/photos/{ids[0]}/delete")
    assert "The photo photo 1.jpg was deleted." in page(left)
    assert re.search(r'href="/erasures/[0-9a-f]{32}"', left.text)
    assert act(client, f"/photos/{ids[0]}/delete").status_code == 404
    assert "the only photo of Ada" in page(client.get(f"/photos/{ids[1]}/view"))
    gone = act(client, f"/photos/{ids[1]}/delete")
    assert gone.headers["HX-Replace-Url"].startswith("/erasures/")
    page(client.get("/people/Ada"), 404)


def test_person_is_deleted_with_a_ledger_and_a_receipt(tmp_path: Path) -> None:
    """The subject key is shown once; the ledger is sent again only when it has changed."""
    key = SigningKey.create(tmp_path / "key.pem")
    tier = FakeWebTier(Settings(erasure=ErasureSettings(signing_key=tmp_path / "key.pem")))
    client = tier.app.test_client()
    enrol(tier, "Ada")
    assert "Delete Ada" in page(client.get("/people/Ada"))
    deleted = act(client, "/people/Ada/delete")
    address = deleted.headers["HX-Replace-Url"]
    found = re.search(r'id="subject-key">([0-9a-f]{32})<', page(deleted))
    assert found is not None
    shown = page(client.get(address))
    assert found[1] not in shown
    assert "Ada" not in shown
    [refresh] = [unescape(each) for each in re.findall(r'hx-get="([^"]+)" hx-trigger="every 2s"', shown)]
    ledger = {"HX-Request": "true", "HX-Target": "ledger"}
    assert client.get(refresh, headers=ledger).status_code == 204
    [record] = tier.erasures.ledger.open()
    assert record.by == "page, 127.0.0.1"
    tier.erasures.make("worker").work(record.erasure_id)
    refreshed = page(client.get(refresh, headers=ledger))
    assert "places confirmed" in refreshed
    assert "<h2" not in refreshed
    receipt = client.get(f"{address}/receipt")
    assert receipt.headers["Content-Disposition"] == f'attachment; filename="receipt-{record.erasure_id}.json"'
    assert verified(receipt.data, key.public_pem.encode()).is_about("Ada", found[1])
    assert address in page(client.get("/erasures"))
    page(client.get(f"/erasures/{0:032x}"), 404)


def test_server_without_a_key_says_that_it_signs_no_receipts(client: FlaskClient, tier: FakeWebTier) -> None:
    """It links none."""
    enrol(tier, "Ada")
    deleted = act(client, "/people/Ada/delete")
    assert "FACEREC_ERASURE__SIGNING_KEY" in page(deleted)
    assert "/receipt" not in deleted.text
    assert client.get(f"{deleted.headers['HX-Replace-Url']}/receipt").status_code == 404


def test_erasures_of_another_collection_are_not_listed(client: FlaskClient, tier: FakeWebTier) -> None:
    """A collection has its own list."""
    enrol(tier, "Ada")
    act(client, "/people/Ada/delete")
    assert "Nothing was deleted" in page(client.get("/erasures?collection=guests"))
    assert "In progress" in page(client.get("/erasures"))


def test_unreachable_store_is_a_page_with_the_time_to_wait(client: FlaskClient, tier: FakeWebTier) -> None:
    """And names no server."""
    tier.templates.outage = Transient("dynamodb.example.org refused")
    for path in ("/people", "/people/Ada", f"/photos/{1:032x}/face"):
        response = client.get(path)
        assert "example" not in page(response, 503)
        assert response.headers["Retry-After"]
