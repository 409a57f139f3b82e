"""Claims as data, and the verdict that the records of a page allow: holds, does not hold, or not decidable here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from pydantic import ValidationError

from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.evidence import rules
from lwnb.evidence.arms import Claim, Evidence, sets_of
from lwnb.plan import studies
from lwnb.plan.facts import DATASETS, POLICIES, STUDIES
from lwnb.plan.params import Params
from lwnb.records import results, tables

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decidable here"
VERDICTS = {True: HOLDS, False: FAILS, None: OPEN}


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
    """What each study of a page has to say.

    `more` are tables of key and further costs, such as `lwnb.evidence.deployed.latencies`.
    """
    known, found = tables.of_runs([record.run for record in results.every()]), {}
    for study in STUDIES:
        runs = studies.compared(study, p)
        frame = tables.of_runs(runs)
        parts = frame["augment"].str.split("+")
        mixed = [next((part for part in policy if _mixes(part)), "none") for policy in parts]
        rest = ["+".join(part for part in policy if not _mixes(part)) or "none" for policy in parts]
        frame = frame.assign(mixing=mixed, base=rest)
        for table in more:
            frame = frame.merge(table, on="key", how="left")
        records = {record.run.key: record for record in results.learned(runs)}
        found[study] = Evidence(frame, records, known)
    return found


def _mixes(policy: str) -> bool:
    return POLICIES[policy].stage == "mixing"


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
        reasons.append(f"the rule asks for {sets_of(claim.datasets)}, and this is {DATASETS[p.dataset].title}")
    if claim.pretrained and p.source != claim.pretrained:
        reasons.append(f"the weights come from `{p.source}`, a substitute for ImageNet")
    return reasons


def _verdict(claim: Claim, page: str, reasons: list[str], finding: rules.Finding) -> Verdict:
    reasons = list(dict.fromkeys([*reasons, *finding.reasons]))
    return Verdict(claim, page, OPEN if reasons else VERDICTS[finding.holds], finding.numbers, reasons, finding.keys)
