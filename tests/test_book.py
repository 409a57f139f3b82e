"""The report: executed once, failures named, pages kept; a book without warnings, dead links or outside requests."""

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import faults
import nbformat
import pytest
import stubs

from lwnb.base import errors
from lwnb.base.errors import ParamsError
from lwnb.plan import params
from lwnb.report import book
from lwnb.report.execution import Page, execute

pytestmark = pytest.mark.slow  # kernels are started, and a book is built


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    return stubs.report(tmp_path_factory.getbasetemp() / "stub")


def by_name(executed):
    return {(one.notebook.stem, one.page and one.page.name): one for one in executed}


def outputs(path: Path) -> str:
    cells = nbformat.read(path, 4).cells
    return "\n".join(str(output) for cell in cells for output in cell.get("outputs", []))


# --- Execution ---


def test_every_study_runs_for_every_page_and_the_others_once(stub):
    assert list(by_name(stub.executed)) == [
        ("01_bars", "two"), ("01_bars", "one"), ("02_faults", "two"), ("02_faults", "one"),
        ("00_front", None), ("99_end", None),
    ]  # fmt: skip


def test_only_the_notebook_with_the_planted_fault_fails_and_is_named(stub):
    assert {one: x.error for one, x in by_name(stub.executed).items() if x.error} == {
        ("02_faults", "two"): "in the cell '# the planted fault': KeyError: 'planted in two'"
    }
    assert "02_faults, two: FAILED in the cell '# the planted fault': KeyError: 'planted in two'" in stub.lines
    assert len(stub.lines) == len(stub.executed)


def test_parameters_arrive_as_what_they_are_and_pages_in_the_order_asked_for(stub):
    front = by_name(stub.executed)["00_front", None]
    assert "(['two', 'one'], [5e-05, 2.0])" in outputs(front.path)  # 5e-05 in YAML would have been text


def test_kernel_is_this_interpreter_whatever_kernels_are_installed(tmp_path, monkeypatch):
    """A user's own kernelspec of the same name points at a program that ends at once."""
    rogue = tmp_path / "rogue" / "kernels" / "python3"
    rogue.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "rogue", "language": "python"}
    (rogue / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "rogue"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "rogue"))
    source = stubs.notebook(tmp_path / "99_end.ipynb", "End", "import sys; sys.executable", parameters="pages = {}")
    (one,) = execute([source], [], tmp_path, lambda *_: "", progress=lambda _: None)
    assert one.error is None and repr(sys.executable) in outputs(one.path)


def test_a_notebook_is_executed_again_only_when_what_it_depends_on_changed(tmp_path):
    """Source, records, stamp and values, each changed for one notebook of two; records are asked for once."""
    paths = [stubs.notebook(tmp_path / "01_study.ipynb", "Study", "name")]
    paths.append(stubs.notebook(tmp_path / "99_end.ipynb", "End", "1", parameters="pages = {}"))
    records, read = {"page": "old", None: "old"}, []

    def executed(paths=paths, name="x"):
        page = Page("page", "Page", {"name": name})
        read.clear()

        def fingerprint(one):
            read.append(one and one.name)
            return records[read[-1]]

        done = execute(paths, [page], tmp_path, fingerprint, progress=lambda _: None)
        assert not any(one.error for one in done) and read == ["page", None]
        return [one.notebook.stem[:2] for one in done if not one.reused]

    assert executed() == ["01", "99"]
    assert executed() == []
    paths[0].write_text(paths[0].read_text().replace("What is the question?", "And now?"))
    assert executed() == ["01"]
    for name, notebook in (("page", "01"), (None, "99")):
        records[name] = "new"
        assert executed() == [notebook]
    (tmp_path / "executed" / "99_end.json").unlink()  # what an interruption leaves: a notebook without stamp
    assert executed() == ["99"]
    assert executed(paths[:1], "y") == ["01"]
    assert "'y'" in outputs(tmp_path / "executed" / "01_study" / "page.ipynb")


