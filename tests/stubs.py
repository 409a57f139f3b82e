"""A small book of stub notebooks, built once for the tests of the book and of the browser."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nbformat import v4

from lwnb.report import book
from lwnb.report.execution import Executed, Page

FIGURE = """
import base64, html, io
import matplotlib, matplotlib.pyplot as plt, pandas as pd
from IPython.display import HTML, SVG, Markdown, display
figure, axis = plt.subplots()
axis.bar(["one", "two"], [1, scale])
stream = io.BytesIO()
figure.savefig(stream, format="svg")
plt.close(figure)
code = base64.b64encode(stream.getvalue()).decode()
display(HTML(f'<img alt="Two bars, {html.escape(name)}" src="data:image/svg+xml;base64,{code}">'))
"""
TABLE = """
import sys
print("a progress", "bar", file=sys.stderr)
pd.DataFrame({f"column {i}": [0.123456789] * 3 for i in range(14)})
"""
FAULT = """# the planted fault
if name == "two":
    raise KeyError(f"planted in {name}")
"""
TITLE = "Two: it's 5 % & my_photos, C# (new) ~~+^=;?/@!"
"""What no page's title is refused for."""

PAGES = [
    Page("two", TITLE, {"name": "two", "scale": 5e-05}),  # not in the order of the alphabet
    Page("one", "Page One", {"name": "one", "scale": 2.0}),
]


class Stub(NamedTuple):
    """What `lwnb.report.book.report` made of the stub notebooks, and what it said."""

    index: Path
    executed: list[Executed]
    lines: list[str]
    notebooks: list[Path]

    @property
    def html(self) -> Path:
        return self.index.parent


def notebook(path: Path, title: str, *cells: str, parameters: str = 'name = "none"\nscale = 1.0') -> Path:
    """Write a notebook: title and question, parameters,
    and code cells (Markdown, where they begin with '#' and a blank)."""
    question = v4.new_markdown_cell(
        f"# {title}\n\n*What is the question?* It has $\\alpha$ and a work {{cite}}`he2016`."
    )
    settings = v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    rest = [v4.new_markdown_cell(c) if c.startswith("## ") else v4.new_code_cell(c.strip()) for c in cells]
    path.write_text(json.dumps(v4.new_notebook(cells=[question, settings, *rest])))
    return path


def notebooks(folder: Path) -> list[Path]:
    """A front page, two studies (the second fails on page 'two') and a closing page."""
    heading = "from IPython.display import Markdown\nMarkdown('## A computed heading\\n\\nand **words**')"
    seen = "list(pages), [p['scale'] for p in pages.values()]"
    return [
        notebook(folder / "00_front.ipynb", "Front page", heading, seen, parameters="pages = {}"),
        notebook(folder / "01_bars.ipynb", "Bars", FIGURE, "## Table", TABLE, "## Sum\n\n$$\\sum_i x_i$$"),
        notebook(folder / "02_faults.ipynb", "Faults", FAULT, "display(name)"),
        notebook(folder / "99_end.ipynb", "The end", "import sys; sys.executable", parameters="pages = {}"),
    ]


@cache
def report(folder: Path) -> Stub:
    """The stub book in a folder; called again with it, the same book."""
    folder.mkdir()
    sources, lines = notebooks(folder), []
    index, executed = book.report(PAGES, lambda *_: "records", folder / "build", sources, progress=lines.append)
    return Stub(index, executed, lines, sources)
