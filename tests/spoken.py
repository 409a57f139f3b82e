"""Whether a finding's sentence has every name and number of its values."""

import math
import re

from lwnb.evidence.compare import Difference
from lwnb.plan.columns import unequal
from lwnb.report import words
from lwnb.report.findings import Finding, Rate

NUMBER = r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]\d+)?%?"
FORMS = ("", "+", ",", "g", ".2g", ".1f", ".2f", ".3f", "+.3f", ".0%", ".1%")


def leaves(value) -> list:
    """The names and numbers in the values of a finding; what chooses between words (a bool, None, nan) is none."""
    if isinstance(value, Rate):
        beside = [value.guess_top1, value.macro_f1] if unequal(value.guess_top1, value.num_classes) else []
        return [value.top1, value.low, value.high, value.n_test, *[value.seeds] * (value.seeds > 1), *beside]
    if isinstance(value, Difference):
        return leaves([value.mean, value.images, value.n_test, *[value.seeds, value.n_seeds] * (value.n_seeds > 1)])
    if isinstance(value, dict):
        return leaves(list(value.values()))
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in leaves(one)]
    unsaid = value is None or isinstance(value, bool) or (isinstance(value, float) and math.isnan(value))
    return [] if unsaid else [value]


def dropped(finding: Finding) -> list:
    """The names and numbers of a finding that stand nowhere in its sentence."""
    said = words.sentence(finding)
    numbers = set(re.findall(NUMBER, said))
    return [leaf for leaf in leaves(finding.values) if not (_named(leaf, said) or _counted(leaf, numbers))]


def _named(leaf, said: str) -> bool:
    return isinstance(leaf, str) and leaf in said


def _counted(leaf, numbers: set[str]) -> bool:
    return not isinstance(leaf, str) and any(format(n, form) in numbers for form in FORMS for n in (leaf, leaf / 1e6))
