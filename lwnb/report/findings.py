"""Sentences that the results carry, and what they cannot say."""

import math
import re
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lwnb.evidence import compare, rules, stats
from lwnb.evidence.arms import Claim, describe, sets_of
from lwnb.evidence.claims import Verdict
from lwnb.evidence.compare import Difference, best, by_model, common_seeds, difference, flat
from lwnb.plan.columns import guessed, label, unequal
from lwnb.plan.facts import DATASETS, FIVE, PYTORCH, name
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.plan.studies import ladder
from lwnb.plan.tuned import chosen, tried
from lwnb.records.machine import device
from lwnb.records.results import Record, find
from lwnb.report import trace

SETTLED = 100
"""Optimiser steps below which the running statistics of BatchNorm (momentum 0.1) may lag behind the weights."""

FITTED = 0.9
"""Below this top-1 on its own training images, without augmentation, a network had not yet learned them."""


def rate(row) -> str:
    """Test top-1 of a row of `compare.summary` in words, with its 95 % interval, seeds and number of images.

    Where classes are unequal, with what always guessing the largest has and macro F1.
    """
    seeds = f"mean of {int(row.seeds)} seeds, " if row.seeds > 1 else ""
    beside = guessed(row.guess_top1, row.macro_f1, row.num_classes)
    return f"{row.top1:.3f} ({seeds}95 % interval {row.low:.3f} to {row.high:.3f}, n = {int(row.n_test):,}{beside})"


def apart(found: Difference, p: float) -> str:
    """What a comparison allows to say: different, or not told apart,
    and then how large a difference would have shown."""
    if p < 0.05:
        return f"a difference that the paired test finds (p = {p:.2g})"
    if math.isnan(p):
        return "all seeds differ by the same amount, and the paired test has no spread to judge by"
    least = f"; it would have found {found.detectable:.3f} in four of five tries" if found.detectable > 0 else ""
    return f"the paired test does not tell the two apart (p = {p:.2g}{least})"


def made(records: Sequence[Record]) -> str:
    """Where and when runs were trained, as the end of a sentence; empty without any."""
    where = dict.fromkeys(device(record.environment["machine"]) for record in records)
    days = sorted(record.environment["started"][:10] for record in records)
    return f"; trained on {'; '.join(where)}, {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""


def absent(p: Params) -> list[str]:
    """A sentence about those of the study's five networks that a page is without; none where none is missing."""
    missing = [name(model) for model in FIVE if model not in p.models]
    return [f"Not trained: {', '.join(missing)}."] if missing else []


