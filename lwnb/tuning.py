"""Learning rates tuned for each network: chosen on validation, kept in `params/tuned.yaml` with the runs that chose them."""

import yaml

from lwnb import disk, results
from lwnb.params import CHECKOUT, Run

FILE = CHECKOUT / "params" / "tuned.yaml"

HEAD = "# Learning rates by network, chosen on validation among those tried: written by `lwnb tune`. Tried are rates and their runs.\n"


def chosen(runs: list[Run]) -> float | None:
    """The learning rate that exactly these runs have chosen; None where they were not tried together yet."""
    keys = {run.key for run in runs}
    return next((entry["lr"] for entry in _entries() if set(entry["tried"].values()) == keys), None)


def choose(runs: list[Run]) -> float | None:
    """Of finished runs that differ in nothing but the learning rate, keep the rate with the highest validation top-1.

    Returns
    -------
    The rate; None, and nothing is written, where a run has no record or none of them learned
    """
    records = [results.find(run) for run in runs]
    learned = [record for record in records if record and record.metrics["learned"]]
    if not all(records) or not learned:
        return None
    best = max(learned, key=lambda record: (record.metrics["val_top1"], -record.metrics["val_loss"])).run
    tried = {run.lr: run.key for run in runs}
    entry = {"dataset": best.dataset, "model": best.model, "lr": best.lr, "tried": tried}
    others = [known for known in _entries() if set(known["tried"].values()) != set(tried.values())]
    ordered = sorted([*others, entry], key=lambda one: (one["dataset"], one["model"], str(one["tried"])))
    disk.write(FILE, (HEAD + yaml.safe_dump(ordered, sort_keys=False)).encode())
    return best.lr


def _entries() -> list[dict]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8")) or [] if FILE.exists() else []
