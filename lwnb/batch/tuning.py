"""Learning rates tuned for each network: a climb on validation,
kept in `params/tuned.yaml` with the runs that it met."""

from collections.abc import Callable
from typing import NamedTuple

import yaml

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.batch import estimates, grid, refusals
from lwnb.plan import studies, tuned
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.records import results

HEAD = (
    "# Learning rates by network, chosen on validation among those tried: written by `lwnb tune`. "
    "Tried are rates and their runs.\n"
)

START = 3
"""So many rates in the middle of a ladder are tried at first."""


class Tuned(NamedTuple):
    """What came of a climb: the rate that each network has now, None without a choice, and the runs that failed."""

    rates: dict[str, float | None]
    failed: list[Run]


def tune(name: str, p: Params, workers: int | None, scheduler: str | None, progress: Callable[[str], None]) -> Tuned:
    """Climb each network's ladder of learning rates, all networks of a page side by side, and keep what each prefers.

    The climb stops where a run fails. `progress` is called with a line before each round of training.

    Raises
    ------
    ParamsError
        The page has no rates to choose from, or somebody has written something else into the file of tuned rates.
    """
    if len(p.tune_lrs) < 2:
        advice = "try -p 'tune_lrs=[1.0e-3, 4.0e-3]'"
        raise ParamsError(f"{name}: tune_lrs: {p.tune_lrs} is nothing to choose from; {advice}")
    tuned.entries()  # or refused: before anything trains
    ladders = {model: studies.ladder(p, model) for model in p.models}
    failed: list[Run] = []
    while not failed and (runs := [run for ladder in ladders.values() for run in wanted(ladder)]):
        ahead = estimates.outlook(runs)
        refusals.refuse(runs, ahead)
        progress(ahead.line())
        grid.ensure(runs, workers, scheduler, {}, ahead)
        failed = estimates.missing(runs)
    return Tuned({model: choose(ladder) for model, ladder in ladders.items()}, failed)


def wanted(ladder: list[Run]) -> list[Run]:
    """The runs that a climb needs next: none when the best has a worse one on both sides, or the ladder ends there.

    It begins with the middle three, and goes on to the neighbours of the best. Every run of the ladder that is there
    counts, whoever asked for it.

    Parameters
    ----------
    ladder : runs that differ in nothing but the learning rate, from the lowest to the highest
    """
    scores = [_score(run) for run in ladder]
    first = max(0, (len(ladder) - START) // 2)
    if todo := [run for run, score in zip(ladder[first:][:START], scores[first:], strict=False) if score is None]:
        return todo
    best = max((i for i, score in enumerate(scores) if score), key=scores.__getitem__)
    return [ladder[i] for i in (best - 1, best + 1) if 0 <= i < len(ladder) and scores[i] is None]


def choose(ladder: list[Run]) -> float | None:
    """At the end of a climb, keep the rate with the highest validation top-1.

    Returns
    -------
    The rate; None, and nothing is written, where a run is still wanted or none of them learned
    """
    records = [record for record in map(results.find, ladder) if record]
    # by the loss alone: the test split chooses nothing
    learned = [record.run for record in records if record.metrics["learned"]]
    if wanted(ladder) or not learned:
        return None
    best = max(learned, key=_score)
    entry = {"dataset": best.dataset, "model": best.model, "lr": best.lr}
    entry["tried"] = {record.run.lr: record.run.key for record in records}
    others = [known for known in tuned.entries() if not tuned.is_of(known, ladder)]
    ordered = sorted([*others, entry], key=lambda one: (one["dataset"], one["model"], str(one["tried"])))
    disk.write(tuned.FILE, (HEAD + yaml.safe_dump(ordered, sort_keys=False)).encode())
    return best.lr


def _score(run: Run) -> tuple[float, float] | None:
    """By which a run is better than another; None without a record. One that learned nothing is below all that did."""
    if not (record := results.find(run)):
        return None
    return (record.metrics["val_top1"], -record.metrics["val_loss"]) if record.metrics["learned"] else (-1.0, 0.0)