def limits(p: Params, frame: pd.DataFrame, records: Sequence[Record] = ()) -> list[str]:
    """What the runs of a page cannot say: seeds, subsets, unfinished curves, runs that failed."""
    found = [f"Budget `{p.budget}`, {p.epochs} epochs at {p.image_size} px{made(records)}."]
    if p.seeds == 1:
        found.append("One seed: how much a second training would differ is not known; intervals are over test images.")
    if any(0 < size < (pool or math.inf) for size, pool in ((p.train_size, p.pool_train), (p.test_size, p.pool_test))):
        found.append("A subset of the data set, as the counts of images in the table say.")
    if rising := sorted({name(record.run.model) for record in records if not flat(record)}):
        found.append(f"The validation curve was still rising at the last epoch: {', '.join(rising)}.")
    found += _classes(records) + _seen(records)
    done = frame[frame["status"] == "done"]
    if len(weak := done[done["train_top1"] < FITTED]):
        found.append(
            f"Top-1 on its own training images stayed below {FITTED} in {len(weak)} of {len(done)} runs "
            f"({', '.join(sorted({name(model) for model in weak['model']}))}): they were trained too little for their "
            "accuracy to say what the network can do."
        )
    steps = [max(1, int(row.n_train // row.batch_size)) * int(row.epochs_run) for row in done.itertuples()]
    if steps and min(steps) < SETTLED:
        found.append(
            f"Some runs took as few as {min(steps)} optimiser steps: the running statistics of BatchNorm may not have "
            "settled, so that a network evaluates worse than it has learned."
        )
    for row in frame[frame["status"] != "done"].itertuples():
        found.append(f"No result from {name(row.model)}, run `{row.key}`: {row.status} ({row.reason}).")
    return found


def _classes(records: Sequence[Record]) -> list[str]:
    """A sentence about unequal classes, by the test images of one of these runs; none where they are equal."""
    for record in records:
        if unequal(record.guess_top1, record.metrics["num_classes"]):
            names, labels = record.metrics["classes"], record.predictions["labels"]
            few, *_, many = sorted(zip(np.bincount(labels, minlength=len(names)).tolist(), names, strict=True))
            few, many = (f"{count:,} ({_plain(name)})" for count, name in (few, many))
            ends = f"from {few} to {many} of {len(labels):,} test images"
            return [f"Classes are unequal, {ends}: top-1 is mostly about the large ones, macro F1 about all alike."]
    return []


def _seen(records: Sequence[Record]) -> list[str]:
    """A sentence on runs that start from weights which have seen their data set or its classes; none without any."""
    found = dict.fromkeys((record.run.weights, DATASETS[record.run.dataset]) for record in records)
    return [
        f"Weights from `{weights}` have seen the images or the classes of {row.title}: the top-1 of runs that start "
        "from them says little about new classes."
        for weights, row in found
        if weights in row.seen_by
    ]


def _plain(name: str) -> str:
    """A class's name in Markdown, where none of its signs may mean anything."""
    return re.sub(r"([^\w\s])", r"\\\1", " ".join(name.split()))


def architectures(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> str:
    """Which network validation prefers, which the paired tests tell from it, and whether they may be ranked."""
    groups = by_model(records, printed=False)
    done = compare.summary(frame[frame["key"].isin([record.run.key for record in records])])
    if done.empty or not groups:
        return bullets(["No network has a result."], limits(p, frame, records))
    top, small = done.nlargest(1, "val_top1").iloc[0], done.nsmallest(1, "macs").iloc[0]
    found = [f"Validation prefers **{name(top.model)}**; its test top-1 is {rate(top)}."]
    if small.model == top.model:
        found.append(f"It also has the fewest MACs, {top.macs / 1e6:.1f} million.")
    else:
        found.append(
            f"The fewest MACs has **{name(small.model)}**, {small.macs / 1e6:.1f} million against {top.macs / 1e6:.1f} "
            f"million; its test top-1 is {rate(small)}."
        )
    found += _rivals(done, groups, top)
    found.append(_ranking(p, done, records))
    if p.tune_epochs not in (0, p.epochs):
        found += _longer(p, records)
    return bullets(found, absent(p) + limits(p, frame, records))


def _ranking(p: Params, done: pd.DataFrame, records: Sequence[Record]) -> str:
    """The order by top-1, or why none is given: rates that were not tuned or sit at an edge, curves that still rise."""
    if not all(chosen(ladder(p, model)) for model in done["model"]):
        return "No ranking is given: one learning rate served all networks, none was tuned for its own."
    rates = {row.model: tried(ladder(p, row.model)) for row in done.itertuples()}
    said = [
        f"{name(row.model)} {row.lr:g} of {len(few := rates[row.model])} from {few[0]:g} to {few[-1]:g}"
        for row in done.itertuples()
    ]
    length = f", by runs of {p.tune_epochs} epochs" if p.tune_epochs else ""
    tuned = f"Learning rates were chosen on validation, one seed{length}: {'; '.join(said)}."
    edge = [name(row.model) for row in done.itertuples() if row.lr in (rates[row.model][0], rates[row.model][-1])]
    rising = not all(map(flat, records))
    why = [f"the learning rate sits at the edge of those tried: {', '.join(edge)}"] * bool(edge)
    why += [f"at {p.epochs} epochs another rate may be better"] * (p.tune_epochs not in (0, p.epochs))
    why += ["validation curves were still rising, see below"] * rising
    if why:
        return f"{tuned} No ranking is given: {'; '.join(why)}."
    order = ", ".join(
        f"{name(row.model)} {row.top1:.3f}" for row in done.sort_values("top1", ascending=False).itertuples()
    )
    return f"{tuned} By top-1: {order}; the table of ranks says how sure this order is."


def _longer(p: Params, records: Sequence[Record]) -> list[str]:
    """What the page's epochs bring over those of the runs that chose its learning rates,
    and whether they change the order."""
    gains, longer, shorter = [], {}, {}
    for model, own in by_model(records, printed=False).items():
        asked = [Run(**record.run.model_dump() | {"epochs": p.tune_epochs}) for record in own]
        before = [record for record in map(find, asked) if record]
        if common_seeds(own, before):
            keys = ", ".join(f"`{record.run.key}`" for record in before)
            gains.append(f"{name(model)} {difference(own, before).text()}, before: {keys}")
            longer[name(model)], shorter[name(model)] = (
                fmean(r.metrics["top1"] for r in side) for side in (own, before)
            )
    if not gains:
        return []
    now, then = (" > ".join(sorted(means, key=means.get, reverse=True)) for means in (longer, shorter))
    gained = (
        f"What {p.epochs} epochs bring over {p.tune_epochs} at the same rates, seeds and images: {'; '.join(gains)}."
    )
    return [f"{gained} By top-1 that is {now}; at {p.tune_epochs} epochs it was {'the same' if now == then else then}."]


def _rivals(done: pd.DataFrame, groups: dict[str, list[Record]], top) -> list[str]:
    """The preferred network against each other one, by paired tests with Holm's correction;
    the cheapest of its equals."""
    own = groups.pop(top.model)
    gaps = {model: difference(own, records) for model, records in groups.items() if common_seeds(own, records)}
    if not gaps:
        return []
    p = dict(zip(gaps, stats.holm([gap.p for gap in gaps.values()]), strict=True))
    found = [f"Against {name(m)}: {gap.text()}: {apart(gap, p[m])}." for m, gap in gaps.items()]
    equals = [model for model in gaps if not p[model] < 0.05]
    if equals:
        cheap = done[done["model"].isin([top.model, *equals])].nsmallest(1, "parameters").iloc[0]
        found.append(
            f"Of the {len(equals) + 1} networks that these tests do not tell from the preferred one, itself included, "
            f"**{name(cheap.model)}** has the fewest parameters, {cheap.parameters / 1e6:.2f} million."
        )
    return found + ["p is corrected by Holm over these comparisons."] * (len(gaps) > 1)


def _gap(one, other, records: Sequence[Record]) -> str:
    """The paired difference of two rows of `compare.summary`, in words."""
    first, second = ([r for r in records if r.run.key in row.key.split() and r.learned] for row in (one, other))
    if not common_seeds(first, second):
        return "they have no seed in common, and are not compared."
    gap = difference(first, second)
    return f"{gap.text()}: {apart(gap, gap.p)}."


def transfer(p: Params, frame: pd.DataFrame, records: Sequence[Record], source: str) -> str:
    """What starting from a source brings, at the most and at the fewest training images."""
    chosen, found = best(frame, ["arm", "n_train"]), [f"Source of the weights: {source}."]
    found += ["No arm has a result."] * chosen.empty
    for size in sorted(chosen["n_train"].unique(), reverse=True):
        rows = {r.arm: r for r in chosen[chosen["n_train"] == size].itertuples()}
        found.append(f"{int(size):,} training images: " + "; ".join(f"{a} {rate(r)}" for a, r in rows.items()) + ".")
        for arm in [arm for arm in rows if arm != "from scratch" and "from scratch" in rows]:
            found.append(f"There, {arm} minus from scratch: {_gap(rows[arm], rows['from scratch'], records)}")
    edge = sorted({r.arm for r in chosen.itertuples() if r.lr in (min(p.transfer_lrs), max(p.transfer_lrs))})
    if edge:
        found.append(
            "The chosen learning rate sits at the edge of its grid, so a better one may lie outside: "
            f"{', '.join(edge)}."
        )
    return bullets(found, limits(p, frame, records))


def augmentation(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> str:
    """Which policy validation prefers, against none, and how the gap to the training images moves."""
    done = compare.summary(frame.dropna(subset=["top1"]))
    if done.empty:
        return bullets(["No policy has a result."], limits(p, frame, records))
    top, found = done.nlargest(1, "val_top1").iloc[0], []
    found.append(f"Validation prefers **{top.augment}**; its test top-1 is {rate(top)}.")
    for plain in done[done["augment"] == "none"].head(1).itertuples():
        found.append(
            f"Without augmentation it is {rate(plain)}, and training top-1 is {plain.gap:+.3f} above validation."
        )
        if top.augment != "none":
            found.append(f"{top.augment} minus none: {_gap(top, plain, records)}")
    widest = done.loc[done["gap"].idxmax()]
    found.append(f"The widest gap between training and validation has **{widest.augment}**, {widest.gap:+.3f}.")
    return bullets(found, limits(p, frame, records))


def hyperparameters(p: Params, frame: pd.DataFrame, records: Sequence[Record]) -> str:
    """The setting that validation prefers, how far the settings lie apart, and whether the winner sits at an edge."""
    done = compare.summary(frame.dropna(subset=["val_top1"]))
    if done.empty:
        return bullets(["No setting has a result."], limits(p, frame, records))
    top = done.nlargest(1, "val_top1").iloc[0]
    setting = f"{top.optimizer}, learning rate {top.lr:g}, batch size {top.batch_size}, {top.schedule} schedule, "
    setting += f"weight decay {top.weight_decay:g}"
    found = [
        f"Of {len(done)} settings validation prefers {setting}; its test top-1 is {rate(top)}.",
        f"Validation top-1 runs from {done['val_top1'].min():.3f} to {done['val_top1'].max():.3f} over the settings.",
    ]
    rates = done.loc[done["optimizer"] == top.optimizer, "lr"]
    if top.lr in (rates.min(), rates.max()):
        found.append("The winner's learning rate is the lowest or highest tried: a better one may lie outside.")
    return bullets(found, limits(p, frame, records))


def deployment(
    wide: pd.DataFrame, macs: pd.Series, converted: pd.DataFrame, noise: dict[str, float], cannot: Sequence[str]
) -> str:
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
        same = f"; equal to it within the noise: {', '.join(equal)}" if equal else ""
        found.append(f"Fastest by {way}: **{name(order.index[0])}**, {order.iloc[0]:.3f} ms{same}.")
        both = macs.reindex(order.index).dropna()
        if len(both) > 2:
            tau = kendalltau(both, order[both.index]).statistic
            found.append(
                f"The order by MACs and by {way} agree with Kendall's tau {tau:.2f}, over {len(both)} networks."
            )
    eager = f"{PYTORCH} fp32"
    for way in (way for way in ways if way.endswith("fp32") and eager in wide):
        over = (wide[eager] / wide[way]).dropna()
        uneven = over.max() > 1.5 * over.min()
        found.append(
            f"Eager PyTorch takes {over.min():.1f} ({name(over.idxmin())}) to {over.max():.1f} ({name(over.idxmax())}) "
            "times "
            f"as long as {way}: " + ("it distorts the comparison." if uneven else "much the same factor for all.")
        )
    found += _int8(wide, converted)
    about = [f"Measured again, the same cell moves by up to {share:.1%} by {way}." for way, share in noise.items()]
    about += [
        "Latency and memory were measured with random weights: values do not change what is computed, bar rare cases."
    ]
    return bullets(found or ["No runtime has a record."], [*about, *cannot])


def _int8(wide: pd.DataFrame, converted: pd.DataFrame) -> list[str]:
    found = []
    for runtime, rows in converted[converted["precision"] == "int8"].groupby("runtime", sort=False):
        lost, n = rows[rows["marked"] != ""], rows["n_test"].iloc[0]
        which = ", ".join(f"{name(r.model)} ({r.difference:+.3f})" for r in lost.itertuples()) or "none"
        found.append(f"INT8 by {runtime} loses more than a point of top-1, of {n:,} images: {which}.")
        if {f"{runtime} int8", f"{runtime} fp32"} <= set(wide):
            gain = (wide[f"{runtime} fp32"] / wide[f"{runtime} int8"]).dropna()
            found.append(
                f"By {runtime} INT8 is {gain.min():.2f} ({name(gain.idxmin())}) to {gain.max():.2f} "
                f"({name(gain.idxmax())}) times as fast as fp32."
            )
    for row in converted[converted["precision"] == "int8-aware"].itertuples():
        found.append(f"Fine-tuned through the rounding, {name(row.model)} is at {row.difference:+.3f} against fp32.")
    return found


def bullets(found: list[str], limits: list[str]) -> str:
    """Markdown: the findings, then the limits."""
    lines = [f"- {line}" for line in found] + ["", "**What this cannot say.**", ""] + [f"- {line}" for line in limits]
    return "\n".join(lines)


def verdicts_table(verdicts: Sequence[Verdict], titles: dict[str, str]) -> pd.DataFrame:
    """A row a claim, a column a page, with the verdicts; `key` holds the runs behind them."""
    rows: dict[str, dict] = {}
    for v in verdicts:
        row = rows.setdefault(v.claim.id, {"claim": v.claim.id, "statement": v.claim.statement})
        row |= dict.fromkeys([v.page] if v.page else titles, v.verdict)
        row["key"] = " ".join([row.pop("key", ""), *v.keys]).strip()
        row["source"] = row.pop("source", v.claim.source)
    return pd.DataFrame(rows.values()).rename(columns=titles)


def verdicts(verdicts: Sequence[Verdict]) -> str:
    """Markdown: each claim with its verdict, then what is missing, the numbers, their limit, the rule, and the runs."""
    return "\n\n".join(_paragraph(v) for v in verdicts)


def rule_in_words(claim: Claim) -> str:
    """The rule that decides a claim, made from its fields."""
    own, others = describe(claim.group), ", ".join(map(describe, claim.rivals))
    cost = label(claim.column).split(",")[0]
    said = {
        "better": f"top-1 of {own} minus that of {others}: above {claim.margin:g} with both of its intervals, over "
        f"seeds and over test images; it does not hold if one comparison lies below it",
        "sooner": f"{own} reaches the best validation top-1 of {others} in fewer epochs: the interval of the factor "
        f"over seeds lies above {claim.margin:g}; it does not hold if it lies below",
        "widest": f"top-1 of {own} minus that of {others}, on {sets_of(claim.datasets)} larger than on "
        f"{sets_of(claim.against)} (Welch's t over seeds)",
        "lowest": f"{cost} of {own} below that of {others}" + f" by more than {claim.margin:.0%}" * (claim.margin > 0),
        "swapped": f"some network is below another in {label(claim.baseline).split(',')[0]} and above it in {cost}, "
        f"both by more than {claim.margin:.0%}",
        "balance": f"{own} leads by a weighted score in {rules.SURE:.0%} of resamples of images and seeds; it does "
        f"not hold if it leads in {1 - rules.SURE:.0%} or fewer",
    }[claim.rule]
    least = [f"{claim.seeds} seeds"] * (claim.seeds > 1) + ["tuned learning rates"] * claim.tuned
    least += ["weights from ImageNet"] * (claim.pretrained == "imagenet")
    least += [sets_of(claim.datasets)] * bool(claim.datasets)
    return said + (f". Least evidence: {'; '.join(least)}" if least else "") + "."


def _paragraph(v: Verdict) -> str:
    lines = [f"**{v.claim.id}. {v.claim.statement}** ({v.claim.source}): **{v.verdict}**.", ""]
    lines += [f"- What is missing: {'; '.join(v.reasons)}."] * bool(v.reasons)
    lines += [f"- Numbers: {v.numbers}."] * bool(v.numbers)
    lines += [f"- Limit: {v.claim.limit}"] * bool(v.claim.limit)
    lines += [f"- Rule: {rule_in_words(v.claim)}"]
    return "\n".join([*lines, *[f"- {trace.links(v.keys)}"] * bool(v.keys)])
