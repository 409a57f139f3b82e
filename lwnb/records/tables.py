"""Runs as tidy tables: a row a run."""

from lwnb.base import disk
from lwnb.base.places import home
from lwnb.plan.columns import beside
from lwnb.plan.run import Run
from lwnb.records import failures, machine, results

ACCURACIES = (
    "top1", "top5", "macro_f1", "ece", "loss", "train_top1", "train_loss", "val_top1", "val_loss", "best_epoch",
)  # fmt: skip
"""The metrics that a run which did not learn has no use for; its costs stand all the same."""

COUNTS = ("n_train", "n_val", "n_test", "num_classes", "guess_top1", "epochs_run", "parameters", "macs", "size_bytes")
"""The counts and costs of a run, and a guess's top-1: with the accuracies, the columns that every table of runs has."""

MEASURED = ("train_seconds", "epoch_seconds", "images_per_second", "wall_seconds", "started", "other_load")
"""The fields of a run's environment that stand in the table of runs."""


LISTED = (
    "key", "dataset", "model", "arm", "augment", "seed", "epochs", "status", "top1", "n_test", "train_seconds",
)  # fmt: skip
"""The columns of `listing`; where classes are unequal, more stand beside top-1."""


def failed() -> list[dict]:
    """The failures of all runs that have no record yet."""
    folders = {file.parent for file in (home() / "runs").glob("*/*/*.part/failure.json")} | set(failures.unwritten)
    found = [failures.unwritten.get(aside) or disk.read_json(aside / "failure.json") for aside in sorted(folders)]
    return [one for one in found if not results.find(Run(**one["run"]))]


def of_runs(runs: list[Run]):
    """A tidy DataFrame with a row a run: its key and status, its fields, its metrics and costs.

    Rates run 0..1; metrics of runs that are missing or failed are empty,
    and the accuracies of those that did not learn.
    """
    import pandas as pd

    rows = []
    for run in runs:
        record = results.find(run)
        row = {"key": run.key, "status": results.status_of(run, record), "arm": run.arm, **run.model_dump()}
        if record:
            hidden = () if row["status"] == "done" else ACCURACIES
            row |= {k: v for k, v in record.metrics.items() if not isinstance(v, list | dict) and k not in hidden}
            row |= {"learned": record.learned, "guess_top1": record.guess_top1, "reason": record.shortfall or None}
            row |= {name: record.environment[name] for name in MEASURED}
            row["commit"] = machine.short_commit(record.environment["commit"])
            row["trained_on"] = machine.device(record.environment["machine"])
        elif row["status"] == "failed":
            row["reason"] = failures.failure(run)["reason"]
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.reindex(
        columns=[
            *frame,
            *(name for name in (*ACCURACIES, *COUNTS, *MEASURED, "trained_on", "reason") if name not in frame),
        ]
    )


def reasons(frame) -> list[str]:
    """Why runs of a table failed, a line a reason: the first run that it stopped, and how many more."""
    lines = []
    for reason, rows in frame[frame["status"] == "failed"].groupby("reason", sort=False, dropna=False):
        first, more = rows.iloc[0], f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        lines.append(f"run {first['key']} ({first['dataset']}, {first['model']}){more} failed: {reason}")
    return lines


def listing():
    """The table of all finished runs in short, for a terminal: the columns of `LISTED`."""
    frame = of_runs([record.run for record in results.every()])
    return frame[beside([name for name in LISTED if name in frame], frame)]


def origins(runs: list[Run]):
    """A DataFrame with a row for each machine, set of versions and commit:
    the keys of those of these runs that it made."""
    import pandas as pd

    rows = []
    for record in filter(None, map(results.find, runs)):
        about, versions = record.environment, record.environment["versions"]
        where = machine.device(about["machine"]) + ", {memory_gib} GiB, {os}".format(**about["machine"])
        row = {
            "machine": where,
            "device": about["device"],
            "threads": about["threads"],
            "commit": machine.short_commit(about["commit"]),
        }
        row["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
        rows.append(row | {"key": f"{record.run.key} ", "wall_seconds": about["wall_seconds"]})
    keys, sums = ["machine", "device", "threads", "commit", "versions"], ["key", "wall_seconds"]
    frame = pd.DataFrame(rows, columns=keys + sums).groupby(keys, sort=False).sum().reset_index()
    return frame[[*keys[:-1], *sums, "versions"]]
