"""Learning rates tuned for each network: a climb on validation, kept in `params/tuned.yaml` with the runs that it met."""

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from lwnb import disk, results
from lwnb.params import CHECKOUT, ParamsError, Run, load_yaml

FILE = CHECKOUT / "params" / "tuned.yaml"

HEAD = "# Learning rates by network, chosen on validation among those tried: written by `lwnb tune`. Tried are rates and their runs.\n"

START = 3
"""So many rates in the middle of a ladder are tried at first."""


def chosen(ladder: list[Run]) -> float | None:
    """The learning rate that runs of this ladder have chosen; None where none were tried yet."""
    return entry["lr"] if (entry := _entry(ladder)) else None


def tried(ladder: list[Run]) -> list[float]:
    """The rates among which `chosen` was chosen, from the lowest to the highest."""
    return sorted(entry["tried"]) if (entry := _entry(ladder)) else []


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
    others = [known for known in _entries() if not _of(known, ladder)]
    ordered = sorted([*others, entry], key=lambda one: (one["dataset"], one["model"], str(one["tried"])))
    disk.write(FILE, (HEAD + yaml.safe_dump(ordered, sort_keys=False)).encode())
    return best.lr


def _score(run: Run) -> tuple[float, float] | None:
    """By which a run is better than another; None without a record. One that learned nothing is below all that did."""
    if not (record := results.find(run)):
        return None
    return (record.metrics["val_top1"], -record.metrics["val_loss"]) if record.metrics["learned"] else (-1.0, 0.0)


def _entry(ladder: list[Run]) -> dict | None:
    return next((entry for entry in _entries() if _of(entry, ladder)), None)


def _of(entry: dict, ladder: list[Run]) -> bool:
    return set(entry["tried"].values()) <= {run.key for run in ladder}


def _entries() -> list[dict]:
    """The file's entries as plain dictionaries; none without a file.

    Raises
    ------
    ParamsError
        Somebody has written something else into it.
    """
    try:
        found = load_yaml(FILE) if FILE.exists() else None
        return [entry.model_dump() for entry in _ENTRIES.validate_python([] if found is None else found)]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        advice = "mend it, or remove the file: `lwnb tune` writes it again"
        raise ParamsError(
            f"{FILE}: {where}: {str(first['input'])[:60]!r} is not possible: {first['msg']}; {advice}"
        ) from None


class _Entry(BaseModel, extra="forbid"):
    dataset: str
    model: str
    lr: float
    tried: dict[float, str]


_ENTRIES = TypeAdapter(list[_Entry])
