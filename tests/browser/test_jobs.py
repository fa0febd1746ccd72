"""Jobs on the page: how they are begun, followed, read and cancelled."""

import csv
import json
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from facerec.api_keys import Scope
from facerec.client import Client
from facerec.job_records import JobStatus
from tests.browser.conftest import CheckAccessible
from tests.browser.test_sign_in import sign_in
from tests.fakes.drawn_faces import photo
from tests.support.browser import Watch
from tests.support.sample_site import SiteKeys
from tests.support.served_web_tier import ServedWebTier


def _file(name: str, body: bytes | None = None) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": photo("Ada", take=1) if body is None else body}


def _choose(page: Page, *files: FilePayload) -> None:
    page.locator("#job-files").set_input_files(list(files))


def _begin(page: Page) -> None:
    page.get_by_role("button", name="Begin the job").click()


def _await_job_page(page: Page) -> None:
    page.wait_for_url("**/jobs/*-*")
    expect(page.locator("#job-progress")).to_be_visible()


def _groups(page: Page) -> list[str]:
    return page.locator(".job-filter a").all_inner_texts()


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with a folder for each person, and what should not be sent."""
    folder = tmp_path / "people"
    for name in ("Ada", "Grace"):
        (folder / name).mkdir(parents=True)
        for take in (1, 2):
            (folder / name / f"{take}.jpg").write_bytes(photo(name, take=take))
        (folder / name / ".DS_Store").write_bytes(b"x")
    (folder / "loose.jpg").write_bytes(photo("Joan"))
    return folder


def test_folder_is_enrolled_and_files_are_recognised(
    site: ServedWebTier, page: Page, people: Path, tmp_path: Path, check_accessible: CheckAccessible
) -> None:
    """The report of each job can be filtered and downloaded."""
    page.goto("/jobs")
    expect(page.get_by_text("There are no jobs yet")).to_be_visible()
    _begin(page)
    expect(page.get_by_role("alert")).to_have_text("Choose photos, a folder or a zip first.")

    page.get_by_role("radio", name="Enrol").check()
    page.locator("#job-folder-files").set_input_files(people)
    chosen = page.locator("#job-chosen")
    expect(chosen).to_contain_text("5 files")
    expect(chosen).to_contain_text("2 people")
    expect(chosen).to_contain_text("1 file is in no folder")
    check_accessible(page)
    _begin(page)
    _await_job_page(page)
    expect(page.locator("#job-progress .job-status")).to_have_text("Done")
    expect(page.get_by_role("row", name="Grace/2.jpg")).to_contain_text("Enrolled")
    expect(page.get_by_role("row", name="loose.jpg")).to_contain_text("no folder names its person")
    assert sorted(set(site.tier.templates.owners("default").values())) == ["Ada", "Grace"]
    check_accessible(page)

    page.get_by_role("link", name="All jobs").click()
    # A file name that a spreadsheet would run, and a stranger.
    _choose(page, _file("=1+1.jpg"), _file("who.jpg", photo("Joan", take=3)), _file("notes.txt", b"no photo"))
    _begin(page)
    _await_job_page(page)
    expect(page.locator("#job-progress .job-status")).to_have_text("Done")
    assert _groups(page) == ["All 3", "Recognised 1", "Unknown 1", "Skipped 1"]
    page.get_by_role("link", name="Unknown 1").click()
    expect(page.locator("#job-rows tbody tr")).to_have_count(1)
    expect(page.get_by_role("row", name="who.jpg")).to_be_visible()

    downloads = {}
    for name, form in (("CSV", "csv"), ("JSON Lines", "jsonl")):
        with page.expect_download() as begun:
            page.get_by_role("link", name=name).click()
        begun.value.save_as(tmp_path / form)
        downloads[form] = (tmp_path / form).read_text("utf-8")
    assert [row["file"] for row in csv.DictReader(downloads["csv"].splitlines())] == [
        "'=1+1.jpg",
        "notes.txt",
        "who.jpg",
    ]
    rows = [json.loads(line) for line in downloads["jsonl"].splitlines()]
    assert [(row["file"], row.get("result")) for row in rows] == [
        ("=1+1.jpg", "Ada"),
        ("notes.txt", None),
        ("who.jpg", "Unknown"),
    ]


def test_zip_is_recognised_and_a_bad_one_is_refused_next_to_the_form(
    site: ServedWebTier, page: Page, watch: Watch, tmp_path: Path
) -> None:
    """With the sentence of the server; what is too large is not sent at all."""
    watch.expect("status of 400")
    page.goto("/jobs")
    _choose(page, _file("bad.zip", b"no zip"))
    _begin(page)
    expect(page.get_by_role("alert")).to_contain_text("the zip cannot be read")
    page.locator("#job-form").evaluate("form => { form.dataset.maxBytes = '1000'; }")
    _choose(page, _file("large.jpg", bytes(2000)))
    _begin(page)
    expect(page.get_by_role("alert")).to_contain_text("One job takes 1 kB")
    assert list(site.tier.jobs.every()) == []

    page.reload()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for take in range(3):
            archive.writestr(f"day/{take}.jpg", photo("Ada", take=take))
    page.get_by_role("radio", name="Enrol").check()
    page.get_by_role("radio", name="All photos show one person").check()
    page.locator("#job-files").set_input_files(tmp_path / "photos.zip")
    _begin(page)  # the name is missing: the browser says so
    expect(page.get_by_label("Name of the person")).to_be_focused()
    page.get_by_label("Name of the person").fill("Ada")
    _begin(page)
    _await_job_page(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Enrol 3 files for Ada")
    expect(page.locator("#job-progress .job-status")).to_have_text("Done")
    assert _groups(page) == ["All 3", "Enrolled 3"]


def test_dropped_files_are_sent_once_however_often_the_button_is_used(
    site: ServedWebTier, page: Page, watch: Watch
) -> None:
    """A second click does nothing, and a try after a lost answer gives the first job."""
    page.goto("/jobs")
    page.evaluate(
        """bytes => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
        }""",
        list(photo("Ada")),
    )
    expect(page.locator("#job-chosen")).to_contain_text("1 file")
    watch.expect("net::ERR_FAILED")

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/jobs?operation=*", lose_the_answer, times=1)
    _begin(page)
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    [job] = site.tier.jobs.every()
    page.get_by_role("button", name="Begin the job").dblclick()
    page.wait_for_url(f"**/jobs/{job.job_id}")
    assert list(site.tier.jobs.every()) == [site.tier.jobs.job(job.job_id)]


def test_upload_shows_its_progress_and_can_be_stopped(site: ServedWebTier, page: Page) -> None:
    """Nothing is left of it."""
    page.goto("/jobs")
    page.context.route("**/jobs?operation=*", lambda _: None)  # it never arrives
    _choose(page, _file("1.jpg"), _file("2.jpg"))
    _begin(page)
    sending = page.locator("#job-sending")
    expect(sending).to_contain_text("sent")
    expect(page.get_by_role("button", name="Begin the job")).to_be_disabled()
    page.get_by_role("button", name="Stop sending").click()
    expect(page.get_by_role("alert")).to_have_text("Stopped: no job was begun.")
    expect(sending).to_be_hidden()
    expect(page.locator("#job-chosen")).to_contain_text("2 files")
    assert list(site.tier.jobs.every()) == []


def test_progress_moves_and_a_job_is_cancelled(
    site: ServedWebTier, page: Page, check_accessible: CheckAccessible
) -> None:
    """The page follows the record without being loaded again, and the list does, too; the cancellation is confirmed."""
    page.goto("/jobs")
    _choose(page, *(_file(f"{number}.jpg", photo("Ada", take=number)) for number in range(8)))
    site.tier.feeder.stop()
    _begin(page)
    _await_job_page(page)
    [job] = site.tier.jobs.every()
    bar = page.locator("#job-bar")
    expect(bar).to_have_attribute("value", "0")
    job = job.next(status=JobStatus.RUNNING, started_at=job.created_at, counts={"done": 2}, outcomes={"match": 2})
    site.tier.jobs.put(job)
    expect(bar).to_have_attribute("value", "2")
    expect(page.locator("#job-progress")).to_contain_text("2 of 8 files done")
    expect(page.locator("#job-words")).to_have_text("Running: 2 of 8 files done")
    page.get_by_role("button", name="Cancel the job").click()
    dialog = page.get_by_role("dialog")
    check_accessible(page)
    dialog.get_by_role("button", name="Keep it running").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Cancel the job").click()
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#job-progress .job-status")).to_have_text("Being cancelled")
    expect(page.get_by_role("button", name="Cancel the job")).to_be_hidden()

    page.get_by_role("link", name="All jobs").click()
    shown = page.locator("#job-list .job-status")
    expect(shown).to_have_text("Being cancelled")
    cancelled = site.tier.jobs.job(job.job_id)
    assert cancelled is not None
    assert cancelled.cancel_requested
    site.tier.jobs.put(cancelled.next(status=JobStatus.CANCELLED, counts={"done": 2, "cancelled": 6}))
    expect(shown).to_have_text("Cancelled")


def test_key_begins_jobs_of_its_scope_and_sees_its_own(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch, tmp_path: Path
) -> None:
    """Without scope `enrol` there is no choice of what to do; a session that has ended leads to the sign-in."""
    (tmp_path / "1.jpg").write_bytes(photo("Ada"))
    with Client(secured_site.url, keys.texts[Scope.ENROL]) as other:
        theirs = other.jobs.create_from_files([tmp_path / "1.jpg"], operation="enrol", person="Ada").job_id
    page.goto("/jobs")
    sign_in(page, keys.texts[Scope.RECOGNISE])
    expect(page.get_by_text("There are no jobs yet")).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(0)
    _choose(page, _file("1.jpg"))
    _begin(page)
    _await_job_page(page)
    expect(page.locator("#job-progress .job-status")).to_have_text("Done")
    watch.expect("status of 404")
    page.goto(f"/jobs/{theirs}")
    expect(page.get_by_text(f"there is no job {theirs}")).to_be_visible()

    page.goto("/jobs")
    _choose(page, _file("2.jpg"))
    page.context.clear_cookies()
    watch.expect("status of 401")
    _begin(page)
    page.wait_for_url("**/sign-in**")
