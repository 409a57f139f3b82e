"""Save and load one run, provenance, the tidy table of all runs."""

import errno
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import psutil
from filelock import FileLock

from lwnb import __version__, disk
from lwnb.params import CHECKOUT, ParamsError, Run, home, shelves

PUBLISHED = ("run.json", "metrics.json", "history.csv", "predictions.npz", "environment.json")
"""The files of a record that `publish` copies: small, and no weights."""

WEIGHTS = "weights.safetensors"

CONVERSIONS = "conversions.json"
"""What the exported and the INT8 networks of a run do on its test images; joins a record when it is known."""

ACCURACIES = (
    "top1", "top5", "macro_f1", "ece", "loss", "train_top1", "train_loss", "val_top1", "val_loss", "best_epoch",
)  # fmt: skip
"""The metrics that a run which did not learn has no use for; its costs stand all the same."""

COUNTS = ("n_train", "n_val", "n_test", "num_classes", "guess_top1", "epochs_run", "parameters", "macs", "size_bytes")
"""The counts and costs of a run, and a guess's top-1: with the accuracies, the columns that every table of runs has."""

MEASURED = ("train_seconds", "epoch_seconds", "images_per_second", "wall_seconds", "started", "other_load")
"""The fields of a run's environment that stand in the table of runs."""


@dataclass(frozen=True)
class Record:
    """A finished run on disk."""

    run: Run
    folder: Path

    @cached_property
    def metrics(self) -> dict:
        """What came out: accuracies 0..1, counts; no timing."""
        return _json(self.folder / "metrics.json")

    @cached_property
    def environment(self) -> dict:
        """Where it ran: versions, hardware, threads, commit, times in seconds."""
        return _json(self.folder / "environment.json")

    @cached_property
    def history(self):
        """One row an epoch: learning rate, losses, accuracies (a pandas DataFrame)."""
        import pandas as pd

        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def predictions(self) -> dict:
        """Arrays over the test images in canonical order: labels (N,), top5 (N, 5), confidence (N,); confusion (K, K)."""
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
        number that is shown, and chooses nothing: learning rates are tuned without it. Validation would flatter, since it has
        chosen the epoch, and it often has few images.
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
        """What its exported and INT8 networks do on the same test images, see `lwnb.deploy.convert`; often nothing."""
        file = self.folder / CONVERSIONS
        return _json(file)["rows"] if file.exists() else []

    @property
    def published(self) -> bool:
        """Whether it lies among published records: trained by whoever published it, not here."""
        return any(self.folder.is_relative_to(place) for place in shelves()[1:])

    @property
    def weights(self) -> Path | None:
        """The weights, where this machine has them; of published records only those of a pretrained source carry some."""
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


def _json(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def folder(run: Run, root: str = "runs") -> Path:
    """`<home>/<root>/<dataset>/<model>/<key>`."""
    return home() / root / _inside(run)


def _inside(run: Run) -> Path:
    return Path(run.dataset, run.model, run.key)


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


def part(run: Run) -> Path:
    """The folder of a run that is not finished: its checkpoint, or why it failed."""
    return folder(run).with_name(f"{run.key}.part")


def find(run: Run) -> Record | None:
    """The record of a finished run, from the first place that has it; see `lwnb.params.shelves`."""
    places = (place / _inside(run) for place in shelves())
    return next((Record(run, place) for place in places if (place / "metrics.json").exists()), None)


def find_key(key: str) -> Record | None:
    """The record with this key, whatever its data set and network."""
    return next((record for record in every() if record.run.key == key), None)


def learned(runs: Iterable[Run]) -> list[Record]:
    """The records of these runs that are there and learned, in the order of the runs."""
    return [record for record in map(find, runs) if record and record.learned]


def every() -> list[Record]:
    """All finished runs, those of this home and published ones, each once, sorted by folder."""
    found = {}
    for place in reversed(shelves()):
        for file in sorted(place.glob("*/*/*/metrics.json")):
            if not file.parent.name.endswith(".part"):
                found[file.parent.name] = Record(Run(**_json(file.parent / "run.json")), file.parent)
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
        "run.json": _dump(run.model_dump()),
        "history.csv": pd.DataFrame(history).to_csv(index=False).encode(),
        "predictions.npz": arrays.getvalue(),
        "environment.json": _dump(environment),
        WEIGHTS: weights,
        "metrics.json": _dump(metrics),
    }
    return store(run, files)


