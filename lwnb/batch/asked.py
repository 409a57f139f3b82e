"""What a command asks for: its pages with what is read from their images, and their runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lwnb.base import doors
from lwnb.base.errors import ParamsError
from lwnb.batch import estimates, grid, refusals
from lwnb.data import census
from lwnb.edge import protocol
from lwnb.plan import facts, params, studies
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.records import publishing, results


class Asked(NamedTuple):
    """Pages by their name, and what is ahead of their runs."""

    pages: dict[str, Params]
    ahead: estimates.Outlook

    def train(self, workers: int | None = None, scheduler: str | None = None):
        """Train what is missing, export what the pages show, and return the table of `lwnb.batch.grid.ensure`."""
        exported = {run.key: protocol.usable(p) for p in self.pages.values() for run in studies.exported(p)}
        return grid.ensure(self.ahead.runs, workers, scheduler, exported, self.ahead)

    def about(self) -> list[str]:
        """What a person should know of the pages' images, a sentence a line, each with the name of its page."""
        return [f"{name}: {text}" for name, p in self.pages.items() for text in census.sentences(p.digest)]


def ask(values: Mapping[str, dict], only: Sequence[str] | None = None) -> Asked:
    """Pages that are ready to train: their images read, their runs listed and looked up, each of it once.

    Parameters
    ----------
    values : the flat values of each page by its name, unchecked; see `lwnb.plan.paramfiles.pages`
    only : names of studies, where not all of them are wanted

    Raises
    ------
    ParamsError, DataError
        A value that cannot be, or what would stop a run: see `lwnb.batch.refusals.refuse`.
    """
    pages = pin(values)
    ahead = estimates.outlook(runs(pages, only))
    refusals.refuse(ahead.runs, ahead)
    return Asked(pages, ahead)


def pin(values: Mapping[str, dict]) -> dict[str, Params]:
    """The parameters of each page, with what `lwnb.batch.grid.pin` reads from its images."""
    return {name: grid.pin(params.check(page)) for name, page in values.items()}


def runs(pages: Mapping[str, Params], only: Sequence[str] | None = None) -> list[Run]:
    """The distinct runs of these pages, or of those of their studies that are named.

    Raises
    ------
    ParamsError
        A study that there is not, or no run at all.
    """
    names = only or list(facts.STUDIES)
    for name in names:
        doors.known(name, facts.STUDIES, "--study")
    found = studies.distinct(run for p in pages.values() for run in studies.runs(p, names))
    if not found:
        raise ParamsError(f"{', '.join(pages)}: no part in {', '.join(names)}; see their parameter notebooks")
    return found


def publish(values: Mapping[str, dict] | None, only: Sequence[str] | None, weights: bool) -> tuple[int, int]:
    """Publish the records of these pages and of what chose their learning rates, or all that are there without pages.

    With weights, the pages' own runs alone.

    Returns
    -------
    How many records were copied to `results/`, and how many were there
    """
    wanted = None if values is None else _published(pin(values), only, weights)
    records = results.every() if wanted is None else [record for record in map(results.find, wanted) if record]
    copied = publishing.publish_runs(records, weights)
    census.publish({record.run.digest for record in records})
    return len(copied), len(records) - len(copied)


def _published(pages: Mapping[str, Params], only: Sequence[str] | None, weights: bool) -> list[Run]:
    ladders = [] if weights else [studies.ladder(p, model) for p in pages.values() for model in p.models]
    return studies.distinct([*runs(pages, only), *(run for ladder in ladders for run in ladder)])


def fetch(name: str, values: dict) -> Iterator[str]:
    """Get the images of a page, and the pretrained weights that it starts from; a line for each thing that is there."""
    from lwnb.data import sets
    from lwnb.networks import states

    p = params.check(values)
    found = sets.load(studies.source(p), p.image_size)
    train, test = len(found.train.labels), len(found.test.labels)
    yield (f"{name}: {train:,} training and {test:,} test images, {len(found.classes)} classes, digest {found.digest}")
    yield from (f"{name}: {sentence}" for sentence in census.sentences(found.digest))
    for model, source in studies.published_weights(p):
        states.published(model, source)
        yield f"{name}: weights {source} of {model}"
