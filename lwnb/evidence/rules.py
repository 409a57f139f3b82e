"""The rules by which records decide a claim: each takes evidence and gives what it shows, and why it may not decide."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, ttest_ind

from lwnb.evidence import stats
from lwnb.evidence.arms import Claim, Evidence, keys_of, sides, weaknesses
from lwnb.evidence.compare import common_seeds, difference, resampled
from lwnb.plan.columns import COLUMNS, Column, label, number
from lwnb.plan.facts import name
from lwnb.records.results import Record

SURE = 0.95
"""The share of resamples in which a network must lead for its balance to be called the best; below 1 - SURE,
it is not."""


@dataclass(frozen=True)
class Finding:
    """What the runs show: whether the statement holds (None: open), numbers, why they cannot decide, and their keys."""

    holds: bool | None
    numbers: str = ""
    reasons: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def better(claim: Claim, evidence: Evidence) -> Finding:
    """Top-1 of the group minus each rival, beyond a margin with both intervals, over images and over seeds.

    With several rivals the level of each interval is raised to 1 - 0.05 / rivals (Bonferroni).
    """
    group, rivals = sides(claim, evidence)
    level = 1 - 0.05 / len(rivals)
    gaps, apart = {}, []
    for rival in (rival for rival in rivals if rival.records and group.records):
        if common_seeds(group.records, rival.records):
            gaps[rival.name] = difference(group.records, rival.records, level)
        else:
            apart.append(f"{group.name} and {rival.name} have no seed in common")
        if claim.tuned and rival.tried != group.tried:
            apart.append(f"{group.tried} settings of {group.name} were tried, and {rival.tried} of {rival.name}")
    said = "; ".join(f"{group.name} minus {rival}: {gap.text()}" for rival, gap in gaps.items())
    numbers = said.replace("95 %", f"{100 * level:g} %")
    refuting = [rival for rival in rivals if rival.name in gaps and gaps[rival.name].high < claim.margin]
    if refuting and not apart and not weaknesses(group, *refuting):
        return Finding(False, numbers, [], keys_of(group, *rivals))
    reasons = weaknesses(group, *rivals) + apart
    holds = False if refuting else True if all(gap.low > claim.margin for gap in gaps.values()) else None
    if gaps and holds is None:
        least = max(gap.detectable for gap in gaps.values())
        reasons.append(
            f"the intervals reach to both sides of {claim.margin:g}; "
            f"{least:.3f} would have been found, four times in five"
        )
    return Finding(holds, numbers, reasons, keys_of(group, *rivals))


def _epochs_to(record: Record, target: float) -> int:
    """The first epoch at which validation top-1 reached the target; one more than there were, if none did."""
    curve = record.history["val_top1"].to_numpy()
    return int(np.argmax(curve >= target)) + 1 if (curve >= target).any() else len(curve) + 1


def sooner(claim: Claim, evidence: Evidence) -> Finding:
    """How many times fewer epochs the group needs to the best validation top-1 of its rival, seed by seed."""
    group, (rival,) = sides(claim, evidence)
    others = {record.run.seed: record for record in rival.records}
    logs = []
    for record in (record for record in group.records if record.run.seed in others):
        other = others[record.run.seed]
        target = other.history["val_top1"].max()
        logs.append(np.log(_epochs_to(other, target) / _epochs_to(record, target)))
    if not logs:
        return Finding(None, "", weaknesses(group, rival), keys_of(group, rival))
    mean, low, high = np.exp(stats.over_seeds(logs))
    numbers = f"{rival.name} takes {mean:.2f} times the epochs of {group.name} to its own best validation top-1"
    numbers += f" (95 % interval over {len(logs)} seeds {low:.2f} to {high:.2f})" if len(logs) > 1 else ""
    holds = True if low > claim.margin else False if high < claim.margin else None
    reasons = weaknesses(group, rival)
    if np.ptp(logs) == 0:
        reasons.append("all seeds took the same epochs, which leaves no spread to judge by")
    elif holds is None:
        reasons.append(f"the interval reaches to both sides of {claim.margin:g}")
    return Finding(holds, numbers, reasons, keys_of(group, rival))


def widest(claim: Claim, evidence: dict[str, Evidence]) -> Finding:
    """The gain of the group over its rival on one data set against that on others, by Welch's t over seeds.

    Parameters
    ----------
    evidence : by data set; the first of `claim.datasets` is the one that the claim is about
    """
    gains, reasons, keys = {}, [], []
    for dataset in [*claim.datasets, *claim.against]:
        if dataset not in evidence:
            reasons.append(f"this report has no page on `{dataset}`")
            continue
        group, (rival,) = sides(claim, evidence[dataset])
        reasons += [f"{dataset}: {reason}" for reason in weaknesses(group, rival)]
        keys += keys_of(group, rival)
        others = {r.run.seed: r.metrics["top1"] for r in rival.records}
        gains[dataset] = [r.metrics["top1"] - others[r.run.seed] for r in group.records if r.run.seed in others]
    numbers = "; ".join(f"{d}: {np.mean(g):+.3f} over {len(g)} seeds" for d, g in gains.items() if g)
    own, others = gains.get(claim.datasets[0], []), [gains.get(d, []) for d in claim.against]
    if min(map(len, [own, *others])) < 2:
        return Finding(None, numbers, reasons or ["fewer than two seeds"], keys)
    tests = [ttest_ind(own, other, equal_var=False).confidence_interval(1 - 0.05 / len(others)) for other in others]
    holds = True if all(t.low > 0 for t in tests) else False if any(t.high < 0 for t in tests) else None
    reasons += ["the intervals of the differences between the gains hold 0"] * (holds is None)
    return Finding(holds, numbers, reasons, keys)


def _costs(claim: Claim, evidence: Evidence, column: str) -> tuple[pd.Series, list[str]]:
    """One value a network of a cost column, and what is missing of it."""
    wanted = [side["model"] for side in [claim.group, *claim.rivals]]
    frame = evidence.frame
    if column not in frame or frame[column].isna().all():
        return pd.Series(dtype=float), [f"no record holds {label(column)}"]
    values = frame.groupby("model")[column].median().dropna()
    values = values[[model for model in wanted if model in values]]
    return values, [f"no record of {name(model)}" for model in wanted if model not in values]


def _listed(values: pd.Series, column: str) -> str:
    shown = COLUMNS.get(column, Column(column, "{:.3g}"))
    return f"{shown.label}: " + ", ".join(f"{name(m)} {number(v, shown)}" for m, v in values.sort_values().items())


def lowest(claim: Claim, evidence: Evidence) -> Finding:
    """Whether a cost of the group is below that of every rival by more than a share, `margin`."""
    own, outcomes, numbers, reasons = claim.group["model"], [], [], []
    for column in [claim.column, *claim.also]:
        values, missing = _costs(claim, evidence, column)
        reasons += missing
        numbers += [_listed(values, column)] * bool(len(values))
        if own in values and len(others := values.drop(own)):
            least = 1 + claim.margin
            outcomes.append(
                False if (others * least < values[own]).any() else (values[own] * least < others).all() or None
            )
    reasons += [f"it lies within {claim.margin:.0%} of another"] * (None in outcomes)
    keys = list(evidence.frame["key"])
    if False in outcomes:  # one that is lower is enough, whatever is missing
        return Finding(False, "; ".join(numbers), [], keys)
    return Finding(None if reasons else True, "; ".join(numbers), reasons, keys)


def swapped(claim: Claim, evidence: Evidence) -> Finding:
    """Whether one network costs less than another by one column and more by the other, both by more than `margin`."""
    (first, gone), (second, also) = (_costs(claim, evidence, column) for column in (claim.baseline, claim.column))
    both, reasons, least = [m for m in first.index if m in second], list(dict.fromkeys(gone + also)), 1 + claim.margin
    keys, numbers = list(evidence.frame["key"]), ""
    if len(both) > 1:
        numbers = f"; {_listed(first[both], claim.baseline)}; {_listed(second[both], claim.column)}"
        numbers += f"; Kendall's tau {kendalltau(first[both], second[both]).statistic:.2f}"
    cheaper = [(second[a] / second[b], a, b) for a in both for b in both if first[a] * least < first[b]]
    ratio, a, b = max(cheaper, default=(0, "", ""))
    if ratio > least:
        lower, higher = (label(column).split(",")[0] for column in (claim.baseline, claim.column))
        pair = f"{name(a)} is below {name(b)} in {lower}, and {ratio:.2f} times as high in {higher}"
        return Finding(True, pair + numbers, [], keys)
    return Finding(None if reasons else False, numbers.removeprefix("; "), reasons, keys)


def balance(claim: Claim, evidence: Evidence) -> Finding:
    """How often the group has the highest trade-off score, over resampled test images and seeds; see `stats.score`."""
    group, rivals = sides(claim, evidence)
    models, own = [side["model"] for side in [claim.group, *claim.rivals]], claim.group["model"]
    present = {model: one.records for model, one in zip(models, [group, *rivals], strict=True) if one.records}
    reasons, keys = weaknesses(group, *rivals), keys_of(group, *rivals)
    costs = {column: _costs(claim, evidence, column)[0] for column in claim.weights if column != "top1"}
    gone = [f"no record holds {label(c)}" for c, values in costs.items() if not set(present) <= set(values.index)]
    if own not in present or len(present) < 2 or gone or not len(tops := resampled(present)):
        return Finding(None, "", reasons + gone, keys)
    gains = [
        tops if c == "top1" else np.broadcast_to(-np.log(costs[c][list(present)]), tops.shape) for c in claim.weights
    ]
    scores = stats.score(np.stack(gains, axis=-1), np.array(list(claim.weights.values())) / sum(claim.weights.values()))
    share = (scores.argmax(axis=1) == list(present).index(own)).mean()
    means = ", ".join(f"{name(m)} {v:.2f}" for m, v in zip(present, scores.mean(axis=0), strict=True))
    said = ", ".join(f"{label(column).split(',')[0]} {weight:g}" for column, weight in claim.weights.items())
    numbers = f"{group.name} is first in {share:.0%} of resamples (weights: {said}); mean scores: {means}"
    holds = True if share >= SURE else False if share <= 1 - SURE else None
    reasons += ["it leads in some resamples and not in others"] * (holds is None)
    return Finding(holds, numbers, reasons, keys)


RULES = {"better": better, "sooner": sooner, "lowest": lowest, "swapped": swapped, "balance": balance}
"""Rules that judge a page by itself; `widest` compares pages."""
