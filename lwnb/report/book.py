"""The report: executed notebooks and prose assembled into a book, and the book's HTML."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from lwnb.base.errors import BookError
from lwnb.base.places import CHECKOUT, home
from lwnb.report import trace
from lwnb.report.execution import WORKERS, Executed, Fingerprints, Page, digest, execute, failed_cell, is_study

PROSE = ("introduction", "methods", "data", "machines")
"""The pages of `book/` that stand before the studies, in order."""

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def report(
    pages: Sequence[Page],
    fingerprints: Fingerprints,
    out: Path | None = None,
    notebooks: Sequence[Path] | None = None,
    workers: int = WORKERS,
    progress: Callable[[str], None] = print,
) -> tuple[Path, list[Executed]]:
    """Execute the notebooks, assemble the book and build its HTML.

    The parameters are those of `lwnb.report.execution.execute`; `out` is `build/`, and `notebooks` are the checkout's,
    by default.

    Returns
    -------
    The path of `index.html`, and what became of each notebook. One that failed has an `error` and a page that shows it.
    """
    out = out or home() / "build"
    notebooks = notebooks or sorted((CHECKOUT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    with _alone(out, progress):
        executed = execute(notebooks, pages, out, fingerprints, workers, progress)
        return build(assemble(executed, out), out / "html"), executed


@contextmanager
def _alone(out: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """One report at a time in a folder; a process that dies lets go of it."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / "report.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another report in {out.name}/")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def assemble(executed: Sequence[Executed], out: Path) -> Path:
    """Write the book's sources to `out/book`: prose, executed notebooks, a chapter page a study, the table of contents.

    In the notebooks the code is folded away, and a study's title is followed by its page's.
    """
    source = out / "book"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(CHECKOUT / "book", source)
    chapters: dict[Path, list[Executed]] = {}
    for one in executed:
        chapters.setdefault(one.notebook, []).append(one)
    front = [notebook for notebook in chapters if notebook.name.startswith("00")]
    if len(front) != 1:
        raise BookError(f"the book needs one notebook named 00_… as its front page, and has {len(front)}")
    for notebook, ones in chapters.items():
        _write_chapter(source, notebook, ones)
    (source / "_toc.yml").write_text(yaml.safe_dump(_contents(chapters), sort_keys=False))
    return source


def _contents(chapters: dict[Path, list[Executed]]) -> dict:
    studies = [
        {
            "file": f"{notebook.stem}/index",
            "sections": [{"file": f"{notebook.stem}/{one.page.name}", "title": one.page.title} for one in ones],
        }
        for notebook, ones in chapters.items()
        if is_study(notebook)
    ]
    closing = [{"file": notebook.stem} for notebook in chapters if notebook.name.startswith("9")]
    parts = {
        "The question": [{"file": name} for name in PROSE],
        "The studies": studies,
        "The evidence": [*closing, {"file": "references"}],
    }
    parts = [{"caption": caption, "chapters": files} for caption, files in parts.items() if files]
    return {"format": "jb-book", "root": "index", "parts": parts}


