"""Which network fits a device: candidates from records, limits, a ranking with reasons."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lwnb.base.errors import ParamsError, nearest
from lwnb.base.places import CHECKOUT
from lwnb.evidence import deployed, stats
from lwnb.evidence.compare import span
from lwnb.plan.columns import COLUMNS as SHOWN
from lwnb.plan.columns import guessed, number
from lwnb.plan.facts import REFERENCE, name
from lwnb.records import costs, machine, results
from lwnb.records.results import Record

NOT_MEASURED = "latency not measured"

FITS, OPEN, FAILS = "fits", "cannot be said", "does not fit"


class Limits(BaseModel):
    """What a device allows; None is no limit. Sizes in MB (10^6 bytes), memory in MiB, latency of one image in ms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_size_mb: float | None = Field(None, gt=0)
    max_latency_ms: float | None = Field(None, gt=0)
    max_memory_mib: float | None = Field(None, gt=0)
    min_top1: float | None = Field(None, ge=0, le=1)

    def of_costs(self) -> list[tuple[str, float | None, str, str]]:
        """Each cost's name, limit, column of `candidates`, and unit."""
        return [
            ("size", self.max_size_mb, "size_mb", "MB"),
            ("latency", self.max_latency_ms, "latency_ms", "ms"),
            ("memory", self.max_memory_mib, "memory_mib", "MiB"),
        ]


class Budget(Limits):
    """Limits with a name and a source, for the table of the book; without a device, they are about that of the page."""

    budget: str
    source: str
    device: str | None = None


def budgets(file: Path = CHECKOUT / "book" / "budgets.yaml") -> list[Budget]:
    """The typical budgets of a YAML file."""
    return [Budget(**entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))]


def records_of(dataset: str) -> list[Record]:
    """For each network the finished run on all classes of a data set that validation prefers,
    all tested on the same images.

    Runs that learned come before those that did not, and then runs whose exported networks were tested. Of runs with
    different numbers of test images, those with the most count.

    Raises
    ------
    ParamsError
        There is no finished run on this data set.
    """
    every = [record for record in results.every() if record.run.classes == "all"]
    own = [record for record in every if record.run.dataset == dataset]
    if not own:
        known = sorted({record.run.dataset for record in every})
        raise ParamsError(
            f"--dataset {dataset}: no finished run on it; there are runs on {', '.join(known) or 'none'}"
            f"{nearest(dataset, known)} Train some: lwnb report {dataset}"
        )
    most = max(record.metrics["n_test"] for record in [one for one in own if one.learned] or own)
    best: dict[str, Record] = {}
    for record in sorted(own, key=lambda one: (one.learned, bool(one.conversions), one.metrics["val_top1"])):
        if record.metrics["n_test"] == most:
            best[record.run.model] = record  # the last one stays
    return list(best.values())


def device_of(wanted: str | None, known: Sequence[str]) -> str:
    """The device that a text names: this machine if it is None, one of those with records, or the text itself."""
    if wanted is None:
        return machine.device(machine.machine())
    matches = [device for device in known if wanted.lower() in device.lower()]
    if len(matches) > 1:
        raise ParamsError(f"--device {wanted!r} names several: {'; '.join(matches)}")
    return matches[0] if matches else wanted


