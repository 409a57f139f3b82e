"""Findings and verdicts in words: `SENTENCES` has a row for every kind of finding."""

import re
from collections.abc import Sequence

import pandas as pd

from lwnb.evidence import rules
from lwnb.evidence.arms import Claim, describe, sets_of
from lwnb.evidence.claims import Verdict
from lwnb.evidence.compare import Difference
from lwnb.plan.columns import COLUMNS, Column, guessed, label, number
from lwnb.report import trace
from lwnb.report.findings import Finding, Findings, Rate


def text(findings: Findings) -> str:
    """Markdown: the findings, then the limits."""
    found, cannot = ([f"- {sentence(one)}" for one in side] for side in (findings.found, findings.cannot))
    return "\n".join([*found, "", "**What this cannot say.**", "", *cannot])


def sentence(finding: Finding) -> str:
    """A finding in words: its row of `SENTENCES`, a format or a function of the finding's values."""
    said = SENTENCES[finding.kind]
    if callable(said):
        return said(**finding.values)
    return said.format(**{key: _printed(value) for key, value in finding.values.items()})


def _printed(value):
    if isinstance(value, Rate):
        return rate(value)
    return ", ".join(value) if isinstance(value, list) else value


def rate(r: Rate) -> str:
    """A rate with its interval, seeds and number of images; where classes are unequal, with what stands beside it."""
    seeds = f"mean of {r.seeds} seeds, " if r.seeds > 1 else ""
    beside = guessed(r.guess_top1, r.macro_f1, r.num_classes)
    return f"{r.top1:.3f} ({seeds}95 % interval {r.low:.3f} to {r.high:.3f}, n = {r.n_test:,}{beside})"


def made(devices: Sequence[str], days: Sequence[str]) -> str:
    """Where and when runs were trained, as the end of a sentence; empty without any."""
    return f"; trained on {'; '.join(devices)}, {' to '.join(days)}" if days else ""


def _trained(budget: str, epochs: int, image_size: int, **where) -> str:
    return f"Budget `{budget}`, {epochs} epochs at {image_size} px{made(**where)}."


def _unequal(least: int, smallest: str, most: int, largest: str, n_test: int) -> str:
    ends = f"from {least:,} ({_plain(smallest)}) to {most:,} ({_plain(largest)}) of {n_test:,} test images"
    return f"Classes are unequal, {ends}: top-1 is mostly about the large ones, macro F1 about all alike."


def _plain(name: str) -> str:
    """A class's name in Markdown, where none of its signs may mean anything."""
    return re.sub(r"([^\w\s])", r"\\\1", " ".join(name.split()))


def _millions(count: float, digits: int = 1) -> str:
    return f"{count / 1e6:.{digits}f} million"


def _fewest(network: str, macs: float, against: float, rate: Rate) -> str:
    return (
        f"The fewest MACs has **{network}**, {_millions(macs)} against {_millions(against)}; "
        f"its test top-1 is {_printed(rate)}."
    )


def _cheapest(count: int, network: str, parameters: float) -> str:
    return (
        f"Of the {count} networks that these tests do not tell from the preferred one, itself included, "
        f"**{network}** has the fewest parameters, {_millions(parameters, 2)}."
    )


def judged(gap: Difference, p: float, differ: bool | None, detectable: float | None) -> str:
    """A comparison and what it allows to say: see `lwnb.report.findings.judged`."""
    least = f"; it would have found {detectable:.3f} in four of five tries" if detectable else ""
    said = {
        True: f"a difference that the paired test finds (p = {p:.2g})",
        False: f"the paired test does not tell the two apart (p = {p:.2g}{least})",
        None: "all seeds differ by the same amount, and the paired test has no spread to judge by",
    }[differ]
    return f"{gap.text()}: {said}."


def _against(network: str, **found) -> str:
    return f"Against {network}: {judged(**found)}"


def _pair(first: str, second: str, there: bool, **found) -> str:
    said = judged(**found) if found else "they have no seed in common, and are not compared."
    return f"{'There, ' * there}{first} minus {second}: {said}"


def _tuned(rates: list[dict], tune_epochs: int | None) -> str:
    form = "{network} {lr:g} of {tried} from {lowest:g} to {highest:g}"
    length = f", by runs of {tune_epochs} epochs" if tune_epochs else ""
    return f"Learning rates were chosen on validation, one seed{length}: {'; '.join(form.format(**r) for r in rates)}."


def _not_ranked(edge: list[str], epochs: int | None, rising: bool, **tuned) -> str:
    why = [f"the learning rate sits at the edge of those tried: {', '.join(edge)}"] * bool(edge)
    why += [f"at {epochs} epochs another rate may be better"] * bool(epochs)
    why += ["validation curves were still rising, see below"] * rising
    return f"{_tuned(**tuned)} No ranking is given: {'; '.join(why)}."


def _ranked(order: list[tuple[str, float]], **tuned) -> str:
    places = ", ".join(f"{network} {top1:.3f}" for network, top1 in order)
    return f"{_tuned(**tuned)} By top-1: {places}; the table of ranks says how sure this order is."


def _longer(epochs: int, tune_epochs: int, gains: list[dict], order: list[str], before: list[str]) -> str:
    keys = [", ".join(f"`{key}`" for key in gain["keys"]) for gain in gains]
    each = [f"{g['network']} {g['gap'].text()}, before: {k}" for g, k in zip(gains, keys, strict=True)]
    then = "the same" if order == before else " > ".join(before)
    return (
        f"What {epochs} epochs bring over {tune_epochs} at the same rates, seeds and images: {'; '.join(each)}. "
        f"By top-1 that is {' > '.join(order)}; at {tune_epochs} epochs it was {then}."
    )


