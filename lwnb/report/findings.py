"""What the results say, and what they cannot say, as data: `lwnb.report.words` makes sentences of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lwnb.evidence import choice, compare, deployed, stats
from lwnb.evidence.compare import Difference, best, by_model, common_seeds, difference, flat
from lwnb.plan import studies
from lwnb.plan.columns import unequal
from lwnb.plan.facts import DATASETS, FIVE, PYTORCH, REFERENCE, name
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.plan.tuned import chosen, tried
from lwnb.records import results, tables
from lwnb.records.machine import device
from lwnb.records.results import Record, find

SETTLED = 100
"""Optimiser steps below which the running statistics of BatchNorm (momentum 0.1) may lag behind the weights."""

FITTED = 0.9
"""Below this top-1 on its own training images, without augmentation, a network had not yet learned them."""


@dataclass(frozen=True)
class Finding:
    """One thing that is said: its kind, a row of `lwnb.report.words.SENTENCES`, and the names and numbers in it."""

    kind: str
    values: dict


@dataclass(frozen=True)
class Findings:
    """What the results of a page say, and what they cannot say."""

    found: list[Finding]
    cannot: list[Finding]


@dataclass(frozen=True)
class Rate:
    """Mean test top-1 of a setting, with its 95 % interval, and what stands beside it where classes are unequal."""

    top1: float
    low: float
    high: float
    seeds: int
    n_test: int
    guess_top1: float
    macro_f1: float
    num_classes: float


def rate(row) -> Rate:
    """The rate of a row of `lwnb.evidence.compare.summary`."""
    known = {"seeds": int(row.seeds), "n_test": int(row.n_test), "num_classes": row.num_classes}
    return Rate(row.top1, row.low, row.high, guess_top1=row.guess_top1, macro_f1=row.macro_f1, **known)


def judged(gap: Difference, p: float) -> dict:
    """A difference and what its p allows to say.

    Returns
    -------
    `gap` and `p`; `differ`: True, False where the two are not told apart, None where the test has no spread to judge
    by; `detectable`: where they are not told apart, the difference that would have shown, if it is known.
    """
    differ = None if math.isnan(p) else bool(p < 0.05)
    least = gap.detectable if differ is False and gap.detectable > 0 else None
    return {"gap": gap, "p": p, "differ": differ, "detectable": least}


def made(records: Sequence[Record]) -> dict[str, list[str]]:
    """Where and when runs were trained: `devices`, and the first and the last of the `days`, once if they are one."""
    days = sorted(record.environment["started"][:10] for record in records)
    return {
        "devices": list(dict.fromkeys(device(record.environment["machine"]) for record in records)),
        "days": list(dict.fromkeys([*days[:1], *days[-1:]])),
    }


def absent(p: Params) -> list[Finding]:
    """Those of the study's five networks that a page is without; empty where none is missing."""
    missing = [name(model) for model in FIVE if model not in p.models]
    return [Finding("not trained", {"networks": missing})] if missing else []


