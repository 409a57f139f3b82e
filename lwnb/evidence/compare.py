"""Settings compared on the same test images: means over seeds, pairs, fronts, ranks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lwnb.evidence import stats
from lwnb.plan.columns import incomparable
from lwnb.plan.facts import name
from lwnb.plan.run import Run
from lwnb.records.results import Record

FLAT = 0.01
"""A validation curve is flat when its last fifth rises above the fifth before by less than this much top-1."""

SETTING = [field for field in Run.model_fields if field not in ("seed", "split_seed", "source", "weights_file")]
"""What the seeds of one setting have in common."""

COSTS = ("macs", "size_bytes", "latency_ms")

ADDED = ("seeds", "sd", "low", "high", "interval")
"""What `summary` knows of a setting beside the means of its runs' columns."""


def flat(record: Record) -> bool:
    """Whether the validation curve had flattened: see `FLAT`."""
    curve = record.history["val_top1"].to_numpy()
    fifth = max(1, len(curve) // 5)
    return len(curve) >= 5 and bool(curve[-fifth:].mean() - curve[-2 * fifth : -fifth].mean() < FLAT)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a setting of a table of runs: means over its seeds, their number and standard deviation, and an interval.

    The 95 % interval of top-1, `low` to `high`, is Wilson's over test images and, with several seeds, Student's t over
    seeds, whichever reaches further: three seeds that happen to agree are no proof that a fourth would.
    `key` holds the keys of all the runs, `status` what became of them. Costs stand also where no run learned.
    """
    by = [column for column in [*SETTING, "arm"] if column in frame]
    rows = [_mean(rows) for _, rows in frame.groupby(by, sort=False, dropna=False)]
    return pd.DataFrame(rows, columns=dict.fromkeys(column for row in rows or [ADDED] for column in [*frame, *row]))


def _mean(rows: pd.DataFrame) -> dict:
    known, first = rows.dropna(subset=["top1"]), rows.iloc[0]
    means = {c: rows[c].mean() for c in rows.select_dtypes("number") if c not in SETTING}
    states = rows["status"].value_counts()
    merged = first.to_dict() | means | {"seeds": len(known), "key": " ".join(rows["key"])}
    merged["status"] = states.index[0] if len(states) == 1 else ", ".join(f"{n} {s}" for s, n in states.items())
    merged["sd"] = known["top1"].std(ddof=1)
    if apart := incomparable(rows):
        merged |= dict.fromkeys(apart) | {"trained_on": "; ".join(rows["trained_on"].dropna().unique())}
    if known.empty:
        return merged | {"low": np.nan, "high": np.nan, "interval": None}
    ends = [stats.wilson(merged["top1"], int(merged["n_test"])), stats.over_seeds(known["top1"])[1:]]
    low, high = max(np.nanmin(ends), 0.0), min(np.nanmax(ends), 1.0)
    return merged | {"low": low, "high": high, "interval": f"{low:.3f} to {high:.3f}"}


def best(frame: pd.DataFrame, by: list[str] | None = None) -> pd.DataFrame:
    """The setting with the highest mean validation top-1, or one for each group: the test split chooses nothing."""
    known = summary(frame.dropna(subset=["val_top1"]))
    if known.empty or not by:
        return known if known.empty else known.nlargest(1, "val_top1")
    return known.loc[known.groupby(by, sort=False)["val_top1"].idxmax()].reset_index(drop=True)


def right(records: Sequence[Record]) -> np.ndarray:
    """(S, N) bool: whether each of S runs is right about each of N test images.

    Raises
    ------
    ValueError
        The runs were not tested on the same images.
    """
    labels = records[0].predictions["labels"]
    for record in records:
        if not np.array_equal(record.predictions["labels"], labels):
            raise ValueError(f"runs {records[0].run.key} and {record.run.key} were not tested on the same images")
    return np.stack([record.predictions["top5"][:, 0] == labels for record in records])


def without_near(chosen: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """The rows of `best` whose source's images are known,
    with top-1 on all test images and without near-duplicates of those.

    `near` is how many test images have such a near-duplicate (`lwnb.data.sets.near`), `top1_apart` the mean over seeds
    of top-1 on the others.
    """
    known, rows = {record.run.key: record for record in records}, []
    for row in chosen.to_dict("records"):
        seeds = [known[key] for key in row["key"].split() if key in known]
        if seeds and all("near_source" in record.predictions for record in seeds):
            near = seeds[0].predictions["near_source"]
            apart = right(seeds)[:, ~near].mean() if not near.all() else np.nan
            rows.append(row | {"near": int(near.sum()), "top1_apart": apart})
    return pd.DataFrame(rows, columns=[*chosen, "near", "top1_apart"])


@dataclass(frozen=True)
class Difference:
    """Top-1 of one setting minus another, with both of its intervals; over seeds it is nan where there is one seed."""

    mean: float
    images: tuple[float, float]
    seeds: tuple[float, float]
    p: float
    detectable: float
    n_seeds: int
    n_test: int

    @property
    def low(self) -> float:
        """The lower of the lower ends: what other images and other trainings would bear."""
        return float(np.nanmin([self.images[0], self.seeds[0]]))

    @property
    def high(self) -> float:
        """The higher of the higher ends."""
        return float(np.nanmax([self.images[1], self.seeds[1]]))

    def text(self) -> str:
        """The difference in words, with what its intervals are about."""
        low, high = self.images
        said = f"{self.mean:+.3f} (95 % interval over {self.n_test:,} images {low:+.3f} to {high:+.3f}"
        if self.n_seeds > 1:
            return f"{said}, over {self.n_seeds} seeds {self.seeds[0]:+.3f} to {self.seeds[1]:+.3f})"
        return f"{said}, for these trained weights)"


def difference(first: Sequence[Record], second: Sequence[Record], level: float = stats.LEVEL) -> Difference:
    """Compare two settings seed by seed and image by image.

    The p value, and the difference that was detectable with power 0.8, are those of the paired t test over seeds; with
    one seed, of McNemar's exact test on the images.

    Raises
    ------
    ValueError
        They have no seed in common, or were not tested on the same images.
    """
    one, two = ({record.run.seed: record for record in records} for records in (first, second))
    seeds = common_seeds(first, second)
    if not seeds:
        raise ValueError(f"runs {first[0].run.key} and {second[0].run.key} have no seed in common")
    both = right([one[seed] for seed in seeds] + [two[seed] for seed in seeds])
    a, b = both[: len(seeds)], both[len(seeds) :]
    mean, *images = stats.difference(a, b, level)
    by_seed = a.mean(axis=1) - b.mean(axis=1)
    _, *over = stats.over_seeds(by_seed, level)
    if len(seeds) > 1:
        p, least = stats.p_over_seeds(by_seed), stats.detectable(by_seed.std(ddof=1), len(seeds))
    else:
        p, least = stats.p_mcnemar(a[0], b[0]), stats.detectable(stats.spread(a, b), a.shape[1])
    return Difference(mean, tuple(images), tuple(over), p, least, len(seeds), a.shape[1])


def pairs(groups: dict[str, list[Record]]) -> list[pd.DataFrame]:
    """Every pair of groups: a table for the trained weights of their first seed,
    and one over seeds if there are several.

    The first has differences of top-1 and macro F1 with bootstrap intervals over the images, and McNemar's exact test;
    the second the mean difference with its t interval and the paired t test. p is corrected by Holm over each table.
    """
    chosen = [(a, b) for a, b in itertools.combinations(groups, 2) if common_seeds(groups[a], groups[b])]
    tables = [[_weights(groups, *pair) for pair in chosen]]
    if any(len(common_seeds(groups[a], groups[b])) > 1 for a, b in chosen):
        tables.append([_over_seeds(groups, *pair) for pair in chosen])
    return [_corrected(rows) for rows in tables if rows]


def common_seeds(*groups: Sequence[Record]) -> list[int]:
    """The seeds that every one of these groups of runs has."""
    return sorted(set.intersection(*({record.run.seed for record in records} for records in groups)))


def _weights(groups: dict, a: str, b: str) -> dict:
    seed = common_seeds(groups[a], groups[b])[0]
    one, two = (next(r for r in groups[g] if r.run.seed == seed) for g in (a, b))
    found = difference([one], [two])
    labels, guesses = one.predictions["labels"], [r.predictions["top5"][:, 0] for r in (one, two)]
    f1, *f1_interval = stats.f1_difference(labels, *guesses)
    row = {"pair": f"{a} − {b}", "trained": seed, "difference": found.mean, "difference_interval": span(found.images)}
    row |= {"f1_difference": f1, "f1_interval": span(f1_interval), "p": found.p, "p_holm": np.nan}
    return row | {"detectable": found.detectable, "key": f"{one.run.key} {two.run.key}"}


def _over_seeds(groups: dict, a: str, b: str) -> dict:
    found = difference(groups[a], groups[b])
    row = {"pair": f"{a} − {b}", "seeds": found.n_seeds, "difference": found.mean, "seeds_interval": span(found.seeds)}
    keys = " ".join(record.run.key for group in (a, b) for record in groups[group])
    return row | {"p": found.p, "p_holm": np.nan, "detectable": found.detectable, "key": keys}


def _corrected(rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=stats.holm(frame["p"]))


def span(ends: Sequence[float]) -> str | None:
    """The two ends of an interval of a difference, as text; None where there is none."""
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}" if ends[0] == ends[0] else None


def resampled(groups: dict[str, list[Record]]) -> np.ndarray:
    """(R, M) top-1 of each group over resampled test images, for each seed that all groups have:
    `stats.resample_top1`."""
    common = common_seeds(*groups.values())
    if not common:
        return np.empty((0, len(groups)))
    each = [next(r for r in records if r.run.seed == seed) for seed in common for records in groups.values()]
    return stats.resample_top1(right(each).reshape(len(common), len(groups), -1))


def fronts(groups: dict[str, list[Record]], frame: pd.DataFrame, costs: Sequence[str] = COSTS) -> pd.DataFrame:
    """How sure ranks and Pareto fronts are: mean rank by top-1 with its 95 % interval,
    and how often each is on a front.

    Over resampled test images and seeds, see `stats.resample_top1`; costs are taken as exact, one value a network.

    Parameters
    ----------
    groups : records by the model's name
    frame : a table of their runs with the columns of `costs`; those that are missing are left out
    """
    if not groups or not len(tops := resampled(groups)):
        return pd.DataFrame({"model": pd.Series(dtype=str)})
    means = frame.groupby("model")[[c for c in costs if c in frame]].mean()
    rank = stats.ranks(tops)
    found = pd.DataFrame({"model": list(groups), "rank": rank[:, 0]})
    found["rank_interval"] = [f"{low:g} to {high:g}" for low, high in rank[:, 1:]]
    for column in means:
        cost = means.loc[list(groups), column]
        if cost.notna().all():
            found[f"front_{column}"] = stats.on_front(cost, tops)
    found["key"] = [" ".join(record.run.key for record in records) for records in groups.values()]
    return found


def by_model(records: Sequence[Record], printed: bool = True) -> dict[str, list[Record]]:
    """The records that learned, by network: under its name in print, or as parameters name it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.learned:
            groups.setdefault(name(record.run.model) if printed else record.run.model, []).append(record)
    return groups
