"""A claim, and the evidence for it: the runs of each side of a comparison, and why they may be too weak to decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lwnb.base import doors
from lwnb.evidence.compare import SETTING, best, flat, summary
from lwnb.plan.columns import label
from lwnb.plan.facts import DATASETS, FIVE, STUDIES, name
from lwnb.plan.run import Dataset
from lwnb.records.results import Record

Rule = Literal["better", "sooner", "widest", "lowest", "swapped", "balance"]


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


@dataclass(frozen=True)
class Evidence:
    """What a claim is judged by on one page: the table of its study's runs, their records,
    and all runs that are known."""

    frame: pd.DataFrame
    records: dict[str, Record]
    known: pd.DataFrame


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: its name in print, the runs of the setting that validation chose, and their weaknesses.

    `tried` is the number of settings that validation chose from. In a weakness, `{}` stands for the name,
    so that those of several sides can be told together.
    """

    name: str
    records: list[Record]
    reasons: list[str]
    keys: list[str]
    tried: int = 0


def sets_of(datasets: Sequence[str]) -> str:
    """Data sets in words."""
    return " or ".join(DATASETS[dataset].title for dataset in datasets)


def describe(condition: dict) -> str:
    """A side of a comparison in words: `{"model": "resnet18"}` is ResNet18."""
    said = []
    for column, value in condition.items():
        plain = column in ("model", "arm") or (column == "mixing" and value != "none")
        said.append(name(str(value)) if plain else "no mixing" if column == "mixing" else f"{label(column)} {value}")
    return ", ".join(said)


def arm(claim: Claim, evidence: Evidence, condition: dict) -> Arm:
    """The runs of one side: of the settings tried, the one that validation prefers; and what makes them too weak."""
    frame = evidence.frame
    if claim.largest and len(frame):
        frame = frame[frame[claim.largest] == frame[claim.largest].max()]
    condition = {column: _resolved(frame, column, value) for column, value in condition.items()}
    title, rows = describe(condition), _select(frame, condition)
    if claim.same:
        shared = [set(_select(frame, side)[claim.same]) for side in [claim.group, *claim.rivals]]
        rows = rows[rows[claim.same].isin(set.intersection(*shared))]
    chosen = best(rows)
    if chosen.empty:
        return Arm(title, [], ["no result from {}"], list(rows["key"]))
    row = chosen.iloc[0]
    records = [evidence.records[key] for key in row.key.split()]
    reasons = [f"no result from {n} of {len(rows)} runs of {{}}"] if (n := (rows["status"] != "done").sum()) else []
    if len(records) < claim.seeds:
        reasons.append(f"{len(records)} seed{'s' * (len(records) > 1)} where {claim.seeds} are needed ({{}})")
    if not all(map(flat, records)):
        reasons.append("a validation curve was still rising at the last epoch ({})")
    reasons += _untuned(row, rows, evidence, claim.study) if claim.tuned else []
    return Arm(title, records, reasons, row.key.split(), len(summary(rows)))


def _resolved(frame: pd.DataFrame, column: str, value):
    """The value of a column that validation likes best (`preferred`) or least (`rejected`),
    each at its best setting."""
    if value not in ("preferred", "rejected"):
        return value
    tops = best(frame, [column])
    if tops.empty:
        return value
    return tops.loc[tops["val_top1"].idxmax() if value == "preferred" else tops["val_top1"].idxmin(), column]


def _select(frame: pd.DataFrame, condition: dict) -> pd.DataFrame:
    for column, value in condition.items():
        frame = frame[frame[column] == value]
    return frame


def _untuned(row, rows: pd.DataFrame, evidence: Evidence, study: str) -> list[str]:
    """Why the learning rate of the chosen setting may not be its best: tried alone, at the edge,
    or beaten on validation.

    Rates tried are those of finished runs, of any page, that differ in nothing else; in a search over several
    hyperparameters at once, those of the same optimiser. Rates are compared on the seeds that all of them have, if any.
    """
    if STUDIES[study].joint:
        tried = rows[rows["optimizer"] == row.optimizer]
    else:
        tried = _select(evidence.known, {c: row[c] for c in SETTING if c != "lr"})
    tops = tried.dropna(subset=["val_top1"]).pivot_table(index="seed", columns="lr", values="val_top1")
    common = tops.dropna()
    means = (tops if common.empty else common).mean()
    if len(means) < 2:
        return [f"the learning rate was not tuned, {row.lr:g} alone ({{}})"]
    if row.lr in (means.index.min(), means.index.max()):
        span = f"{means.index.min():g} to {means.index.max():g}"
        return [f"the learning rate {row.lr:g} sits at the edge of those tried, {span} ({{}})"]
    return ["validation prefers another learning rate ({})"] if means.idxmax() != row.lr else []


def sides(claim: Claim, evidence: Evidence) -> tuple[Arm, list[Arm]]:
    """The group of a claim and its rivals."""
    return arm(claim, evidence, claim.group), [arm(claim, evidence, rival) for rival in claim.rivals]


def weaknesses(*arms: Arm) -> list[str]:
    """What makes these sides too weak to decide, each reason once."""
    named: dict[str, list[str]] = {}
    for one in arms:
        for reason in one.reasons:
            named.setdefault(reason, []).append(one.name)
    return [reason.format(", ".join(dict.fromkeys(names))) for reason, names in named.items()]


def keys_of(*arms: Arm) -> list[str]:
    """The keys of all their runs, each once."""
    return list(dict.fromkeys(key for one in arms for key in one.keys))