def store(run: Run, files: dict[str, bytes]) -> Record:
    """Write a record's files aside, `metrics.json` last, and rename their folder."""
    for name in sorted(files, key="metrics.json".__eq__):
        disk.write(part(run) / name, files[name])
    return finish(run)


def finish(run: Run) -> Record | None:
    """Rename the folder of a run whose files are all there, as a kill may have left it; None where some are missing.

    `metrics.json` is written last: where it is, the others are. What a kill left of a file half-written is removed.
    """
    aside = part(run)
    for torn in aside.glob("*.tmp*"):
        torn.unlink()
    if not (aside / "metrics.json").exists():
        return None
    for file in aside.iterdir():  # the checkpoint, and why an earlier try failed
        if file.name not in (*PUBLISHED, WEIGHTS, CONVERSIONS):
            file.unlink()
    _unwritten.pop(aside, None)
    return Record(run, _place(aside, folder(run)))


def _place(aside: Path, final: Path) -> Path:
    """Give a whole folder its name; what stood there stops being a record before anything else of it goes."""
    disk.sync_folder(aside)
    (final / "metrics.json").unlink(missing_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    disk.sync_folder(final.parent)
    return final


@contextmanager
def lock(run: Run) -> Iterator[None]:
    """Keep all other processes from training this run; a process that dies lets go of it."""
    disk.make(part(run).parent)
    with FileLock(part(run).with_suffix(".lock")):
        yield


def pack(record: Record) -> dict[str, bytes]:
    """The files of a record by name, for `store` on another machine."""
    return {file.name: file.read_bytes() for file in record.folder.iterdir()}


def _dump(content: dict) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


_unwritten: dict[Path, dict] = {}
"""Failures that this process could not write, by the folder that they belong in."""


def fail(run: Run, error: BaseException) -> None:
    """Keep the reason of a failure beside what the run had reached; a later try starts from there."""
    trace = "".join(traceback.format_exception(error))
    reason = f"{type(error).__name__}: {error}"
    keep_failure(run, {"reason": reason, "traceback": trace, "run": run.model_dump()})


def keep_failure(run: Run, failure: dict) -> None:
    """Write a failure as `failure` returns it; where the disk is full, it lasts as long as this process."""
    _unwritten[part(run)] = failure
    try:
        disk.write(part(run) / "failure.json", _dump(failure))
        del _unwritten[part(run)]
    except OSError as error:
        text = f"{run.dataset} {run.model} {run.key}: the failure could not be recorded ({error})"
        print(f"{text}:\n{failure['traceback']}", file=sys.stderr, flush=True)


def failure(run: Run) -> dict | None:
    """Why the last try of this run failed: reason, traceback and run; None if it did not."""
    file = part(run) / "failure.json"
    return _unwritten.get(part(run)) or (_json(file) if file.exists() else None)


def failures() -> list[dict]:
    """The failures of all runs that have no record yet."""
    folders = {file.parent for file in (home() / "runs").glob("*/*/*.part/failure.json")} | set(_unwritten)
    found = [_unwritten.get(aside) or _json(aside / "failure.json") for aside in sorted(folders)]
    return [one for one in found if not find(Run(**one["run"]))]


def status(run: Run) -> str:
    """'done', 'did not learn' (finished, see `Record.shortfall`), 'failed', 'interrupted' or 'missing'."""
    return _status(run, find(run))


def _status(run: Run, record: Record | None) -> str:
    if record:
        return "done" if record.learned else "did not learn"
    return "failed" if failure(run) else "interrupted" if part(run).exists() else "missing"


def table(runs: list[Run]):
    """A tidy DataFrame with a row a run: its key and status, its fields, its metrics and costs.

    Rates run 0..1; metrics of runs that are missing or failed are empty, and the accuracies of those that did not learn.
    """
    import pandas as pd

    rows = []
    for run in runs:
        record = find(run)
        row = {"key": run.key, "status": _status(run, record), "arm": run.arm, **run.model_dump()}
        if record:
            hidden = () if row["status"] == "done" else ACCURACIES
            row |= {k: v for k, v in record.metrics.items() if not isinstance(v, list | dict) and k not in hidden}
            row |= {"learned": record.learned, "guess_top1": record.guess_top1, "reason": record.shortfall or None}
            row |= {name: record.environment[name] for name in MEASURED}
            row["commit"] = _short(record.environment["commit"])
            row["trained_on"] = device(record.environment["machine"])
        elif row["status"] == "failed":
            row["reason"] = failure(run)["reason"]
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.reindex(
        columns=[
            *frame,
            *(name for name in (*ACCURACIES, *COUNTS, *MEASURED, "trained_on", "reason") if name not in frame),
        ]
    )


def publish(records: list[Record], weights: bool = False) -> list[Path]:
    """Copy records from `runs/` to `results/` of the home; those that are there, or published elsewhere, stay as they are.

    Parameters
    ----------
    weights : with their weights in half precision, also beside a record that is there without

    Raises
    ------
    ParamsError
        Weights are wanted of a run that has none on this machine.
    """
    copied = []
    disk.make(home() / "runs")
    with FileLock(home() / "runs" / "publish.lock"):  # not in results/, which is committed
        for record in records:
            target = folder(record.run, "results")
            if _elsewhere(record, weights):
                continue
            if not (target / "metrics.json").exists():
                aside = target.with_name(f"{target.name}.part")
                shutil.rmtree(aside, ignore_errors=True)
                for name in PUBLISHED:
                    disk.write(aside / name, (record.folder / name).read_bytes())
                copied.append(_place(aside, target))
            if weights and not (target / WEIGHTS).exists():
                if not record.weights:
                    raise ParamsError(f"run {record.run.key}: its weights are not on this machine; train it here first")
                disk.write(target / WEIGHTS, _half(record.weights))
            if record.conversions and not record.published:
                disk.write(target / CONVERSIONS, (record.folder / CONVERSIONS).read_bytes())
    return copied


def _elsewhere(record: Record, weights: bool) -> bool:
    """Whether all that `publish` would copy of it stands among the published records of another home."""
    names = ["metrics.json", *[WEIGHTS] * weights, *[CONVERSIONS] * bool(record.conversions)]
    return any(all((place / _inside(record.run) / name).exists() for name in names) for place in shelves()[2:])


def _half(file: Path) -> bytes:
    """The tensors of a safetensors file in half precision, as such a file."""
    from safetensors.numpy import load_file, save

    return save({name: t.astype("float16") if t.dtype == "float32" else t for name, t in load_file(file).items()})


INSTRUCTIONS = {
    "amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx512f": "AVX-512", "avx_vnni": "AVX-VNNI", "avx2": "AVX2",
    "i8mm": "I8MM", "asimddp": "SDOT",
}  # fmt: skip
"""Flags of Linux for what a processor has for short numbers, the widest first. Virtual machines hide its model: two generations
of one maker are then known by these alone."""


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict:
    """This machine as far as it matters to a timing: processor, its widest instructions (None where not known), cores, memory,
    system; not its name."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]  # x86, boards
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "instructions": next((said for flag, said in INSTRUCTIONS.items() if flag in flags), None),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "os": platform.system(),
    }


def device(machine: dict) -> str:
    """A machine as `machine` gives it, in words."""
    more = [machine[part] for part in ("instructions", "accelerator") if machine.get(part)]
    return ", ".join(["{cpu}, {cores} cores".format(**machine), *more])


def save_conversions(record: Record, rows: list[dict]) -> None:
    """Keep the rows of `lwnb.deploy.convert` with a record."""
    disk.write(record.folder / CONVERSIONS, _dump({"rows": rows}))
    record.__dict__.pop("conversions", None)


def origins(runs: list[Run]):
    """A DataFrame with a row for each machine, set of versions and commit: the keys of those of these runs that it made."""
    import pandas as pd

    rows = []
    for record in filter(None, map(find, runs)):
        about, versions = record.environment, record.environment["versions"]
        where = device(about["machine"]) + ", {memory_gib} GiB, {os}".format(**about["machine"])
        row = {
            "machine": where,
            "device": about["device"],
            "threads": about["threads"],
            "commit": _short(about["commit"]),
        }
        row["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
        rows.append(row | {"key": f"{record.run.key} ", "wall_seconds": about["wall_seconds"]})
    keys, sums = ["machine", "device", "threads", "commit", "versions"], ["key", "wall_seconds"]
    frame = pd.DataFrame(rows, columns=keys + sums).groupby(keys, sort=False).sum().reset_index()
    return frame[[*keys[:-1], *sums, "versions"]]


def _short(commit: str) -> str:
    return commit[:10] + commit[40:]


def commit() -> str:
    """The git commit of the checkout, with '+changes' when files differ from it, or 'no git'."""
    try:
        git = ["git", "-C", str(CHECKOUT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
        return head + ("+changes" if dirty.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "no git"


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of these packages, and lwnb's own."""
    return {"lwnb": __version__} | {name: version(name) for name in packages}
