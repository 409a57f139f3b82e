"""Sentences that the results carry, and what they cannot say."""

import pandas as pd

from lwnb import stats
from lwnb.figures import name
from lwnb.params import Params
from lwnb.results import Record

SETTLED = 100
"""Optimiser steps below which the running statistics of BatchNorm (momentum 0.1) may lag behind the weights."""

FITTED = 0.9
"""Below this top-1 on its own training images, without augmentation, a network had not yet learned them."""

FLAT = 0.01
"""A validation curve is flat when its last fifth rises above the fifth before by less than this much top-1."""


def best(frame: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """The row with the highest validation top-1, or one for each group: the test split chooses nothing."""
    known = frame.dropna(subset=["val_top1"])
    if not by:
        return known.nlargest(1, "val_top1")
    return known.loc[known.groupby(by, sort=False)["val_top1"].idxmax()].reset_index(drop=True)


def rate(row) -> str:
    """Test top-1 in words, with its 95 % interval and the number of images."""
    low, high = stats.wilson(row.top1, int(row.n_test))
    return f"{row.top1:.3f} (95 % interval {low:.3f} to {high:.3f}, n = {int(row.n_test):,})"


def flat(record: Record) -> bool:
    """Whether the validation curve had flattened: see `FLAT`."""
    curve = record.history["val_top1"].to_numpy()
    fifth = max(1, len(curve) // 5)
    return len(curve) >= 5 and bool(curve[-fifth:].mean() - curve[-2 * fifth : -fifth].mean() < FLAT)


def limits(p: Params, frame: pd.DataFrame, records: list[Record] = ()) -> list[str]:
    """What the runs of a page cannot say: seeds, subsets, unfinished curves, runs that failed."""
    found = [f"Budget `{p.budget}`, {p.epochs} epochs at {p.image_size} px."]
    if p.seeds == 1:
        found.append("One seed: how much a second training would differ is not known; intervals are over test images.")
    if p.train_size or p.test_size:
        found.append("A subset of the data set, as the counts of images in the table say.")
    if rising := sorted({name(record.run.model) for record in records if not flat(record)}):
        found.append(f"The validation curve was still rising at the last epoch: {', '.join(rising)}.")
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
        reason = row.reason if row.status == "failed" else "its loss stayed at that of a constant guess"
        found.append(f"No result from {name(row.model)}, run `{row.key}`: {row.status} ({reason}).")
    return found


def architectures(p: Params, frame: pd.DataFrame, records: list[Record]) -> str:
    """Which network validation prefers, what the cheapest costs, and whether they may be ranked."""
    done = frame.dropna(subset=["top1"])
    if done.empty:
        return bullets(["No network has a result."], limits(p, frame, records))
    mean = done.groupby("model", sort=False).mean(numeric_only=True).reset_index()
    top, small = mean.nlargest(1, "val_top1").iloc[0], mean.nsmallest(1, "macs").iloc[0]
    found = [
        f"Validation prefers **{name(top.model)}**; its test top-1 is {rate(top)}.",
    ]
    if small.model == top.model:
        found.append(f"It also has the fewest MACs, {top.macs / 1e6:.1f} million.")
    else:
        found.append(
            f"The fewest MACs has **{name(small.model)}**, {small.macs / 1e6:.1f} million against {top.macs / 1e6:.1f} "
            f"million; its test top-1 is {rate(small)}."
        )
    fits = mean[[stats.wilson(r.top1, int(r.n_test))[1] >= top.top1 for r in mean.itertuples()]]
    if len(fits) > 1:
        cheap = fits.nsmallest(1, "parameters").iloc[0]
        found.append(
            f"Of the {len(fits)} networks whose interval reaches that of the preferred one, "
            f"**{name(cheap.model)}** has the fewest parameters, {cheap.parameters / 1e6:.2f} million."
        )
    found.append("No ranking is given: one learning rate served all networks, none was tuned for its own.")
    return bullets(found, limits(p, frame, records))


def transfer(p: Params, frame: pd.DataFrame, source: str) -> str:
    """What starting from a source brings, at the most and at the fewest training images."""
    chosen, found = best(frame, ["arm", "n_train"]), [f"Source of the weights: {source}."]
    for size in sorted(chosen["n_train"].unique(), reverse=True):
        rows = chosen[chosen["n_train"] == size]
        found.append(
            f"{int(size):,} training images: " + "; ".join(f"{r.arm} {rate(r)}" for r in rows.itertuples()) + "."
        )
    edge = sorted({r.arm for r in chosen.itertuples() if r.lr in (min(p.transfer_lrs), max(p.transfer_lrs))})
    if edge:
        found.append(
            f"The chosen learning rate sits at the edge of its grid, so a better one may lie outside: {', '.join(edge)}."
        )
    return bullets(found, limits(p, frame))


def augmentation(p: Params, frame: pd.DataFrame) -> str:
    """Which policy validation prefers, against none, and how the gap to the training images moves."""
    done = frame.dropna(subset=["top1"])
    if done.empty:
        return bullets(["No policy has a result."], limits(p, frame))
    top, found = best(done).iloc[0], []
    found.append(f"Validation prefers **{top.augment}**; its test top-1 is {rate(top)}.")
    for plain in done[done["augment"] == "none"].head(1).itertuples():
        found.append(
            f"Without augmentation it is {rate(plain)}, and training top-1 is {plain.gap:+.3f} above validation."
        )
    widest = done.loc[done["gap"].idxmax()]
    found.append(f"The widest gap between training and validation has **{widest.augment}**, {widest.gap:+.3f}.")
    return bullets(found, limits(p, frame))


def hyperparameters(p: Params, frame: pd.DataFrame) -> str:
    """The setting that validation prefers, how far the settings lie apart, and whether the winner sits at an edge."""
    done = frame.dropna(subset=["val_top1"])
    if done.empty:
        return bullets(["No setting has a result."], limits(p, frame))
    top = best(done).iloc[0]
    setting = f"{top.optimizer}, learning rate {top.lr:g}, batch size {top.batch_size}, {top.schedule} schedule, "
    found = [
        f"Of {len(done)} settings validation prefers {setting}weight decay {top.weight_decay:g}; its test top-1 is {rate(top)}.",
        f"Validation top-1 runs from {done['val_top1'].min():.3f} to {done['val_top1'].max():.3f} over the settings.",
    ]
    rates = done.loc[done["optimizer"] == top.optimizer, "lr"]
    if top.lr in (rates.min(), rates.max()):
        found.append("The winner's learning rate is the lowest or highest tried: a better one may lie outside.")
    return bullets(found, limits(p, frame))


def bullets(found: list[str], limits: list[str]) -> str:
    """Markdown: the findings, then the limits."""
    lines = [f"- {line}" for line in found] + ["", "**What this cannot say.**", ""] + [f"- {line}" for line in limits]
    return "\n".join(lines)
