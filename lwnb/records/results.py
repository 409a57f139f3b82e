"""Finished runs: saved, found, loaded."""

import errno
import io
import math
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lwnb.base import disk
from lwnb.base.errors import ParamsError
from lwnb.base.places import home, shelves
from lwnb.plan.run import KEY, Run, Source
from lwnb.records import failures, folders
from lwnb.records.folders import CONVERSIONS, FILES, SOURCE, WEIGHTS


@dataclass(frozen=True)
class Record:
    """A finished run on disk."""

    run: Run
    folder: Path

    @cached_property
    def metrics(self) -> dict:
        """What came out: accuracies 0..1, counts; no timing."""
        return disk.read_json(self.folder / "metrics.json")

    @cached_property
    def environment(self) -> dict:
        """Where it ran: versions, hardware, threads, commit, times in seconds."""
        return disk.read_json(self.folder / "environment.json")

    @cached_property
    def history(self):
        """One row an epoch: learning rate, losses, accuracies (a pandas DataFrame)."""
        import pandas as pd

        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def predictions(self) -> dict:
        """Arrays over the test images in canonical order: labels (N,), top5 (N, 5), confidence (N,);
        confusion (K, K)."""
        import numpy as np

        with np.load(self.folder / "predictions.npz", allow_pickle=False) as file:
            return dict(file)

    @cached_property
    def guess_top1(self) -> float:
        """The test top-1, 0..1, of always guessing the largest class of the training images.

        Records from before it was stored have the share of the largest class of the test images, which is never lower.
        """
        if "guess_top1" in self.metrics:
            return self.metrics["guess_top1"]
        import numpy as np

        labels = self.predictions["labels"]
        return float(np.unique(labels, return_counts=True)[1].max() / len(labels))

    @cached_property
    def shortfall(self) -> str:
        """Why the network did not learn, in words; empty where it did.

        It learned if its training loss fell below a constant guess's, and if its test top-1 is better than always
        guessing the largest class: see `better`. The test split may judge here, for this is a statement about the
        number that is shown, and chooses nothing: learning rates are tuned without it. Validation would flatter, since
        it has chosen the epoch, and it often has few images.
        """
        top1, n = self.metrics["top1"], self.metrics["n_test"]
        if not self.metrics["learned"]:
            return "its loss stayed at that of a constant guess"
        return "" if better(top1, n, self.guess_top1) else no_better(top1, n, self.guess_top1)

    @property
    def learned(self) -> bool:
        """Whether the network learned anything that shows on the test images: see `shortfall`."""
        return not self.shortfall

    @cached_property
    def conversions(self) -> list[dict]:
        """What its exported and INT8 networks do on the same test images, see `lwnb.edge.convert.convert`;
        often nothing."""
        file = self.folder / CONVERSIONS
        return disk.read_json(file)["rows"] if file.exists() else []

    @property
    def published(self) -> bool:
        """Whether it lies among published records: trained by whoever published it, not here."""
        return any(self.folder.is_relative_to(place) for place in shelves()[1:])

    @property
    def weights(self) -> Path | None:
        """The weights, where this machine has them; of published records only those of a pretrained source carry
        some."""
        file = self.folder / WEIGHTS
        return file if file.exists() else None


def better(top1: float, n: int, guess: float) -> bool:
    """Whether top-1 on `n` test images is better than a guess's: Wilson's 95 % interval lies above the guess's rate.

    That interval holds the rates which the score test does not refuse, so the test is what is computed (Wilson 1927).
    """
    return n * (top1 - guess) > 1.959964 * math.sqrt(n * guess * (1 - guess))


def no_better(top1: float, n: int, guess: float) -> str:
    """What is said where `better` is false."""
    return f"top-1 {top1:.3f} on {n:,} test images is no better than always guessing the largest class, {guess:.3f}"


def prepare() -> None:
    """Make `runs/`, so that it is known before anything trains whether a record can be kept there.

    Raises
    ------
    OSError
        With the folder in which nothing can be written.
    """
    disk.make(place := home() / "runs")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def find(run: Run) -> Record | None:
    """The record of a finished run, from the first place that has it; see `lwnb.base.places.shelves`."""
    places = (place / folders.inside(run) for place in shelves())
    return next((Record(run, place) for place in places if (place / "metrics.json").exists()), None)


