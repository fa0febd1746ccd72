"""Sign-in, refusals and sign-out in a browser, on a site that asks for keys."""

from playwright.sync_api import Page, expect

from facerec.api_keys import Scope
from tests.browser.conftest import CheckAccessible
from tests.support.browser import Watch
from tests.support.sample_site import SiteKeys
from tests.support.served_web_tier import ServedWebTier

HOSTILE = '<!doctype html><title>hostile</title><form method="post"><input name="key" value="frk_"></form>'
FORGED = f"frk_{'0' * 12}_{'A' * 43}"


def sign_in(page: Page, key: str) -> None:
    """Enter a key on the page that is open, with the keyboard alone."""
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(key)
    page.keyboard.press("Enter")


def path_of(page: Page) -> str:
    """The path that the browser shows."""
    return str(page.evaluate("location.pathname + location.search"))


def test_person_signs_in_and_out(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch, check_accessible: CheckAccessible
) -> None:
    """A wrong key is refused beside its field; the right one leads to the page that was asked for."""
    page.goto("/people?collection=default")
    assert path_of(page).startswith("/sign-in?next=")
    check_accessible(page)
    watch.expect("status of 401")
    sign_in(page, FORGED)
    field = page.get_by_label("API key")
    expect(page.get_by_role("alert")).to_contain_text("this API key is wrong")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_value("")
    check_accessible(page)

    page.get_by_role("button", name="Show").click()
    expect(field).to_have_attribute("type", "text")
    field.focus()
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/people?collection=default")
    assert [cookie["httpOnly"] for cookie in page.context.cookies()] == [True]
    assert page.evaluate("document.cookie") == ""

    with page.expect_navigation(url="**/sign-in"):
        page.get_by_role("button", name="Sign out").click()
    assert page.context.cookies() == []
    page.go_back()
    page.wait_for_url("**/sign-in?next=**")


def test_key_sees_what_its_scope_allows(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch, check_accessible: CheckAccessible
) -> None:
    """The navigation has no other view, and the address of one is refused with the scope that is missing."""
    page.goto("/")
    sign_in(page, keys.texts[Scope.ENROL])
    page.wait_for_url("**/people")
    expect(page.get_by_role("navigation").get_by_role("link", name="Fleet")).to_have_count(0)
    watch.expect("status of 403")
    page.goto("/fleet")
    expect(page.get_by_role("main")).to_contain_text("lacks the scope admin")
    expect(page.get_by_role("main")).to_contain_text("facerec keys create")
    check_accessible(page)
    page.get_by_role("link", name="Sign in with another key").click()
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/")
    page.goto("/fleet")
    expect(page.get_by_role("navigation").get_by_role("link", name="Fleet")).to_have_count(1)


def test_session_that_ends_at_work_leads_back_to_the_page(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch
) -> None:
    """A request of a script opens the sign-in, which says why, and leads back."""
    page.goto("/people?collection=default")
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/people?collection=default")
    (cookie,) = page.context.cookies()
    secured_site.tier.access.sign_out(cookie["value"])
    watch.expect("status of 401")
    with page.expect_navigation(url="**/sign-in?**"):
        page.evaluate("void facerec.fetch('/people')")
    expect(page.get_by_role("status").first).to_contain_text("Your session has ended")
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/people?collection=default")


def test_page_of_an_earlier_sign_in_says_that_it_must_be_loaded_again(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch
) -> None:
    """Its token is that of a session that has ended."""
    page.goto("/people")
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/people")
    other = page.context.new_page()
    other.goto("/sign-in")
    sign_in(other, keys.texts[Scope.ADMIN])
    other.wait_for_url("**/")
    watch.expect("status of 403")
    watch.expect("403 from /sign-out")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#toast")).to_contain_text("reload the page")
    page.reload()
    with page.expect_navigation(url="**/sign-in"):
        page.get_by_role("button", name="Sign out").click()


def test_page_of_another_origin_cannot_use_the_session(
    secured_site: ServedWebTier, keys: SiteKeys, page: Page, watch: Watch
) -> None:
    """On another port of this host, to which the browser sends the cookie."""
    page.goto("/people")
    sign_in(page, keys.texts[Scope.ADMIN])
    page.wait_for_url("**/people")
    page.context.route("http://127.0.0.1:9/**", lambda route: route.fulfill(content_type="text/html", body=HOSTILE))
    hostile = page.context.new_page()
    hostile.goto("http://127.0.0.1:9/")
    watch.expect("status of 403")
    for path in ("/sign-out", "/sign-in"):
        with hostile.expect_response(f"{secured_site.url}{path}") as refused:
            hostile.evaluate(
                "(url) => { document.forms[0].action = url; document.forms[0].submit(); }", f"{secured_site.url}{path}"
            )
        hostile.wait_for_url(f"{secured_site.url}{path}")
        assert refused.value.status == 403
        assert "facerec_session=" in refused.value.request.all_headers()["cookie"]
        hostile.goto("http://127.0.0.1:9/")
    page.reload()
    assert path_of(page) == "/people"
