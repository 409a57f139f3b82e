import numpy as np
import pandas as pd
import pytest
from planted import FLAT, RISING, frame, plant

from lwnb.evidence import compare
from lwnb.records import results, tables
from lwnb.report import figures


def seeds(*hits, **fields):
    return [plant(h, seed=s, split_seed=s, **fields) for s, h in enumerate(hits)]


@pytest.mark.parametrize(("curve", "flat"), [(FLAT, True), (RISING, False), ((0.8, 0.8, 0.8), False)])
def test_a_curve_is_flat_when_its_last_fifth_no_longer_rises(house, curve, flat):
    assert compare.flat(plant(curve=curve)) is flat


def test_a_summary_has_a_row_a_setting_and_the_mean_of_its_seeds_worked_by_hand(house):
    records = seeds(0.80, 0.82, 0.84) + seeds(0.9, 0.9, 0.9, model="squeezenet1_1")
    rows = compare.summary(frame(records)).set_index("model")
    one = rows.loc["resnet18"]
    assert (one.top1, one.seeds, one.sd) == pytest.approx((0.82, 3, 0.02))
    assert (one.low, one.high) == pytest.approx(
        (0.82 - 4.3027 * 0.02 / 3**0.5, 0.82 + 4.3027 * 0.02 / 3**0.5), abs=1e-5
    )
    assert one.key.split() == [record.run.key for record in records[:3]]
    same = rows.loc["squeezenet1_1"]  # equal seeds: the interval over images stands, not one of no width
    assert same.sd == 0 and same.low == pytest.approx(0.886, abs=1e-3) and same.high == pytest.approx(0.9124, abs=1e-3)


def test_a_seed_without_a_result_is_counted_out_and_told(house):
    good, bad = plant(0.8), plant(0.1, seed=1, split_seed=1, metrics={"learned": False})
    assert compare.summary(frame([bad])).iloc[0].macs == 37e6  # a cost stands all the same
    row = compare.summary(frame([good, bad])).iloc[0]
    assert row.seeds == 1 and row.top1 == pytest.approx(0.8) and row.status == "1 done, 1 did not learn"


def test_best_looks_at_the_mean_of_validation_alone_and_breaks_by_group(house):
    steady = [plant(0.5, val_top1=v, seed=s, lr=0.1) for s, v in enumerate((0.70, 0.70))]
    lucky = [plant(0.9, val_top1=v, seed=s, lr=0.2) for s, v in enumerate((0.90, 0.30))]
    other = [plant(0.2, val_top1=0.1, lr=0.3, model="squeezenet1_1")]
    assert compare.best(frame(steady + lucky)).lr.tolist() == [0.1]
    assert compare.best(frame(steady + lucky + other), ["model"]).lr.tolist() == [0.1, 0.3]


def test_a_planted_difference_is_found_with_one_seed_and_with_three(house):
    one, three = seeds(0.80), seeds(0.80, 0.81, 0.79)
    less, fewer = seeds(0.76, model="squeezenet1_1", lr=0.2), seeds(0.765, 0.77, 0.745, model="squeezenet1_1")
    single = compare.difference(one, less)
    assert single.mean == pytest.approx(0.04) and single.n_seeds == 1 and single.p < 1e-10
    assert 0.03 < single.low < 0.04 < single.high < 0.05 and "for these trained weights" in single.text()
    several = compare.difference(three, fewer)  # by seed 0.035, 0.04, 0.045: mean 0.04, sd 0.005, t interval by hand
    assert several.seeds == pytest.approx((0.04 - 4.3027 * 0.005 / 3**0.5, 0.04 + 4.3027 * 0.005 / 3**0.5), abs=1e-5)
    assert several.low == several.seeds[0] and "over 3 seeds" in several.text()
    assert several.detectable == pytest.approx(0.005 * 3.264, abs=1e-4)


def test_the_sign_follows_the_order_and_equals_are_not_told_apart(house):
    a, b = seeds(0.80), seeds(0.76, model="squeezenet1_1")
    assert compare.difference(b, a).mean == -compare.difference(a, b).mean
    rng = np.random.default_rng(0)
    even = [plant(rng.random(2000) < 0.8, model=m) for m in ("resnet18", "squeezenet1_1")]
    found = compare.difference(*([e] for e in even))
    assert found.low < 0 < found.high and found.p > 0.05


