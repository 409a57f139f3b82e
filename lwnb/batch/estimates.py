"""Which runs are missing, and how long they would take."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from lwnb.plan.facts import NETWORKS
from lwnb.plan.run import Run
from lwnb.records import machine, results


class Outlook(NamedTuple):
    """What is ahead of some runs: looked up once, by `outlook`, and handed on."""

    runs: list[Run]  # each once
    missing: list[Run]  # those that must be trained, sources first
    seconds: dict[str, float | None]  # their training time by their key, see `estimate`

    def line(self) -> str:
        """How many runs are there, how many will train, and for how long."""
        known = [cost for cost in self.seconds.values() if cost is not None]
        rest = f", and {len(self.seconds) - len(known)} without an estimate" if len(known) < len(self.seconds) else ""
        time = f", about {_clock(sum(known))}{rest}" if self.missing else ""
        here = len(self.runs) - len(self.missing)
        return f"{len(self.runs)} runs: {here} are there, {len(self.missing)} to train{time}."


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def outlook(runs: Iterable[Run]) -> Outlook:
    """Which of these runs are missing, and how long they would take."""
    known = {run.key: run for run in runs}
    todo = missing(known.values())
    return Outlook(list(known.values()), todo, dict(zip([run.key for run in todo], estimate(todo), strict=True)))


def missing(runs: Iterable[Run]) -> list[Run]:
    """The runs that must be trained, sources first: those without a record, and sources whose weights are not here."""
    known, todo = {run.key: run for run in runs}, {}

    def need(run: Run, weights: bool = False) -> None:
        if run.key in todo or is_here(run, weights):
            return
        if run.parent in known:
            need(known[run.parent], weights=True)
        todo[run.key] = run

    for run in known.values():
        need(run)
    return list(todo.values())


def is_here(run: Run, weights: bool) -> bool:
    record = results.find(run)
    return bool(record and (record.weights or not weights))


def estimate(runs: list[Run]) -> list[float | None]:
    """Training time of each run in seconds of this whole machine: of many runs side by side,
    the sum is the time of all.

    From this machine's runs of the same network, image size and output stride, frozen or not; else of the same network;
    else the speed that its row in `NETWORKS` has. Long runs count by their length, since short ones are slowed by what
    is not training.
    """
    if not runs:
        return []  # and no record is read
    spent, done, here = defaultdict(float), defaultdict(float), machine.machine()
    for record in results.every():
        if not record.published and _made_on(here, about := record.environment):
            share = about["threads"] / about["machine"]["cores"] if about["device"] == "cpu" else 1
            for like in (_shape(record.run), (record.run.model,)):
                spent[like] += about["train_seconds"] * share
                done[like] += _work(record.run, record.metrics["n_train"])
    known = {(model,): 1 / row.speed for model, row in NETWORKS.items() if row.speed}
    known |= {like: spent[like] / done[like] for like in done}
    paces = [known.get(_shape(run), known.get((run.model,))) for run in runs]
    return [pace * _work(run) if pace and _work(run) else None for pace, run in zip(paces, runs, strict=True)]


def _made_on(machine: dict, about: dict) -> bool:
    return all(about["machine"].get(part) == machine[part] for part in ("cpu", "instructions", "cores"))


def _shape(run: Run) -> tuple:
    return run.model, run.image_size, run.output_stride, run.freeze


def _work(run: Run, images: int = 0) -> float:
    """Images that pass through the network in training, in units of one image of 32 px at output stride 32."""
    size = run.train_size or (run.source.pool_train if run.source else 0)
    return run.epochs * (images or size) * (run.image_size / 32) ** 2 * (32 / run.output_stride) ** 2


def plan_table(runs: list[Run], ahead: Outlook | None = None):
    """A DataFrame with a row a run: key, the fields in which the runs differ, status, and estimated seconds.

    `ahead` is their outlook, where it is known.
    """
    import pandas as pd

    rows = [run.model_dump() for run in runs]
    for row in rows:
        if row["split_seed"] == row["seed"]:
            row["split_seed"] = None  # said once
    varying = [name for name in rows[0] if len({repr(row[name]) for row in rows}) > 1 or name == "model"]
    frame = pd.DataFrame([{name: row[name] for name in varying} for row in rows])
    if "digest" in frame:
        frame["digest"] = frame["digest"].str[:12]  # as long as a key
    frame.insert(0, "key", [run.key for run in runs])
    frame["status"] = [results.status(run) for run in runs]
    seconds = (ahead or outlook(runs)).seconds
    frame["estimate_s"] = [seconds.get(run.key, 0.0) for run in runs]
    return frame
