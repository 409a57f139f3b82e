"""The report from beginning to end: what is missing is trained and measured, then the notebooks and the book; and the
opening of the README."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.batch import asked, grid, prepare
from lwnb.evidence import deployed
from lwnb.plan import facts, paramfiles, params, studies
from lwnb.plan.columns import COLUMNS, guessed, number
from lwnb.plan.facts import name
from lwnb.plan.params import Params
from lwnb.records import costs, results
from lwnb.report import book, figures, findings, words
from lwnb.report.execution import Executed, Page

BEGIN, END = "<!-- made by `lwnb readme` -->\n", "<!-- end -->"

FIGURE = "book/assets/answer.svg"


class Report(NamedTuple):
    """A report: its first page, the table of all runs that it asked for, and what became of each notebook."""

    index: Path
    runs: pd.DataFrame
    executed: list[Executed]

    @property
    def broken(self) -> list[Executed]:
        """The notebooks that failed."""
        return [one for one in self.executed if one.error]


def published() -> dict[str, dict]:
    """The flat values of the published pages by name, which a report shows where no page is asked for."""
    return paramfiles.pages(facts.PUBLISHED)[0]


def report(
    values: Mapping[str, dict],
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
    executed: Callable[[str], None] = print,
) -> Report:
    """Train and measure what no record holds yet, execute the notebooks and build the book.

    Runs and notebooks that fail are in what is returned, and their pages say so.

    Parameters
    ----------
    values : the flat values of each page by its name, see `lwnb.plan.paramfiles.pages`
    workers, scheduler : who trains, see `lwnb.batch.grid.ensure`
    progress : called with a line about training and measuring, now and then
    executed : called with a line for each notebook that is done

    Raises
    ------
    ParamsError, DataError
        What would stop a run, before anything trains.
    BookError
        The book cannot be built.
    """
    wanted = asked.ask(values)
    progress(wanted.ahead.line())
    runs = wanted.train(workers, scheduler)
    for p in wanted.pages.values():
        if shown := studies.exported(p):
            prepare.prepare(p, shown, progress)
        prepare.time_eager(studies.architectures(p))
    chapters = [
        Page(name, p.title, values[name] | p.model_dump(include=set(grid.PINNED))) for name, p in wanted.pages.items()
    ]
    index, done = book.report(chapters, lambda page: _fingerprint(wanted.pages, page), progress=executed)
    return Report(index, runs, done)


def _fingerprint(pages: Mapping[str, Params], page: Page | None) -> str:
    """A hash of what the notebooks of a page read; of all pages also which runs there are, as claims look further."""
    known = [] if page else [record.run.key for record in results.every()]
    names = [page.name] if page else list(pages)
    return hashlib.sha256(json.dumps([known, *(grid.fingerprint(pages[name]) for name in names)]).encode()).hexdigest()


def pages() -> list[Params]:
    """The published pages, in the order of the README's columns."""
    return [params.check(values) for values in published().values()]


def frames(pages: Sequence[Params]) -> list[pd.DataFrame]:
    """`lwnb.report.findings.networks` of each page, on the device with the most records for it: the same on every
    machine."""
    timings = costs.timings_table()
    return [findings.networks(p, timings, deployed.most(deployed.of_page(p, timings))) for p in pages]


def opening(pages: Sequence[Params], frames: Sequence[pd.DataFrame]) -> str:
    """A figure and a table of these pages in Markdown, and beneath them what they rest on: seeds, images, budget,
    machine.

    `frames` are those of the pages; files and latencies are those of the first.
    """
    costs = frames[0].set_index("model")[["parameters", "macs", "int8_mb", "fp32_ms", "int8_ms"]]
    table = pd.DataFrame({"network": costs.index.map(name)}, index=costs.index)
    for p, frame in zip(pages, frames, strict=True):
        rows = frame.dropna(subset=["top1"]).set_index("model").itertuples()
        table[f"top-1, {p.title}"] = pd.Series({row.Index: _rate(row) for row in rows}, dtype=object)
    for column, values in costs.items():
        table[COLUMNS[column].label] = [number(value, COLUMNS[column]) for value in values]
    rows = [list(table), ["---"] * len(table.columns), *table.fillna("–").to_numpy().tolist()]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    basis = [_basis(p, frame) for p, frame in zip(pages, frames, strict=True)]
    alt = f"Test top-1 on {pages[0].title} against the size of the INT8 file and the latency in fp32"
    short = findings.short(frames[0])
    opened = f"{pages[0].title}. {words.sentence(short) if short else ''}"
    parts = [opened, f"![{alt}]({FIGURE})", "\n".join(lines), "\n".join(basis), _costs(pages[0], frames[0])]
    return "\n\n".join(parts) + "\n"


def _rate(row) -> str:
    return f"{row.top1:.3f} ({row.interval}{guessed(row.guess_top1, row.macro_f1, row.num_classes)})"


def _basis(p: Params, frame: pd.DataFrame) -> str:
    known = frame.dropna(subset=["top1"])
    seeds = sorted({int(count) for count in known["seeds"]})
    records = [record for record in map(results.find, studies.architectures(p)) if record]
    said = (
        f"- {p.title}: {int(frame['n_train'].max()):,} training, {int(frame['n_val'].max()):,} validation and "
        f"{int(frame['n_test'].max()):,} test images at {p.image_size} px, {' or '.join(map(str, seeds))} "
        f"seed{'s' * (seeds != [1])}, {p.epochs} epochs from scratch at output stride "
        f"{p.output_stride}, budget `{p.budget}`{words.made(**findings.made(records))}."
    )
    return " ".join([said, *map(words.sentence, findings.absent(p))])


def _costs(p: Params, frame: pd.DataFrame) -> str:
    return (
        "In brackets the 95 % interval: Wilson's over the test images or Student's t over the seeds, whichever reaches "
        f"further. MACs, files and latencies are those of the networks for {p.title} at output stride "
        f"{p.output_stride}: {facts.RUNTIMES[facts.REFERENCE].title}, one image on one thread of "
        f"{frame['device'].iloc[0]}. Another output stride has other costs, and another device ranks the networks "
        "otherwise; `make report` shows every run, and what these cannot say."
    )


def readme(file: Path = CHECKOUT / "README.md") -> None:
    """Put `opening` between its two marks in the README, and its figure beside the book's.

    Raises
    ------
    ParamsError
        No page is published, or the README has no such marks; nothing is written.
    """
    text, shown = file.read_text(encoding="utf-8"), pages()
    if not shown:
        raise ParamsError(
            "no page is published: lwnb.plan.facts.PUBLISHED names none whose every run stands in results/"
        )
    if BEGIN not in text or END not in text:
        raise ParamsError(f"{file}: has no lines {BEGIN.strip()!r} and {END!r} for the opening to stand between")
    found = frames(shown)
    middle = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    figure = figures.costs(found[0], ["int8_mb", "fp32_ms"])
    disk.write(file.parent / FIGURE, figures.svg(figure))
    disk.write(file, middle.sub(lambda _: opening(shown, found), text).encode())
