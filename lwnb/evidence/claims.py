"""Claims as data, and the verdict that the records of a page allow: holds, does not hold, or not decidable here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lwnb.base import doors
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.evidence import rules
from lwnb.evidence.arms import Evidence, describe
from lwnb.plan import studies
from lwnb.plan.columns import label
from lwnb.plan.facts import FIVE, STUDIES, TITLES
from lwnb.plan.params import Params
from lwnb.plan.run import Dataset
from lwnb.records import results, tables

Rule = Literal["better", "sooner", "widest", "lowest", "swapped", "balance"]

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decidable here"
VERDICTS = {True: HOLDS, False: FAILS, None: OPEN}


def _sets(datasets: Sequence[str]) -> str:
    return " or ".join(TITLES[dataset] for dataset in datasets)


class Claim(BaseModel):
    """A statement of a source, and the rule that decides it.

    `group` and each of `rivals` name rows of the table of the `study`, by column and value; `others` are the other
    networks of the five. Where a side has several settings, validation chooses. `largest` keeps the rows with the
    highest value of a column, `same` those whose value both sides have. `margin` is a difference of top-1, a share of a
    cost, or a factor. Least evidence: `seeds`; `tuned`, learning rates that lie inside those tried; `pretrained`, the
    source of the weights; `datasets` (none: any).
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str
    statement: str
    source: str
    study: str
    rule: Rule
    group: dict[str, Any]
    rivals: list[dict[str, Any]] = Field(min_length=1)
    column: str = "top1"
    also: list[str] = []
    baseline: str = "macs"
    largest: str | None = None
    same: str | None = None
    weights: dict[str, float] = {}
    margin: float = 0.0
    seeds: int = Field(1, ge=1)
    tuned: bool = False
    pretrained: Literal["imagenet"] | None = None
    datasets: list[Dataset] = []
    against: list[Dataset] = []
    limit: str = ""

    @model_validator(mode="before")
    @classmethod
    def _others(cls, values: dict) -> dict:
        if values.get("rivals") == "others":
            own = values.get("group", {}).get("model")
            return values | {"rivals": [{"model": model} for model in FIVE if model != own]}
        return values

    @field_validator("study")
    @classmethod
    def _known(cls, study: str) -> str:
        if study not in STUDIES:
            raise ValueError(doors.allowed(study, STUDIES))
        return study

    def decided_by(self) -> str:
        """The rule in words, made from the fields."""
        own, others = describe(self.group), ", ".join(map(describe, self.rivals))
        cost = label(self.column).split(",")[0]
        said = {
            "better": f"top-1 of {own} minus that of {others}: above {self.margin:g} with both of its intervals, over "
            f"seeds and over test images; it does not hold if one comparison lies below it",
            "sooner": f"{own} reaches the best validation top-1 of {others} in fewer epochs: the interval of the factor "
            f"over seeds lies above {self.margin:g}; it does not hold if it lies below",
            "widest": f"top-1 of {own} minus that of {others}, on {_sets(self.datasets)} larger than on "
            f"{_sets(self.against)} (Welch's t over seeds)",
            "lowest": f"{cost} of {own} below that of {others}"
            + f" by more than {self.margin:.0%}" * (self.margin > 0),
            "swapped": f"some network is below another in {label(self.baseline).split(',')[0]} and above it in {cost}, both by "
            f"more than {self.margin:.0%}",
            "balance": f"{own} leads by a weighted score in {rules.SURE:.0%} of resamples of images and seeds; it does "
            f"not hold if it leads in {1 - rules.SURE:.0%} or fewer",
        }[self.rule]
        least = [f"{self.seeds} seeds"] * (self.seeds > 1) + ["tuned learning rates"] * self.tuned
        least += ["weights from ImageNet"] * (self.pretrained == "imagenet")
        least += [_sets(self.datasets)] * bool(self.datasets)
        return said + (f". Least evidence: {'; '.join(least)}" if least else "") + "."


@dataclass(frozen=True)
class Verdict:
    """What the runs of a page say about a claim."""

    claim: Claim
    page: str
    verdict: str
    numbers: str
    reasons: list[str]
    keys: list[str]


def stated(file: Path = CHECKOUT / "book" / "claims.yaml") -> list[Claim]:
    """The claims of a YAML file.

    Raises
    ------
    ParamsError
        A claim is not possible: its id, the field, the value and what is allowed.
    """
    claims = []
    for number, entry in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")), 1):
        try:
            claims.append(Claim(**entry))
        except (ValidationError, TypeError) as error:
            name = entry.get("id", f"number {number}") if isinstance(entry, dict) else f"number {number}"
            raise ParamsError(f"{file.name}, claim {name}: {error}") from None
    return claims


def evidence(p: Params, *more: pd.DataFrame) -> dict[str, Evidence]:
    """What each study of a page has to say; `more` are tables of key and further costs, such as `grid.latencies`."""
    known, found = tables.of_runs([record.run for record in results.every()]), {}
    for study in STUDIES:
        runs = studies.compared(study, p)
        frame = tables.of_runs(runs)
        parts = frame["augment"].str.split("+")
        mixed = [next((part for part in policy if part in ("mixup", "cutmix")), "none") for policy in parts]
        rest = ["+".join(part for part in policy if part not in ("mixup", "cutmix")) or "none" for policy in parts]
        frame = frame.assign(mixing=mixed, base=rest)
        for table in more:
            frame = frame.merge(table, on="key", how="left")
        records = {record.run.key: record for record in results.learned(runs)}
        found[study] = Evidence(frame, records, known)
    return found


def judge(claims: Sequence[Claim], pages: dict[str, Params], found: dict[str, dict[str, Evidence]]) -> list[Verdict]:
    """The verdict on every claim for every page; a claim that compares pages is judged once, for all.

    Parameters
    ----------
    pages, found : by the page's name, its parameters and what `evidence` gives for them
    """
    verdicts = []
    for claim in claims:
        if claim.rule == "widest":
            by_set = {p.dataset: found[page][claim.study] for page, p in pages.items()}
            sources = [reason for p in pages.values() if p.dataset in claim.datasets for reason in _foreign(claim, p)]
            verdicts.append(_verdict(claim, "", sources, rules.widest(claim, by_set)))
            continue
        for page, p in pages.items():
            verdicts.append(
                _verdict(claim, page, _foreign(claim, p), rules.RULES[claim.rule](claim, found[page][claim.study]))
            )
    return verdicts


def _foreign(claim: Claim, p: Params) -> list[str]:
    """Why a page's data or weights are not those that the claim is about."""
    reasons = []
    if claim.datasets and p.dataset not in claim.datasets:
        reasons.append(f"the rule asks for {_sets(claim.datasets)}, and this is {TITLES[p.dataset]}")
    if claim.pretrained and p.source != claim.pretrained:
        reasons.append(f"the weights come from `{p.source}`, a substitute for ImageNet")
    return reasons


def _verdict(claim: Claim, page: str, reasons: list[str], finding: rules.Finding) -> Verdict:
    reasons = list(dict.fromkeys([*reasons, *finding.reasons]))
    return Verdict(claim, page, OPEN if reasons else VERDICTS[finding.holds], finding.numbers, reasons, finding.keys)