def _arms(n_train: int, rates: list[tuple[str, Rate]]) -> str:
    return f"{n_train:,} training images: " + "; ".join(f"{arm} {rate(one)}" for arm, one in rates) + "."


def _fastest(way: str, network: str, latency_ms: float, equal: list[str]) -> str:
    same = f"; equal to it within the noise: {', '.join(equal)}" if equal else ""
    return f"Fastest by {way}: **{network}**, {latency_ms:.3f} ms{same}."


def _eager(way: str, least: float, lowest: str, most: float, highest: str, uneven: bool) -> str:
    return f"Eager PyTorch takes {least:.1f} ({lowest}) to {most:.1f} ({highest}) times as long as {way}: " + (
        "it distorts the comparison." if uneven else "much the same factor for all."
    )


def _int8_loses(runtime: str, n_test: int, lost: list[tuple[str, float]]) -> str:
    which = ", ".join(f"{network} ({difference:+.3f})" for network, difference in lost) or "none"
    return f"INT8 by {runtime} loses more than a point of top-1, of {n_test:,} images: {which}."


def _short(int8_mb: dict, int8_ms: dict, noise: float | None, behind: list[str], **beside) -> str:
    equal = f" (equal within {noise:.0%}, the noise of the protocol)" if noise else ""
    return (
        f"**In short**, as trained here. By the INT8 file: {_front(COLUMNS['int8_mb'], 'MB', **int8_mb)}. "
        f"By its latency{equal}: {_front(COLUMNS['int8_ms'], 'ms', **int8_ms)}."
        + f" On neither front, since others are as accurate and cost less: {', '.join(behind)}." * bool(behind)
        + _beside(**beside)
    )


def _front(column: Column, unit: str, network: str, top1: float, cost: float, less: list) -> str:
    """The most accurate network of a front, and what the others lose to it: (name, top-1 lost, cost) each."""
    others = [f"{name} {lost:.3f} less with {number(cost, column)} {unit}" for name, lost, cost in less]
    return "; ".join([f"{network} has top-1 {top1:.3f} with {number(cost, column)} {unit}", *others])


def _beside(guess_top1: float | None, macro_f1: list[tuple[str, float]]) -> str:
    each = ", ".join(f"{network} {f1:.3f}" for network, f1 in macro_f1)
    said = f" Classes are unequal: always guessing the largest has top-1 {guess_top1 or 0:.3f}; macro F1 of {each}."
    return said if macro_f1 else ""


SENTENCES = {
    # what was found
    "nothing": "No {what} has a result.",
    "preferred": "Validation prefers **{name}**; its test top-1 is {rate}.",
    "also fewest MACs": lambda macs: f"It also has the fewest MACs, {_millions(macs)}.",
    "fewest MACs": _fewest,
    "against": _against,
    "cheapest equal": _cheapest,
    "corrected": "p is corrected by Holm over these comparisons.",
    "not tuned": "No ranking is given: one learning rate served all networks, none was tuned for its own.",
    "not ranked": _not_ranked,
    "ranked": _ranked,
    "longer": _longer,
    "source": "Source of the weights: {source}.",
    "arms": _arms,
    "paired": _pair,
    "unpaired": _pair,
    "arms at edge": "The chosen learning rate sits at the edge of its grid, so a better one may lie outside: {arms}.",
    "without": "Without augmentation it is {rate}, and training top-1 is {gap:+.3f} above validation.",
    "widest gap": "The widest gap between training and validation has **{policy}**, {gap:+.3f}.",
    "setting": "Of {count} settings validation prefers {optimizer}, learning rate {lr:g}, batch size {batch_size}, "
    "{schedule} schedule, weight decay {weight_decay:g}; its test top-1 is {rate}.",
    "settings": "Validation top-1 runs from {lowest:.3f} to {highest:.3f} over the settings.",
    "setting at edge": "The winner's learning rate is the lowest or highest tried: a better one may lie outside.",
    "fastest": _fastest,
    "order by MACs": "The order by MACs and by {way} agree with Kendall's tau {tau:.2f}, over {networks} networks.",
    "eager": _eager,
    "INT8 loses": _int8_loses,
    "INT8 gains": "By {runtime} INT8 is {least:.2f} ({lowest}) to {most:.2f} ({highest}) times as fast as fp32.",
    "INT8 aware": "Fine-tuned through the rounding, {network} is at {difference:+.3f} against fp32.",
    "no record": "No runtime has a record.",
    "in short": _short,
    # what it cannot say
    "not trained": "Not trained: {networks}.",
    "trained": _trained,
    "one seed": "One seed: how much a second training would differ is not known; intervals are over test images.",
    "subset": "A subset of the data set, as the counts of images in the table say.",
    "still rising": "The validation curve was still rising at the last epoch: {networks}.",
    "unequal": _unequal,
    "seen": "Weights from `{weights}` have seen the images or the classes of {dataset}: the top-1 of runs that start "
    "from them says little about new classes.",
    "weak": "Top-1 on its own training images stayed below {below} in {count} of {runs} runs ({networks}): they were "
    "trained too little for their accuracy to say what the network can do.",
    "few steps": "Some runs took as few as {steps} optimiser steps: the running statistics of BatchNorm may not have "
    "settled, so that a network evaluates worse than it has learned.",
    "failed": "No result from {network}, run `{key}`: {status} ({reason}).",
    "noise": "Measured again, the same cell moves by up to {share:.1%} by {runtime}.",
    "random weights": "Latency and memory were measured with random weights: values do not change what is computed, "
    "bar rare cases.",
    "not installed": "Not measured: {runtime}, which is not installed.",
    "published": "These runs were published: nothing was measured on this machine; `lwnb measure` does.",
}
"""By kind of finding: a format of its values, or a function of them."""


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
