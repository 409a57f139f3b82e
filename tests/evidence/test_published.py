import re

import pytest
from planted import frame, plant

from lwnb.evidence import published
from lwnb.evidence.arms import Evidence
from lwnb.plan.params import check

P = check({"dataset": "cifar10", "augment": "none", "policies": ["none"], "output_stride": 32})
WHOLE = {"n_train": 45_000, "n_val": 5_000}


def evidence(*records):
    found = Evidence(frame(records), {}, frame([]))
    return {"01_architectures": found, "02_transfer": found}


def figure(**changes):
    known = {
        "model": "resnet18",
        "dataset": "cifar10",
        "column": "top1",
        "quoted": "80.00 to 82.00 %",
        "range": (0.80, 0.82),
    }
    return published.Figure(**known | {"source": "somewhere", "image_size": 32, "epochs": 10} | changes)


def row(monkeypatch, figure, *records, p=P):
    monkeypatch.setattr(published, "quoted", lambda: [figure])
    table = published.beside(p, evidence(*records))
    return table.iloc[0] if len(table) else None


@pytest.mark.parametrize(("hits", "distance"), [(0.81, "inside"), (0.85, "+0.03"), (0.78, "-0.02")])
def test_where_nothing_differs_the_distance_is_given(house, monkeypatch, hits, distance):
    found = row(monkeypatch, figure(), plant(hits, n=10_000, metrics=WHOLE))
    assert found.distance == distance and found.protocol == "" and found.measured.startswith(f"{hits:.3f} (")


@pytest.mark.parametrize(
    ("changes", "planted", "said"),
    [
        ({"image_size": 224}, {}, "image size 224 px, here 32 px"),
        ({"image_size": None}, {}, "image size not stated, here 32 px"),
        ({"epochs": 200}, {}, "epochs 200, here 10"),
        ({"stem": "CIFAR stem"}, {}, "CIFAR stem, here output stride 32"),
        ({}, {"metrics": {"n_train": 1800, "n_val": 200}}, "50,000 training images, here 2,000"),
        ({}, {"n": 2000}, "10,000 test images, here 2,000"),
    ],
)
def test_a_protocol_that_differs_is_named_and_no_distance_is_given(house, monkeypatch, changes, planted, said):
    found = row(monkeypatch, figure(**changes), plant(0.85, **{"n": 10_000, "metrics": WHOLE} | planted))
    assert said in found.protocol and found.distance == "too different to compare"


def test_the_start_decides_which_run_stands_beside_a_figure(house, monkeypatch):
    scratch, tuned = plant(0.81, n=10_000, metrics=WHOLE), plant(0.9, n=10_000, metrics=WHOLE, weights="imagenet")
    assert row(monkeypatch, figure(), scratch, tuned).key == scratch.run.key
    assert row(monkeypatch, figure(weights="imagenet"), scratch, tuned).key == tuned.run.key
    none = row(monkeypatch, figure(weights="imagenet"), scratch)
    assert none.distance == "too different to compare" and none.protocol == "no run of this page"
    assert row(monkeypatch, figure(model="squeezenet1_1"), scratch) is None  # a network that the page never asks for


def test_a_count_is_compared_at_the_same_number_of_classes_only(house, monkeypatch):
    count = figure(column="parameters", quoted="11,200,000", range=(11.2e6, 11.2e6), dataset=None)
    assert row(monkeypatch, count, plant()).distance == "inside"
    assert row(monkeypatch, count.model_copy(update={"classes": 1000}), plant()).protocol == "1,000 classes, here 10"


def test_every_quotation_says_what_its_range_says():
    """`97.57 %` is 0.9757, `0.057 G` is 57e6, `9.829 MB` is 9,829,000 bytes."""
    figures = published.quoted()
    assert len(figures) > 30 and {f.dataset for f in figures} == {"cifar10", "cifar100", "tiny-imagenet", None}
    for f in figures:
        *numbers, unit = re.fullmatch(r"([\d.,]+)(?: to ([\d.,]+))? ?(%|G|MB|)", f.quoted).groups()
        scale = {"%": 0.01, "G": 1e9, "MB": 1e6, "": 1}[unit]
        ends = [float(n.replace(",", "")) * scale for n in numbers if n]
        assert f.range == pytest.approx((ends[0], ends[-1])), f.quoted
