"""The report from beginning to end: what is missing is trained and measured, then the notebooks and the book."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lwnb.batch import asked, grid, prepare
from lwnb.plan import facts, paramfiles, studies
from lwnb.plan.params import Params
from lwnb.records import results
from lwnb.report import book
from lwnb.report.execution import Executed, Page


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
