"""The words of every kind of finding: none drops a name or a number."""

import pytest
from spoken import dropped

from lwnb.evidence.compare import Difference
from lwnb.report import words
from lwnb.report.findings import Finding, Findings, Rate

RATE = Rate(0.8123, 0.7912, 0.8334, 3, 2345, 0.7001, 0.4567, 10)
OTHER = Rate(0.6123, 0.5912, 0.6334, 1, 1234, 0.1, 0.5, 10)
GAP = Difference(0.0421, (0.0311, 0.0532), (-0.0121, 0.0967), 0.9, 0.8, 5, 3456)
JUDGED = {"gap": GAP, "p": 0.23, "differ": False, "detectable": 0.0653}
RATES = [{"network": "A", "lr": 0.02, "tried": 7, "lowest": 0.001, "highest": 0.4}]
ENDS = {"least": 1.2345, "lowest": "First", "most": 6.789, "highest": "Second"}
TUNED = {"rates": RATES, "tune_epochs": 41}
EACH = {
    "nothing": {"what": "pebble"},
    "preferred": {"name": "A", "rate": RATE},
    "also fewest MACs": {"macs": 12.3e6},
    "fewest MACs": {"network": "A", "macs": 12.3e6, "against": 45.6e6, "rate": RATE},
    "against": {"network": "A"} | JUDGED,
    "cheapest equal": {"count": 4, "network": "A", "parameters": 1.23e6},
    "corrected": {},
    "not tuned": {},
    "not ranked": TUNED | {"edge": ["C", "D"], "epochs": 43, "rising": True},
    "ranked": TUNED | {"order": [("First", 0.812), ("Second", 0.734)]},
    "longer": {
        "epochs": 43, "tune_epochs": 41, "gains": [{"network": "First", "gap": GAP, "keys": ["a1b2", "c3d4"]}],
        "order": ["First", "Second"], "before": ["Second", "First"],
    },
    "source": {"source": "a hill"},
    "arms": {"n_train": 5432, "rates": [("frozen", RATE), ("from scratch", OTHER)]},
    "paired": {"first": "A", "second": "B", "there": True} | JUDGED,
    "unpaired": {"first": "A", "second": "B", "there": False},
    "arms at edge": {"arms": ["frozen", "from scratch"]},
    "without": {"rate": RATE, "gap": -0.123},
    "widest gap": {"policy": "crop", "gap": 0.123},
    "setting": {
        "count": 17, "optimizer": "sgd", "lr": 0.03, "batch_size": 96, "schedule": "cosine", "weight_decay": 0.0005,
        "rate": RATE,
    },
    "settings": {"lowest": 0.123, "highest": 0.789},
    "setting at edge": {},
    "fastest": {"way": "abacus fp32", "network": "A", "latency_ms": 1.2345, "equal": ["First", "Second"]},
    "order by MACs": {"way": "abacus fp32", "tau": -0.67, "networks": 7},
    "eager": {"way": "abacus fp32", "uneven": True} | ENDS,
    "INT8 loses": {"runtime": "abacus", "n_test": 2345, "lost": [("First", -0.0234), ("Second", -0.0345)]},
    "INT8 gains": {"runtime": "abacus"} | ENDS,
    "INT8 aware": {"network": "A", "difference": -0.0234},
    "no record": {},
    "in short": {
        "int8_mb": {"network": "First", "top1": 0.812, "cost": 11.25, "less": [("Second", 0.123, 2.25)]},
        "int8_ms": {"network": "Third", "top1": 0.734, "cost": 0.75, "less": [("Fourth", 0.234, 0.25)]},
        "noise": 0.07, "behind": ["Fifth", "Sixth"], "guess_top1": 0.6543, "macro_f1": [("Seventh", 0.456)],
    },
    "not trained": {"networks": ["First", "Second"]},
    "trained": {
        "budget": "cpu", "epochs": 43, "image_size": 64, "devices": ["a board", "a desk"],
        "days": ["2031-02-03", "2032-03-04"],
    },
    "one seed": {},
    "subset": {},
    "still rising": {"networks": ["First", "Second"]},
    "unequal": {"least": 12, "smallest": "ant", "most": 3456, "largest": "bee", "n_test": 7890},
    "seen": {"weights": "imagenet", "dataset": "Stripes"},
    "weak": {"below": 0.85, "count": 3, "runs": 17, "networks": ["First", "Second"]},
    "few steps": {"steps": 73},
    "failed": {"network": "A", "key": "a1b2", "status": "failed", "reason": "no memory"},
    "noise": {"runtime": "abacus", "share": 0.034},
    "random weights": {},
    "not installed": {"runtime": "abacus"},
    "published": {},
}  # fmt: skip
"""Values of each kind, with numbers that are unlike each other."""


def test_every_kind_is_here():
    assert set(EACH) == set(words.SENTENCES)


@pytest.mark.parametrize("kind", EACH)
def test_no_sentence_drops_a_name_or_a_number(kind):
    assert dropped(Finding(kind, EACH[kind])) == []


def test_a_dropped_name_and_a_dropped_number_are_seen(monkeypatch):
    monkeypatch.setitem(words.SENTENCES, "INT8 aware", "It lost something.")
    assert dropped(Finding("INT8 aware", EACH["INT8 aware"])) == ["A", -0.0234]


def test_what_a_comparison_allows_to_say_changes_its_words():
    said = {differ: words.judged(GAP, 0.23, differ, None) for differ in (True, False, None)}
    assert len(set(said.values())) == 3 and all("+0.042" in one for one in said.values())


def test_a_class_s_name_means_nothing_in_markdown():
    assert r"\*bee\*" in words.sentence(Finding("unequal", EACH["unequal"] | {"largest": "*bee*"}))


def test_limits_stand_below_what_was_found():
    lines = words.text(Findings([Finding("no record", {})], [Finding("one seed", {})])).splitlines()
    first, last = (f"- {words.SENTENCES[kind]}" for kind in ("no record", "one seed"))
    assert (lines[0], lines[-1]) == (first, last) and len(lines) == 5
