"""The book in a browser: nothing is asked of the network, figures are visible, mathematics is set."""

from pathlib import Path

import pytest
import stubs

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    return stubs.report(tmp_path_factory.getbasetemp() / "stub")


@pytest.fixture
def visit(browser, stub):
    """Open a page of the book; what it asked for and what went wrong stand in `page.asked` and `page.wrong`."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("requestfailed", lambda request: page.wrong.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)

    def visit(name: str):
        page.goto((stub.html / name).as_uri(), wait_until="load")
        page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")
        return page

    yield visit
    page.close()


PAGES = ["index", "introduction", "methods", "data", "references", "99_end", "search"]
PAGES += [f"{study}/{page}" for study in ("01_bars", "02_faults") for page in ("index", "one", "two")]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_nothing_of_the_network_and_has_no_error(visit, name):
    page = visit(f"{name}.html")
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert len(page.asked) > 5  # the listener hears: styles and scripts are files
    assert page.wrong == []
    assert page.locator("h1:visible").count() == 1


def test_figures_are_visible_with_a_text(visit):
    figure = visit("01_bars/one.html").locator("div.cell_output img")
    assert figure.count() == 1 and figure.is_visible()
    assert figure.evaluate("image => image.naturalWidth") > 0 and figure.get_attribute("alt") == "Two bars, one"
    assert figure.bounding_box()["width"] > 300


def test_mathematics_is_set(visit):
    page = visit("01_bars/one.html")
    assert page.locator("mjx-container").count() == 2
    glyphs = page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family))"
    )
    assert any("MJX" in family for family in glyphs)


def test_a_wide_table_scrolls_inside_its_cell(visit):
    page = visit("01_bars/one.html")
    table = page.locator("div.cell_output table")
    assert table.bounding_box()["width"] > page.locator("article").bounding_box()["width"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_code_opens_at_a_click(visit):
    page = visit("01_bars/one.html")
    code = page.locator("div.cell_input").nth(1)
    assert not code.is_visible()
    page.get_by_text("Show the code").first.click()
    assert code.is_visible()