def _write_chapter(source: Path, notebook: Path, ones: list[Executed]) -> None:
    title, question = _opening(notebook)
    if not is_study(notebook):
        name = "index" if notebook.name.startswith("00") else notebook.stem
        _write_page(source / name, ones[0], title)
        return
    lines = [f"# {title}", "", question, "", "## Pages", ""]
    for one in ones:
        _write_page(source / notebook.stem / one.page.name, one, f"{title}: {one.page.title}")
        failed = " (failed: its page shows the error)" if one.error else ""
        lines.append(f"- {{doc}}`{one.page.title} <{one.page.name}>`{failed}")
    (source / notebook.stem / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _opening(notebook: Path) -> tuple[str, str]:
    """The title of a notebook, and the rest of its first cell: the question."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"]) if cells and cells[0]["cell_type"] == "markdown" else ""
    title, _, question = text.strip().partition("\n")
    if not title.startswith("# "):
        raise BookError(f"{notebook.name}: the first cell must be Markdown that begins with '# Title'")
    return title[2:].strip(), question.strip()


def _write_page(stem: Path, one: Executed, title: str) -> None:
    stem.parent.mkdir(exist_ok=True)
    if one.error:
        stem.with_name(f"{stem.name}.md").write_text(_failure(one, title), encoding="utf-8")
        return
    notebook = json.loads(one.path.read_text(encoding="utf-8"))
    notebook["cells"] = [_fold(cell) for cell in notebook["cells"] if not _is_replaced(cell, notebook)]
    first = "".join(notebook["cells"][0]["source"]).strip()
    notebook["cells"][0]["source"] = "\n".join([f"# {title}", *first.splitlines()[1:]])
    text = json.dumps(notebook, indent=1)
    if one.page:  # in a folder of its own: the page of all runs is one level up
        text = text.replace(f'href=\\"{trace.PAGE}', f'href=\\"../{trace.PAGE}')
    stem.with_name(f"{stem.name}.ipynb").write_text(text, encoding="utf-8")


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _is_replaced(cell: dict, notebook: dict) -> bool:
    """Whether it is the cell of default parameters in a notebook that papermill gave others."""
    return "parameters" in _tags(cell) and any("injected-parameters" in _tags(c) for c in notebook["cells"])


def _fold(cell: dict) -> dict:
    if cell["cell_type"] == "code":
        what = "parameters" if "injected-parameters" in _tags(cell) else "code"
        prompts = {"code_prompt_show": f"Show the {what}", "code_prompt_hide": f"Hide the {what}"}
        cell["metadata"] |= {"tags": [*_tags(cell), "hide-input"], "mystnb": prompts}
    return cell


def _failure(one: Executed, title: str) -> str:
    """A page for a notebook that failed: what stopped it, where, and the traceback."""
    source, output = failed_cell(one.path) or ("", {"traceback": []})
    traceback = ANSI.sub("", "\n".join(output["traceback"])) or one.error
    parts = [f"# {title}", ":::{error}", "This page could not be made: its notebook stopped with an error.", ":::"]
    if source:
        parts += ["The cell that stopped:", _fence(source, "python")]
    return "\n\n".join([*parts, "The error:", _fence(traceback, "text")]) + "\n"


def _fence(text: str, language: str) -> str:
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{ticks}{language}\n{text}\n{ticks}"


def build(source: Path, html: Path) -> Path:
    """Build the book into the folder `html` by Jupyter Book, warnings being errors; the path of `index.html`.

    Where the sources are those of the last build, nothing is done. The folder is replaced only by a whole book.

    Raises
    ------
    BookError
        With the warnings of the build; the whole log stands in `book.log` beside the folder.
    """
    index, stamp_file = html / "index.html", html / "sources.sha256"
    work, old = html.with_name("_html"), html.with_name("_html_old")
    for left in (work, old):  # by a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    config = CHECKOUT / "_config.yml"
    stamp = digest([config, *sorted(file for file in source.rglob("*") if file.is_file())])
    if index.exists() and stamp_file.exists() and stamp_file.read_text() == stamp:
        return index
    options = ["--config", config, "--path-output", work, "-W", "-n", "--keep-going"]
    _jupyter_book([source, *options], html.with_name("book.log"))
    made = work / "_build" / "html"
    (made / stamp_file.name).write_text(stamp)
    if html.exists():
        html.rename(old)
    made.rename(html)
    for left in (work, old):
        shutil.rmtree(left, ignore_errors=True)
    return index


def _jupyter_book(arguments: list, log: Path) -> None:
    main = "from jupyter_book.cli.main import main; main()"  # the package has no `python -m`
    command = [sys.executable, "-c", main, "build", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )
    text = ANSI.sub("", done.stdout)
    log.write_text(text, encoding="utf-8")
    if done.returncode != 0:
        lines = text.strip().splitlines()
        faults = [line for line in lines if re.search(r"WARNING|ERROR|Error", line)][:20] or lines[-5:]
        raise BookError("\n".join(["the book could not be built:", *faults, f"The whole log: {log}"]))