def test_a_page_is_executed_by_the_notebooks_that_it_names(tmp_path):
    paths = [stubs.notebook(tmp_path / f"0{i}_study.ipynb", "Study", "1") for i in (1, 2)]
    pages = [Page("all", "All", {}), Page("one", "One", {"notebooks": ["02_study"]})]
    done = execute(paths, pages, tmp_path, lambda *_: "", progress=lambda _: None)
    assert [(one.notebook.stem, one.page.name) for one in done] == [
        ("01_study", "all"), ("02_study", "all"), ("02_study", "one"),
    ]  # fmt: skip


def test_a_failed_notebook_is_tried_again(tmp_path):
    source = stubs.notebook(tmp_path / "01_study.ipynb", "Study", f"open({str(tmp_path / 'there')!r}).read()")
    errors = []
    for _ in range(2):
        (one,) = execute([source], [Page("a", "A", {})], tmp_path, lambda *_: "", progress=lambda _: None)
        errors.append(one.error)
        (tmp_path / "there").write_text("")
    assert "FileNotFoundError" in errors[0] and errors[1] is None


def test_a_killed_kernel_is_an_error_and_not_a_hang(tmp_path):
    source = stubs.notebook(
        tmp_path / "01_study.ipynb", "Study", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    (one,) = execute([source], [Page("a", "A", {})], tmp_path, lambda *_: "", progress=lambda _: None)
    assert "died" in one.error.lower()


@pytest.mark.parametrize("names", [["a", "a"], ["a/b"], ["index"], [""]])
def test_page_names_that_cannot_be_files_are_refused(tmp_path, names):
    with pytest.raises(ParamsError, match=re.escape(repr(names[-1]))):
        execute([], [Page(name, "A", {}) for name in names], tmp_path, lambda *_: "")


def test_two_reports_at_once_wait_for_each_other_and_execute_once(tmp_path):
    log = f"log = {str(tmp_path / 'log')!r}\n"
    cell = log + "import time\nopen(log, 'a').write('begins ')\ntime.sleep(1)\nopen(log, 'a').write('ends ')"
    sources = [
        stubs.notebook(tmp_path / "00_front.ipynb", "Front", "1", parameters="pages = {}"),
        stubs.notebook(tmp_path / "01_study.ipynb", "Study", cell, parameters=""),
    ]
    children = [faults.Child(faults.report, sources, tmp_path / "build", home=tmp_path) for _ in range(2)]
    lines = [child.end()[1] for child in children]
    assert (tmp_path / "log").read_text() == "begins ends "
    assert sorted("waiting for another report in build/" in said for said in lines) == [False, True]
    assert sum("used again" in line for said in lines for line in said) == 2


def test_a_build_killed_before_any_of_its_steps_leaves_a_whole_book_or_none(tmp_path):
    (source := tmp_path / "book").mkdir()
    html, seen = tmp_path / "html", set()

    def pages() -> set[str]:
        return {(html / name).read_text() for name in ("index.html", "other.html")} if html.exists() else set()

    def build(text: str, die: int = 0):
        (source / "text").write_text(text)
        return faults.Child(faults.build, source, html, home=tmp_path, die=die).end()

    die, ended = 0, None
    while ended is None:
        assert build("old") and pages() == {"old"}
        die, ended = die + 1, build("new", die + 1)
        seen.add("".join(pages()))
        assert pages() in ({"old"}, {"new"}, set())
        assert build("new") and pages() == {"new"}
        assert {path.name for path in tmp_path.iterdir()} == {"book", "html"}
    assert {"old", "new"} <= seen and die > 10


# --- The assembled book ---


def test_a_title_names_study_and_page(stub):
    titles = {page: re.search(r"<h1>(.*?)<", (stub.html / page).read_text())[1] for page in pages_of(stub)}
    assert titles["01_bars/one.html"] == "Bars: Page One"
    assert plain(titles["02_faults/two.html"]) == f"Faults: {stubs.TITLE}"
    assert titles["01_bars/index.html"] == "Bars"
    assert titles["index.html"] == "Front page"


def test_a_title_of_signs_shows_as_it_stands_wherever_a_page_is_named(stub):
    assert params.check({"title": stubs.TITLE})
    for page, places in {"01_bars/two": 4, "02_faults/index": 3}.items():
        shown = re.sub(r"<[^>]+>", "", (stub.html / f"{page}.html").read_text())
        assert plain(shown).count(stubs.TITLE) >= places, page


def plain(text: str) -> str:
    """A text of HTML without typographic apostrophes."""
    return html.unescape(text).replace("’", "'")


def test_the_failed_page_shows_its_error_and_its_neighbours_show_their_output(stub):
    failed = text_of(stub.html / "02_faults" / "two.html")
    assert "could not be made" in failed and "planted in two" in failed and "\x1b" not in failed
    assert "failed" in text_of(stub.html / "02_faults" / "index.html")
    assert "'one'" in text_of(stub.html / "02_faults" / "one.html")


def test_code_is_folded_standard_error_left_out_and_defaults_replaced(stub):
    page, text = stub.html / "01_bars" / "one.html", text_of(stub.html / "01_bars" / "one.html")
    assert page.read_text().count("hide above-input") == page.read_text().count('class="cell_input') == 3
    assert "a progress bar" in outputs(by_name(stub.executed)["01_bars", "one"].path) and "a progress bar" not in text
    assert "Show the parameters" in text and 'name = "one"' in text and 'name = "none"' not in text


def test_a_book_without_front_page_is_refused(stub, tmp_path):
    with pytest.raises(errors.BookError, match="00_"):
        book.assemble([one for one in stub.executed if one.page], tmp_path)


# --- The HTML ---


class Links(HTMLParser):
    """The addresses of a page, apart by whether the browser asks for them by itself; and the ids that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.followed, self.loaded, self.ids, self.images = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        self.ids.add(has.get("id"))
        if tag == "img":
            self.images.append(has)
        if address := has.get("src") or has.get("href") or has.get("data"):
            (self.followed if tag == "a" else self.loaded).append(address)


def pages_of(stub) -> list[str]:
    return [
        str(path.relative_to(stub.html)) for path in sorted(stub.html.rglob("*.html")) if "_static" not in path.parts
    ]


def text_of(path: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", path.read_text()))


def test_every_internal_link_and_file_is_there(stub):
    links = {stub.html / page: Links((stub.html / page).read_text()) for page in pages_of(stub)}
    assert len(links) >= 12
    for page, found in links.items():
        for address in found.followed + found.loaded:
            parts = urlsplit(address)
            if parts.scheme or address == "#":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page} points to {address}"
            if parts.fragment and target in links:
                assert unquote(parts.fragment) in links[target].ids, f"{page} points to {address}"


def test_no_page_or_style_loads_anything_from_outside(stub):
    for page in pages_of(stub):
        outside = [a for a in Links((stub.html / page).read_text()).loaded if re.match(r"(https?:)?//", a)]
        assert outside == [], page
    for style in stub.html.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style


def test_every_figure_has_a_text(stub):
    images = Links((stub.html / "01_bars" / "two.html").read_text()).images
    assert [image["alt"] for image in images if image["src"].startswith("data:")] == ["Two bars, two"]


def test_the_same_sources_are_not_built_again_and_a_warning_stops_the_build(stub, tmp_path):
    """A page with a dead link is planted; the book that was there stays."""
    index, source = tmp_path / "html" / "index.html", tmp_path / "book"
    source.mkdir()
    (source / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (source / "page.md").write_text("# Page\n")
    (source / "references.bib").write_text("")
    (source / "assets").mkdir()
    (source / "assets" / "report.css").write_text("")
    assert book.build(source, tmp_path / "html") == index
    page = tmp_path / "html" / "page.html"
    before = page.stat().st_mtime_ns
    book.build(source, tmp_path / "html")
    assert page.stat().st_mtime_ns == before
    (source / "page.md").write_text("# Page\n\n[](nowhere.md)\n")
    with pytest.raises(errors.BookError, match=r"WARNING.*nowhere"):
        book.build(source, tmp_path / "html")
    assert page.stat().st_mtime_ns == before