def find_key(key: str) -> Record | None:
    """The record with this key, whatever its data set and network; its folder's name is all that is looked at."""
    places = shelves() if re.fullmatch(KEY, key) else []
    files = (file for place in places for file in place.glob(f"*/*/{key}/metrics.json"))
    return next((_loaded(file.parent) for file in files), None)


def _loaded(place: Path) -> Record:
    """The record in a folder; its run knows where its images lay, if it was trained on this machine."""
    source = disk.read_json(place / SOURCE) if (place / SOURCE).exists() else None
    return Record(Run(**disk.read_json(place / "run.json"), source=source and Source(**source)), place)


def of_key(key: str) -> Record:
    """The record with a key that a person has named.

    Raises
    ------
    ParamsError
        There is none.
    """
    if record := find_key(key):
        return record
    raise ParamsError(f"{key}: no run has this key; lwnb runs lists those that are there")


def learned(runs: Iterable[Run]) -> list[Record]:
    """The records of these runs that are there and learned, in the order of the runs."""
    return [record for record in map(find, runs) if record and record.learned]


def every() -> list[Record]:
    """All finished runs, those of this home and published ones, each once, sorted by folder."""
    found = {}
    for place in reversed(shelves()):
        for file in sorted(place.glob("*/*/*/metrics.json")):
            if not file.parent.name.endswith(".part"):
                found[file.parent.name] = _loaded(file.parent)
    return [found[key] for key in sorted(found, key=lambda k: found[k].folder)]


def save(run: Run, metrics: dict, history: list[dict], predictions: dict, environment: dict, weights: bytes) -> Record:
    """Write a finished run: aside, synced, and renamed, so that a folder with `metrics.json` is whole.

    Parameters
    ----------
    predictions : dict of numpy arrays, as `Record.predictions` returns them
    weights : the bytes of a safetensors file
    """
    import numpy as np
    import pandas as pd

    arrays = io.BytesIO()
    np.savez_compressed(arrays, **predictions)
    files = {
        "run.json": disk.json_bytes(run.model_dump()),
        "history.csv": pd.DataFrame(history).to_csv(index=False).encode(),
        "predictions.npz": arrays.getvalue(),
        "environment.json": disk.json_bytes(environment),
        WEIGHTS: weights,
        "metrics.json": disk.json_bytes(metrics),
    }
    if run.source:
        files[SOURCE] = disk.json_bytes(run.source.model_dump())
    return store(run, files)


def store(run: Run, files: dict[str, bytes]) -> Record:
    """Write a record's files aside, `metrics.json` last, and rename their folder."""
    for name in sorted(files, key="metrics.json".__eq__):
        disk.write(folders.part(run) / name, files[name])
    return finish(run)


def finish(run: Run) -> Record | None:
    """Rename the folder of a run whose files are all there, as a kill may have left it; None where some are missing.

    `metrics.json` is written last: where it is, the others are. What a kill left of a file half-written is removed.
    """
    aside = folders.part(run)
    for torn in aside.glob("*.tmp*"):
        torn.unlink()
    if not (aside / "metrics.json").exists():
        return None
    for file in aside.iterdir():  # the checkpoint, and why an earlier try failed
        if file.name not in (*FILES, SOURCE, WEIGHTS, CONVERSIONS):
            file.unlink()
    failures.unwritten.pop(aside, None)
    return Record(run, place(aside, folders.folder(run)))


def place(aside: Path, final: Path) -> Path:
    """Give a whole folder its name; what stood there stops being a record before anything else of it goes."""
    disk.sync_folder(aside)
    (final / "metrics.json").unlink(missing_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    disk.sync_folder(final.parent)
    return final


def pack(record: Record) -> dict[str, bytes]:
    """The files of a record by name, for `store` on another machine."""
    return {file.name: file.read_bytes() for file in record.folder.iterdir()}


def status(run: Run) -> str:
    """'done', 'did not learn' (finished, see `Record.shortfall`), 'failed', 'interrupted' or 'missing'."""
    return status_of(run, find(run))


def status_of(run: Run, record: Record | None) -> str:
    if record:
        return "done" if record.learned else "did not learn"
    return "failed" if failures.failure(run) else "interrupted" if folders.part(run).exists() else "missing"


def save_conversions(record: Record, rows: list[dict]) -> None:
    """Keep the rows of `lwnb.edge.convert.convert` with a record."""
    disk.write(record.folder / CONVERSIONS, disk.json_bytes({"rows": rows}))
    record.__dict__.pop("conversions", None)