def test_runs_on_other_test_images_or_without_a_common_seed_are_not_compared(house):
    with pytest.raises(ValueError, match="same images"):
        compare.difference([plant(n=2000)], [plant(n=1990, model="squeezenet1_1")])
    with pytest.raises(ValueError, match="no seed in common"):
        compare.difference([plant(seed=1)], [plant(seed=2)])


def test_all_pairs_are_corrected_together_for_the_weights_and_over_seeds(house):
    records = seeds(0.80, 0.81) + seeds(0.80, 0.80, model="squeezenet1_1") + seeds(0.6, 0.6, model="shufflenet_v2_x1_0")
    weights, over = compare.pairs(compare.by_model(records))
    assert weights["pair"].tolist() == [
        "ResNet18 − SqueezeNet 1.1",
        "ResNet18 − ShuffleNetV2 ×1.0",
        "SqueezeNet 1.1 − ShuffleNetV2 ×1.0",
    ]
    assert weights["difference"].tolist() == pytest.approx([0, 0.2, 0.2]) and weights["p_holm"][0] == 1
    assert (weights["p_holm"] >= weights["p"]).all() and over["seeds"].tolist() == [2, 2, 2]
    assert len(compare.pairs(compare.by_model(records[::2]))) == 1 and compare.pairs({}) == []


def test_fronts_and_ranks_of_planted_networks(house):
    records = seeds(0.6, 0.6, model="mobilenet_v3_small") + seeds(0.8, 0.8) + seeds(0.7, 0.7, model="efficientnet_v2_s")
    found = compare.fronts(compare.by_model(records, printed=False), frame(records)).set_index("model")
    assert found["front_macs"].to_dict() == {"mobilenet_v3_small": 1, "resnet18": 1, "efficientnet_v2_s": 0}
    assert found["rank"].tolist() == [3, 1, 2] and found.loc["resnet18", "rank_interval"] == "1 to 1"
    assert "front_latency_ms" not in found  # no such column: nothing is said about it


def test_runs_that_did_not_learn_are_in_no_group(house):
    records = [plant(), plant(model="squeezenet1_1", metrics={"learned": False})]
    assert list(compare.by_model(records)) == ["ResNet18"]
    assert tables.of_runs([records[1].run])["top1"].isna().all()


def test_a_page_without_a_result_has_the_columns_of_one_that_has(house):
    empty = compare.best(frame([plant(metrics={"learned": False})]), ["arm", "n_train"])
    assert empty.empty and {"n_train", "top1", "interval", "key", "seeds"} <= set(empty)


def test_near_duplicates_of_the_source_are_counted_and_left_out(house):
    """Right about all 500 near-duplicates and half of the other 1,500."""
    hits = np.arange(2000) % 2 == 0
    near = np.arange(2000) < 500
    record = plant(hits | near, weights="0123456789ab")
    arrays = record.predictions | {"near_source": near}
    np.savez_compressed(record.folder / "predictions.npz", **arrays)
    records = [results.find(record.run), plant(0.5)]
    (row,) = compare.without_near(compare.best(frame(records), ["arm"]), records).to_dict("records")
    assert (row["arm"], row["near"], row["top1"], row["top1_apart"]) == ("fine-tuned", 500, 0.625, 0.5)
    assert compare.without_near(compare.best(frame(records[1:])), records).empty


def test_times_of_different_machines_are_neither_averaged_nor_compared(house):
    times = {"epoch_seconds": [1.0, 3.0, 2.0], "train_seconds": [2.0, 6.0, 4.0]}
    rows = pd.DataFrame(
        {"model": ["resnet18", "resnet18", "squeezenet1_1"], "top1": 0.5, "n_test": 100, "key": list("abc")}
    )
    rows = rows.assign(status="done", low=0.4, high=0.6, parameters=[2, 2, 1], **times)
    for places, epochs in ((["cpu"] * 3, [2.0, 2.0]), (["cpu", "gpu", "cpu"], [np.nan, 2.0])):
        means = compare.summary(rows.assign(trained_on=places))
        assert np.array_equal(means["epoch_seconds"].astype(float), epochs, equal_nan=True)
        drawn = figures.costs(means, ["parameters", "epoch_seconds"])
        assert sum(axis.axison for axis in drawn.axes) == (2 if np.all(np.isfinite(epochs)) else 1)
        bold = figures.table(means, ["model", "epoch_seconds", "trained_on"]).to_html().count("font-weight: bold")
        assert bold == (1 if np.all(np.isfinite(epochs)) else 0)