def candidates(records: Sequence[Record], device: str, timings: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row a deployable network: its record's top-1, and what it costs on a device,
    on one thread and one image at a time.

    Latency and peak memory come from records of this device alone; without any, `latency_ms` is empty and the memory is
    that of the planned activations (`memory_is`), the same on every device. A network without conversions is a row in
    fp32 without a runtime.
    """
    timings = costs.timings_table() if timings is None else timings
    here = deployed.single(timings, device)
    rows = [_candidate(record, one, here) for record in records for one in record.conversions or [_plain(record)]]
    return pd.DataFrame(rows, columns=list(CANDIDATE))


CANDIDATE = (
    "key", "model", "runtime", "precision", "top1", "n_test", "guess_top1", "macro_f1", "num_classes", "shortfall",
    "size_mb", "macs", "latency_ms", "memory_mib", "memory_is", "right",
)  # fmt: skip
"""The columns of `candidates`: `shortfall` says why a file is no better than a guess, `right` is by image."""


def _plain(record: Record) -> dict:
    known = {"runtime": None, "precision": "fp32", "top1": record.metrics["top1"]}
    return known | {"size_bytes": record.metrics["size_bytes"], "predictions": record.predictions["top5"][:, 0]}


def _candidate(record: Record, one: dict, here: pd.DataFrame) -> dict:
    run, shape = record.run, costs.shape(record.run, record.metrics["num_classes"])
    same = here[(here["runtime"] == one["runtime"]) & (here["precision"] == one["precision"].removesuffix("-aware"))]
    for column, value in shape.items():
        same = same[same[column] == value]
    row = {"key": run.key, "model": run.model} | {column: one[column] for column in ("runtime", "precision", "top1")}
    row |= {"n_test": record.metrics["n_test"], "size_mb": one["size_bytes"] / 1e6, "macs": record.metrics["macs"]}
    row |= _beside(record, one)
    row |= {"latency_ms": np.nan, "memory_mib": np.nan, "memory_is": None}
    planned = (costs.find_footprint(shape) or {}).get("planned_bytes")
    if len(same):
        row |= {"latency_ms": same["latency_ms"].iloc[-1], "memory_mib": same["peak_mib"].iloc[-1]}
        row |= {"memory_is": "measured peak"}
    elif planned and not len(here):
        row |= {"memory_mib": planned / 2**20, "memory_is": "planned activations, fp32"}
    return row | {"right": np.asarray(one["predictions"]) == record.predictions["labels"]}


def _beside(record: Record, one: dict) -> dict:
    """What stands beside a file's top-1. INT8 can bring down to a guess a network that learned."""
    about = one["top1"], record.metrics["n_test"], record.guess_top1
    row = {"guess_top1": record.guess_top1, "num_classes": record.metrics["num_classes"]}
    row |= {"macro_f1": stats.macro_f1(record.predictions["labels"], one["predictions"])}
    return row | {"shortfall": record.shortfall or ("" if results.better(*about) else results.no_better(*about))}


def shipped(found: pd.DataFrame, runtime: str = REFERENCE) -> pd.DataFrame:
    """A row a network of `candidates`: what its file for one runtime takes in fp32 and INT8,
    and the top-1 that INT8 leaves.

    Columns `fp32_mb`, `fp32_ms`, `int8_mb`, `int8_ms` and `int8_top1`; missing where there is no such file.
    """
    shown = {"fp32": ("size_mb", "latency_ms"), "int8": ("size_mb", "latency_ms", "top1")}
    found = found.reindex(columns=["model", "runtime", "precision", "size_mb", "latency_ms", "top1"])
    parts = []
    for precision, columns in shown.items():
        own = found[(found["runtime"] == runtime) & (found["precision"] == precision)].set_index("model")
        parts.append(own[list(columns)].rename(columns=lambda column, p=precision: f"{p}_{column.split('_')[-1]}"))
    return pd.concat(parts, axis=1).rename_axis("model").reset_index()


def choose(found: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """The candidates ranked: those that fit by top-1, then those of which it cannot be said, then the others,
    with reasons.

    What did not learn, or is no better than a guess once it is quantised, fits nowhere.
    `behind` is the paired difference of top-1 to the first, on the same test images, with its interval.
    """
    judged = [_judged(row, limits) for row in found.to_dict("records")]
    order = [FITS, OPEN, FAILS]
    judged.sort(key=lambda row: (order.index(row["verdict"]), -row["top1"], row["size_mb"]))
    for row in judged:
        same = len(row["right"]) == len(judged[0]["right"])
        if row is not judged[0] and same:
            change, *ends = stats.difference(row["right"], judged[0]["right"])
            row["behind"] = f"{change:+.3f} ({span(ends)})"
    return pd.DataFrame(judged, columns=dict.fromkeys(key for row in judged for key in row)).drop(columns="right")


def _judged(row: dict, limits: Limits) -> dict:
    over, unknown = [f"did not learn: {row['shortfall']}"] * bool(row["shortfall"]), []
    for what, limit, column, unit in limits.of_costs():
        value = row[column]
        if np.isnan(value):
            unknown += [f"{what} not measured"] if limit is not None or what == "latency" else []
        elif limit is not None and value > limit:
            over.append(f"{what} {value:.3g} {unit}, limit {limit:g}")
    if limits.min_top1 is not None and row["top1"] < limits.min_top1:
        over.append(f"top-1 {row['top1']:.3f}, at least {limits.min_top1:g}")
    blocking = [text for text in unknown if text != NOT_MEASURED or limits.max_latency_ms is not None]
    verdict = FAILS if over else OPEN if blocking else FITS
    return row | {"verdict": verdict, "why": "; ".join([*over, *unknown])}


def for_budgets(records: Sequence[Record], device: str, timings: pd.DataFrame) -> pd.DataFrame:
    """A row a typical budget: its limits and source, the network that fits best, and how far the next one is behind."""
    rows = []
    for budget in budgets():
        found = candidates(records, budget.device or device, timings)
        rows.append(_for_budget(choose(found, budget) if len(found) else found, budget))
    return pd.DataFrame(rows).reindex(columns=[*COLUMNS, *BESIDE])


BESIDE = ("guess_top1", "macro_f1", "num_classes")
"""What a row must know for `lwnb.plan.columns.beside`."""

COLUMNS = (
    "budget", "limits", "choice", "top1", "n_test", "size_mb", "latency_ms", "memory_mib", "memory_is", "next",
    "source", "key",
)  # fmt: skip


def _for_budget(ranked: pd.DataFrame, budget: Budget) -> dict:
    ranked = ranked[ranked["shortfall"] == ""]
    limits = [one for one in budget.of_costs() if one[1] is not None]
    said = [f"{what} ≤ {limit:g} {unit}" for what, limit, _, unit in limits]
    row = {"budget": budget.budget, "limits": ", ".join(said), "source": budget.source}
    if ranked.empty:
        return row | {"choice": "none: no network has a result"}
    fit = ranked[ranked["verdict"] == FITS]
    if fit.empty:
        rest = ranked[ranked["verdict"] == ranked["verdict"].iloc[0]]
        over = pd.DataFrame({column: rest[column] / limit for _, limit, column, _ in limits}, index=rest.index)
        closest = rest.loc[over.max(axis=1).fillna(np.inf).idxmin()]
        return row | {"choice": f"none of {len(ranked)}; the closest is {_said(closest)}: {closest['why']}"}
    first, others = fit.iloc[0], fit[fit["model"] != fit.iloc[0]["model"]]
    row |= {"choice": _said(first), "top1": first["top1"], "n_test": first["n_test"], "key": first["key"]}
    row |= {column: first[column] for column in ("size_mb", "latency_ms", "memory_mib", "memory_is", *BESIDE)}
    if len(others):
        second = others.iloc[0]
        row |= {"next": f"{_said(second)}: {second['behind']}", "key": f"{first['key']} {second['key']}"}
    return row


def _said(row) -> str:
    runtime = f", {row['runtime']}" if isinstance(row["runtime"], str) else ", not exported"
    return f"{name(row['model'])} {row['precision']}{runtime}"


def recommend(dataset: str, device: str | None = None, **limits: float | None) -> str:
    """The finished runs on a data set, ranked within `Limits` on a device, as text.

    Parameters
    ----------
    device : part of the name of a device with records; this machine by default

    Raises
    ------
    ParamsError
        A limit that cannot be, no finished run, or a name that several devices have.
    """
    try:
        checked = Limits(**limits)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0].replace('_', '-')}"
        raise ParamsError(f"{option}: {first['input']!r} is not possible: {first['msg']}") from None
    timings = costs.timings_table()
    where = device_of(device, sorted(set(timings["device"])))
    return text(choose(candidates(records_of(dataset), where, timings), checked), where)


def text(ranked: pd.DataFrame, device: str, most: int = 20) -> str:
    """The ranking as lines for a terminal."""
    lines = []
    for row in ranked.head(most).to_dict("records"):
        memory = "–" if np.isnan(row["memory_mib"]) else f"{row['memory_mib']:.2f} MiB ({row['memory_is']})"
        latency = NOT_MEASURED if np.isnan(row["latency_ms"]) else f"{row['latency_ms']:.3f} ms"
        costs = f"{row['size_mb']:.2f} MB, {latency}, {memory}, {number(row['macs'], SHOWN['macs'])} M MACs"
        behind = f"; against the first {row['behind']}" if isinstance(row.get("behind"), str) else ""
        rate = f"top-1 {row['top1']:.3f} (n = {row['n_test']:,}{guessed(*(row[column] for column in BESIDE))})"
        lines.append(f"{row['verdict']:15} {_said(row):42} {rate}; {costs}{behind}; run {row['key']}")
        lines += [f"{'':15} {row['why']}"] if row["why"] else []
    return "\n".join([f"device: {device}; one image at a time, one thread", *lines])