def limits(p: Params, frame: pd.DataFrame, records: Sequence[Record] = ()) -> list[Finding]:
    """What the runs of a page cannot say: seeds, subsets, unfinished curves, runs that failed."""
    about = {"budget": p.budget, "epochs": p.epochs, "image_size": p.image_size}
    found = [Finding("trained", about | made(records))]
    if p.seeds == 1:
        found.append(Finding("one seed", {}))
    if any(0 < size < (pool or math.inf) for size, pool in ((p.train_size, p.pool_train), (p.test_size, p.pool_test))):
        found.append(Finding("subset", {}))
    if rising := sorted({name(record.run.model) for record in records if not flat(record)}):
        found.append(Finding("still rising", {"networks": rising}))
    found += _classes(records) + _seen(records)
    done = frame[frame["status"] == "done"]
    if len(weak := done[done["train_top1"] < FITTED]):
        names = sorted({name(model) for model in weak["model"]})
        found.append(Finding("weak", {"below": FITTED, "count": len(weak), "runs": len(done), "networks": names}))
    steps = [max(1, int(row.n_train // row.batch_size)) * int(row.epochs_run) for row in done.itertuples()]
    if steps and min(steps) < SETTLED:
        found.append(Finding("few steps", {"steps": min(steps)}))
    for row in frame[frame["status"] != "done"].itertuples():
        why = {"key": row.key, "status": row.status, "reason": row.reason}
        found.append(Finding("failed", {"network": name(row.model)} | why))
    return found


def unmeasured(missing: Sequence[str], published: bool) -> list[Finding]:
    """What a page of latencies is without: runtimes that are not installed, and measurements of published runs."""
    found = [Finding("not installed", {"runtime": runtime}) for runtime in missing]
    return found + [Finding("published", {})] * published


def _classes(records: Sequence[Record]) -> list[Finding]:
    """The largest and the smallest class by the test images of one of these runs; empty where classes are equal."""
    for record in records:
        if unequal(record.guess_top1, record.metrics["num_classes"]):
            names, labels = record.metrics["classes"], record.predictions["labels"]
            few, *_, many = sorted(zip(np.bincount(labels, minlength=len(names)).tolist(), names, strict=True))
            ends = {"least": few[0], "smallest": few[1], "most": many[0], "largest": many[1]}
            return [Finding("unequal", ends | {"n_test": len(labels)})]
    return []


def _seen(records: Sequence[Record]) -> list[Finding]:
    """Which of these runs start from weights that have seen their data set or its classes."""
    found = dict.fromkeys((record.run.weights, DATASETS[record.run.dataset]) for record in records)
    seen = [(weights, row.title) for weights, row in found if weights in row.seen_by]
    return [Finding("seen", {"weights": weights, "dataset": title}) for weights, title in seen]


def architectures(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> Findings:
    """Which network validation prefers, which the paired tests tell from it, and whether they may be ranked."""
    groups = by_model(records, printed=False)
    done = compare.summary(frame[frame["key"].isin([record.run.key for record in records])])
    if done.empty or not groups:
        return Findings([Finding("nothing", {"what": "network"})], limits(p, frame, records))
    top, small = done.nlargest(1, "val_top1").iloc[0], done.nsmallest(1, "macs").iloc[0]
    found = [Finding("preferred", {"name": name(top.model), "rate": rate(top)})]
    if small.model == top.model:
        found.append(Finding("also fewest MACs", {"macs": top.macs}))
    else:
        fewest = {"network": name(small.model), "macs": small.macs, "against": top.macs, "rate": rate(small)}
        found.append(Finding("fewest MACs", fewest))
    found += _rivals(done, groups, top)
    found.append(_ranking(p, done, records))
    if p.tune_epochs not in (0, p.epochs):
        found += _longer(p, records)
    return Findings(found, absent(p) + limits(p, frame, records))


def _ranking(p: Params, done: pd.DataFrame, records: Sequence[Record]) -> Finding:
    """The order by top-1, or why none is given: rates that were not tuned or sit at an edge, curves that still rise."""
    if not all(chosen(studies.ladder(p, model)) for model in done["model"]):
        return Finding("not tuned", {})
    grids = [tried(studies.ladder(p, model)) for model in done["model"]]
    rates = [
        {"network": name(row.model), "lr": row.lr, "tried": len(grid), "lowest": grid[0], "highest": grid[-1]}
        for row, grid in zip(done.itertuples(), grids, strict=True)
    ]
    tuned = {"rates": rates, "tune_epochs": p.tune_epochs or None}
    edge = [one["network"] for one in rates if one["lr"] in (one["lowest"], one["highest"])]
    epochs = p.epochs if p.tune_epochs not in (0, p.epochs) else None
    rising = not all(map(flat, records))
    if edge or epochs or rising:
        return Finding("not ranked", tuned | {"edge": edge, "epochs": epochs, "rising": rising})
    order = [(name(row.model), row.top1) for row in done.sort_values("top1", ascending=False).itertuples()]
    return Finding("ranked", tuned | {"order": order})


def _longer(p: Params, records: Sequence[Record]) -> list[Finding]:
    """What the page's epochs bring over those of the runs that chose its learning rates,
    and whether they change the order."""
    gains, longer, shorter = [], {}, {}
    for model, own in by_model(records, printed=False).items():
        asked = [Run(**record.run.model_dump() | {"epochs": p.tune_epochs}) for record in own]
        before = [record for record in map(find, asked) if record]
        if common_seeds(own, before):
            keys = [record.run.key for record in before]
            gains.append({"network": name(model), "gap": difference(own, before), "keys": keys})
            longer[name(model)], shorter[name(model)] = (
                fmean(r.metrics["top1"] for r in side) for side in (own, before)
            )
    now, then = (sorted(means, key=means.get, reverse=True) for means in (longer, shorter))
    about = {"epochs": p.epochs, "tune_epochs": p.tune_epochs}
    return [Finding("longer", about | {"gains": gains, "order": now, "before": then})] if gains else []


def _rivals(done: pd.DataFrame, groups: dict[str, list[Record]], top) -> list[Finding]:
    """The preferred network against each other one, by paired tests with Holm's correction;
    the cheapest of its equals."""
    own = groups.pop(top.model)
    gaps = {model: difference(own, records) for model, records in groups.items() if common_seeds(own, records)}
    if not gaps:
        return []
    p = dict(zip(gaps, stats.holm([gap.p for gap in gaps.values()]), strict=True))
    found = [Finding("against", {"network": name(model)} | judged(gap, p[model])) for model, gap in gaps.items()]
    equals = [model for model in gaps if not p[model] < 0.05]
    if equals:
        cheap = done[done["model"].isin([top.model, *equals])].nsmallest(1, "parameters").iloc[0]
        few = {"network": name(cheap.model), "parameters": cheap.parameters}
        found.append(Finding("cheapest equal", {"count": len(equals) + 1} | few))
    return found + [Finding("corrected", {})] * (len(gaps) > 1)


def _pair(names: tuple[str, str], rows: tuple, records: Sequence[Record], there: bool = False) -> Finding:
    """The paired difference of two rows of `lwnb.evidence.compare.summary`.

    `there` says that the same training images are meant as in the finding before.
    """
    first, second = ([r for r in records if r.run.key in row.key.split() and r.learned] for row in rows)
    about = {"first": names[0], "second": names[1], "there": there}
    if not common_seeds(first, second):
        return Finding("unpaired", about)
    gap = difference(first, second)
    return Finding("paired", about | judged(gap, gap.p))


def transfer(p: Params, frame: pd.DataFrame, records: Sequence[Record], source: str) -> Findings:
    """What starting from a source brings, at the most and at the fewest training images."""
    chosen, found, scratch = best(frame, ["arm", "n_train"]), [Finding("source", {"source": source})], "from scratch"
    found += [Finding("nothing", {"what": "arm"})] * chosen.empty
    for size in sorted(chosen["n_train"].unique(), reverse=True):
        rows = {r.arm: r for r in chosen[chosen["n_train"] == size].itertuples()}
        found.append(Finding("arms", {"n_train": int(size), "rates": [(arm, rate(r)) for arm, r in rows.items()]}))
        for arm in [arm for arm in rows if arm != scratch and scratch in rows]:
            found.append(_pair((arm, scratch), (rows[arm], rows[scratch]), records, there=True))
    edge = sorted({r.arm for r in chosen.itertuples() if r.lr in (min(p.transfer_lrs), max(p.transfer_lrs))})
    found += [Finding("arms at edge", {"arms": edge})] * bool(edge)
    return Findings(found, limits(p, frame, records))


def augmentation(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> Findings:
    """Which policy validation prefers, against none, and how the gap to the training images moves."""
    done = compare.summary(frame.dropna(subset=["top1"]))
    if done.empty:
        return Findings([Finding("nothing", {"what": "policy"})], limits(p, frame, records))
    top = done.nlargest(1, "val_top1").iloc[0]
    found = [Finding("preferred", {"name": top.augment, "rate": rate(top)})]
    for plain in done[done["augment"] == "none"].head(1).itertuples():
        found.append(Finding("without", {"rate": rate(plain), "gap": plain.gap}))
        if top.augment != "none":
            found.append(_pair((top.augment, "none"), (top, plain), records))
    widest = done.loc[done["gap"].idxmax()]
    found.append(Finding("widest gap", {"policy": widest.augment, "gap": widest.gap}))
    return Findings(found, limits(p, frame, records))


def hyperparameters(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> Findings:
    """The setting that validation prefers, how far the settings lie apart, and whether the winner sits at an edge."""
    done = compare.summary(frame.dropna(subset=["val_top1"]))
    if done.empty:
        return Findings([Finding("nothing", {"what": "setting"})], limits(p, frame, records))
    top = done.nlargest(1, "val_top1").iloc[0]
    setting = {field: top[field] for field in ("optimizer", "lr", "batch_size", "schedule", "weight_decay")}
    found = [
        Finding("setting", {"count": len(done), **setting, "rate": rate(top)}),
        Finding("settings", {"lowest": done["val_top1"].min(), "highest": done["val_top1"].max()}),
    ]
    rates = done.loc[done["optimizer"] == top.optimizer, "lr"]
    found += [Finding("setting at edge", {})] * (top.lr in (rates.min(), rates.max()))
    return Findings(found, limits(p, frame, records))


def deployment(
    wide: pd.DataFrame, macs: pd.Series, converted: pd.DataFrame, noise: dict[str, float], cannot: Sequence[Finding]
) -> Findings:
    """What the runtimes, INT8 and the framework come to on one device.

    Parameters
    ----------
    wide : latency in ms by network, a column each runtime and precision: `lwnb.evidence.deployed.wide`
    macs : by network
    converted : `lwnb.evidence.deployed.conversions_table`
    noise : by runtime, the share by which a median moves when the same cell is measured again
    cannot : what else the page cannot say, such as `limits` of its runs
    """
    found, ways = [], [way for way in wide if way.split()[0] != PYTORCH]
    for way in ways:
        order, spread = wide[way].dropna().sort_values(), noise.get(way.split()[0], math.nan)
        equal = [name(model) for model, value in order.iloc[1:].items() if value <= order.iloc[0] * (1 + spread)]
        first = {"network": name(order.index[0]), "latency_ms": order.iloc[0]}
        found.append(Finding("fastest", {"way": way, **first, "equal": equal}))
        both = macs.reindex(order.index).dropna()
        if len(both) > 2:
            tau = kendalltau(both, order[both.index]).statistic
            found.append(Finding("order by MACs", {"way": way, "tau": tau, "networks": len(both)}))
    eager = f"{PYTORCH} fp32"
    for way in (way for way in ways if way.endswith("fp32") and eager in wide):
        over = _ends(wide[eager] / wide[way])
        found.append(Finding("eager", {"way": way, **over, "uneven": bool(over["most"] > 1.5 * over["least"])}))
    found += _int8(wide, converted)
    about = [Finding("noise", {"runtime": runtime, "share": share}) for runtime, share in noise.items()]
    about.append(Finding("random weights", {}))
    return Findings(found or [Finding("no record", {})], [*about, *cannot])


def _ends(ratio: pd.Series) -> dict:
    """The lowest and the highest of a ratio by network, and whose they are."""
    known = ratio.dropna()
    ends = {"least": known.min(), "lowest": name(known.idxmin())}
    return ends | {"most": known.max(), "highest": name(known.idxmax())}


def _int8(wide: pd.DataFrame, converted: pd.DataFrame) -> list[Finding]:
    found = []
    for runtime, rows in converted[converted["precision"] == "int8"].groupby("runtime", sort=False):
        lost = [(name(row.model), row.difference) for row in rows[rows["marked"] != ""].itertuples()]
        found.append(Finding("INT8 loses", {"runtime": runtime, "n_test": rows["n_test"].iloc[0], "lost": lost}))
        if {f"{runtime} int8", f"{runtime} fp32"} <= set(wide):
            gain = _ends(wide[f"{runtime} fp32"] / wide[f"{runtime} int8"])
            found.append(Finding("INT8 gains", {"runtime": runtime, **gain}))
    for row in converted[converted["precision"] == "int8-aware"].itertuples():
        found.append(Finding("INT8 aware", {"network": name(row.model), "difference": row.difference}))
    return found


def networks(p: Params, timings: pd.DataFrame, device: str | None = None) -> pd.DataFrame:
    """A row a network of a page: means over the seeds as in `lwnb.evidence.compare.summary`, and its file as in
    `lwnb.evidence.choice.shipped`.

    Latencies are those of `device`, else of the one that the page speaks of, one image at a time on one thread; what
    INT8 leaves is that of the first seed. `noise` is the share by which ONNX Runtime's latencies move there when
    measured again.
    """
    runs, device = studies.architectures(p), device or deployed.here(deployed.of_page(p, timings))
    files = choice.shipped(choice.candidates(results.learned(studies.deployment(p)), device, timings))
    moved = deployed.noise(timings).set_index(["device", "runtime"])["noise"].get((device, REFERENCE), math.nan)
    return compare.summary(tables.of_runs(runs)).merge(files, on="model", how="left").assign(device=device, noise=moved)


def short(frame: pd.DataFrame) -> Finding | None:
    """The short answer: the networks that no other one beats, and how much top-1 each loses to the best.

    A network is beaten when another one is as accurate and costs less. That is asked twice: by the size of the INT8
    file, and by its latency. Latencies that differ by less than the noise of measuring count as equal, and then the
    more accurate network wins. None where fewer than two networks have a cost.

    Parameters
    ----------
    frame : the rows of `networks`
    """
    fronts, known, noise = {}, frame.dropna(subset=["top1"]), frame["noise"].max()
    beaten = set(known["model"])
    for column, within in (("int8_mb", 0), ("int8_ms", noise)):
        rows = known.dropna(subset=[column]).sort_values(column, ascending=False)
        if len(rows) < 2:
            return None
        first, *others = rows[stats.front(deployed.levelled(rows[column], within), rows["top1"])].itertuples()
        beaten -= {row.model for row in (first, *others)}
        less = [(name(row.model), first.top1 - row.top1, getattr(row, column)) for row in others]
        best = {"network": name(first.model), "top1": first.top1, "cost": getattr(first, column)}
        fronts[column] = best | {"less": less}
    behind = [name(model) for model in frame["model"] if model in beaten]
    return Finding("in short", fronts | {"noise": noise if noise > 0 else None, "behind": behind} | _unequal(known))


def _unequal(known: pd.DataFrame) -> dict:
    """What stands beside top-1 where the classes of a page are unequal: a guess's top-1, and macro F1 by network."""
    if not any(map(unequal, known["guess_top1"], known["num_classes"])):
        return {"guess_top1": None, "macro_f1": []}
    each = [(name(row.model), row.macro_f1) for row in known.itertuples()]
    return {"guess_top1": known["guess_top1"].max(), "macro_f1": each}
