import numpy as np
import pandas as pd
import pytest
from planted import ENVIRONMENT, FLAT, RISING, frame, plant
from spoken import dropped

from lwnb.batch import tuning
from lwnb.evidence.compare import Difference
from lwnb.plan import studies, tuned
from lwnb.plan.facts import FIVE
from lwnb.plan.params import check
from lwnb.records import machine, results
from lwnb.report import findings, words

P = check({})


def all_of(found, kind):
    """The values of each finding of a kind, among findings and limits or in a list."""
    every = [*found.found, *found.cannot] if isinstance(found, findings.Findings) else found
    assert [dropped(one) for one in every] == [[]] * len(every), "its words have every name and number of a finding"
    return [one.values for one in every if one.kind == kind]


def the(found, kind):
    (only,) = all_of(found, kind)
    return only


def told(records, study=findings.architectures, p=P, *more, **columns):
    return study(p, frame(records).assign(**columns), records, *more)


def test_the_winner_is_chosen_on_validation_and_changes_with_it(house):
    better, worse = plant(0.8, val_top1=0.7), plant(0.9, val_top1=0.6, model="squeezenet1_1")
    first = the(told([better, worse]), "preferred")
    assert (first["name"], first["rate"].top1) == ("ResNet18", 0.8)
    swapped = [plant(0.8, val_top1=0.6, lr=0.2), plant(0.9, val_top1=0.7, lr=0.2, model="squeezenet1_1")]
    second = the(told(swapped), "preferred")
    assert (second["name"], second["rate"].top1) == ("SqueezeNet 1.1", 0.9)


def test_the_findings_change_when_two_networks_swap_their_results(house):
    """The same two sets of predictions, given to the one network and then to the other."""
    first = the(told([plant(0.8), plant(0.7, model="squeezenet1_1")]), "against")
    assert first["network"] == "SqueezeNet 1.1" and first["gap"].mean == pytest.approx(0.1)
    assert first["differ"] is True and (first["gap"].n_test, first["gap"].n_seeds) == (2000, 1)
    second = the(told([plant(0.7, lr=0.2), plant(0.8, lr=0.2, model="squeezenet1_1")]), "against")
    assert second["network"] == "ResNet18" and second["gap"].mean == pytest.approx(0.1)


def test_the_cheapest_network_that_the_paired_tests_do_not_tell_apart_is_named(house):
    records = [plant(0.900), plant(0.899, model="squeezenet1_1"), plant(0.5, model="shufflenet_v2_x1_0")]
    found = told(records)
    assert the(found, "cheapest equal") == {"count": 2, "network": "SqueezeNet 1.1", "parameters": 700_000}
    against = {one["network"]: one for one in all_of(found, "against")}
    close, far = against["SqueezeNet 1.1"], against["ShuffleNetV2 ×1.0"]
    assert close["differ"] is False and close["p"] == pytest.approx(0.5) and 0 < close["detectable"] < 0.1
    assert far["differ"] is True and far["detectable"] is None and the(found, "corrected") == {}


def test_what_a_paired_test_allows_to_say_is_a_difference_none_or_nothing():
    gap = Difference(0.1, (0.0, 0.2), (0.1, 0.1), 0.04, 0.03, 2, 100)
    assert [findings.judged(gap, p)["differ"] for p in (0.04, 0.06, float("nan"))] == [True, False, None]
    assert [findings.judged(gap, p)["detectable"] for p in (0.04, 0.06, float("nan"))] == [None, 0.03, None]


def test_three_seeds_are_told_as_such(house):
    runs = [plant(h, seed=s) for s, h in enumerate((0.8, 0.82, 0.84))]
    runs += [plant(h, seed=s, model="squeezenet1_1") for s, h in enumerate((0.7, 0.71, 0.75))]
    found = told(runs, p=P.model_copy(update={"seeds": 3}))
    rate = the(found, "preferred")["rate"]
    assert (rate.seeds, rate.n_test) == (3, 2000)
    assert (rate.top1, rate.low, rate.high) == pytest.approx((0.82, 0.770, 0.870), abs=5e-4)
    assert the(found, "against")["gap"].n_seeds == 3 and not all_of(found, "one seed")


def test_a_finding_carries_interval_and_n(house):
    # Wilson for 81 of 263, Newcombe 1998: 0.2553 to 0.3662
    rate = the(told([plant(81 / 263, n=263)]), "preferred")["rate"]
    assert (rate.top1, rate.low, rate.high) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    assert rate.n_test == 263


def test_where_and_when_runs_were_trained_is_said(house):
    records = [plant(seed=seed) for seed in (0, 1)]
    records[1].environment["started"] = "2031-02-03T04:05:06"
    records[1].environment["machine"] = {"cpu": "Cortex-A76", "cores": 4}
    said = the(findings.limits(P, frame(records), records), "trained")
    assert said["devices"] == [machine.device(machine.machine()), "Cortex-A76, 4 cores"]
    assert said["days"] == [ENVIRONMENT["started"][:10], "2031-02-03"]
    assert the(findings.limits(P, frame(records)), "trained")["days"] == []


def test_a_page_names_the_networks_that_it_is_without(house):
    found = told([plant()], p=check({"models": [*FIVE[:3], FIVE[4]]}))
    assert the(found, "not trained") == {"networks": ["EfficientNetV2-S"]}
    assert not all_of(told([plant()]), "not trained")


def test_limits_name_one_seed_weak_networks_and_runs_without_a_result(house):
    weak = plant(0.3, curve=RISING, metrics={"train_top1": 0.3})
    rows = frame([weak, plant(model="squeezenet1_1", metrics={"learned": False})])
    failed = rows.iloc[[0]].assign(status="failed", reason="nan", key="a1", model="resnet18")
    said = findings.limits(P, pd.concat([rows, failed]), [weak])
    assert the(said, "one seed") == {} and the(said, "still rising") == {"networks": ["ResNet18"]}
    assert the(said, "weak") == {"below": 0.9, "count": 1, "runs": 1, "networks": ["ResNet18"]}
    lazy, broken = all_of(said, "failed")
    assert (lazy["network"], lazy["status"]) == ("SqueezeNet 1.1", "did not learn")
    assert broken == {"network": "ResNet18", "key": "a1", "status": "failed", "reason": "nan"}
    assert not all_of(findings.limits(P.model_copy(update={"seeds": 3}), rows), "one seed")


def test_where_classes_are_unequal_the_guess_macro_f1_and_the_classes_images_are_told(house):
    """Class 0 has 1,550 of 2,000 images, the others 50."""
    labels = np.maximum(0, np.arange(2000) // 50 - 30)
    found = told([plant(0.9, labels=labels, metrics={"macro_f1": 0.432})])
    rate = the(found, "preferred")["rate"]
    assert (rate.guess_top1, rate.macro_f1) == (0.775, 0.432)
    ends = {"least": 50, "smallest": "1", "most": 1550, "largest": "0", "n_test": 2000}
    assert the(found, "unequal") == ends and "0.432" in words.text(found)
    even = told([plant(0.9, metrics={"macro_f1": 0.432}, lr=0.2)])
    assert not all_of(even, "unequal") and "0.432" not in words.text(even)
    lazy = told([plant(labels == 0, labels=labels, lr=0.3)])
    assert the(lazy, "nothing") == {"what": "network"} and "0.775" in the(lazy, "failed")["reason"]


def test_few_optimiser_steps_are_told(house):
    rows = frame([plant()]).assign(n_train=425, batch_size=128, epochs_run=8)
    assert the(findings.limits(P, rows), "few steps") == {"steps": 24}
    one = findings.limits(P, rows.assign(batch_size=512))  # one batch an epoch
    assert the(one, "few steps") == {"steps": 8}
    assert not all_of(findings.limits(P, rows.assign(batch_size=16)), "few steps")


def test_a_page_of_latencies_names_what_was_not_measured():
    assert the(findings.unmeasured(["abacus"], False), "not installed") == {"runtime": "abacus"}
    assert [one.kind for one in findings.unmeasured([], True)] == ["published"]


@pytest.mark.parametrize(
    ("study", "what"),
    [
        (findings.architectures, "network"),
        (findings.augmentation, "policy"),
        (findings.hyperparameters, "setting"),
    ],
)
def test_no_result_is_said_and_is_no_error(house, study, what):
    bad = plant(metrics={"learned": False})
    assert the(told([bad], study, gap=float("nan")), "nothing") == {"what": what}


def test_augmentation_quotes_the_gap_with_its_sign_and_the_paired_difference(house):
    records = [plant(0.5, augment="none"), plant(0.61, augment="mixup")]
    found = told(records, findings.augmentation, gap=[0.4, -0.1])
    pair, plain = the(found, "paired"), the(found, "without")
    assert the(found, "preferred")["name"] == "mixup" and (plain["rate"].top1, plain["gap"]) == (0.5, 0.4)
    assert (pair["first"], pair["second"]) == ("mixup", "none") and pair["gap"].mean == pytest.approx(0.11)
    assert the(found, "widest gap") == {"policy": "none", "gap": 0.4} and "+0.400" in words.text(found)


def test_transfer_compares_each_arm_with_scratch_on_the_same_images(house):
    records = [plant(0.6, lr=1.0e-3), plant(0.7, lr=1.0e-3, weights="imagenet")]
    found = told(records, findings.transfer, P, "somewhere")
    pair, arms = the(found, "paired"), the(found, "arms")
    assert (pair["first"], pair["second"], pair["there"]) == ("fine-tuned", "from scratch", True)
    assert pair["gap"].mean == pytest.approx(0.1) and the(found, "source") == {"source": "somewhere"}
    assert arms["n_train"] == 5000 and {arm: rate.top1 for arm, rate in arms["rates"]} == {
        "from scratch": 0.6,
        "fine-tuned": 0.7,
    }
    assert the(found, "arms at edge") == {"arms": ["fine-tuned", "from scratch"]}


def test_settings_without_a_common_seed_are_told_and_not_compared(house):
    """What failed runs may leave: each network with another seed."""
    assert not all_of(told([plant(0.8), plant(0.7, seed=1, model="squeezenet1_1")]), "against")
    records = [plant(0.5, augment="none"), plant(0.61, augment="mixup", seed=1)]
    found = told(records, findings.augmentation, gap=0.0)
    pair = the(found, "unpaired")
    assert (pair["first"], pair["second"]) == ("mixup", "none") and not all_of(found, "paired")


def test_a_hyperparameter_at_the_edge_of_its_range_is_told(house):
    records = [plant(v, lr=lr) for lr, v in ((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))]
    edge = told(records, findings.hyperparameters)
    assert all_of(edge, "setting at edge") and the(edge, "settings") == {"lowest": 0.5, "highest": 0.7}
    assert (the(edge, "setting")["lr"], the(edge, "setting")["count"]) == (0.3, 3)
    inside = [plant(v, lr=lr, batch_size=32) for lr, v in ((0.1, 0.5), (0.2, 0.8), (0.3, 0.7))]
    middle = told(inside, findings.hyperparameters)
    assert not all_of(middle, "setting at edge")
    assert (the(middle, "setting")["lr"], the(middle, "setting")["batch_size"]) == (0.2, 32)


def ranked(tmp_path, monkeypatch, curve=FLAT, best=0.002, tune_epochs=0):
    """What is said of two networks, tuned over three rates of which validation prefers one."""
    monkeypatch.setattr(tuned, "FILE", tmp_path / "tuned.yaml")
    names, rates = ["resnet18", "squeezenet1_1"], [0.001, 0.002, 0.004]
    p = check({"models": names, "tune_lrs": rates, "epochs": len(curve), "tune_epochs": tune_epochs})
    for top, model in zip((0.7, 0.8), names, strict=True):
        runs = studies.ladder(p, model)
        for run in [*runs, studies.base(p, model=model, lr=best)]:
            plant(top if run.lr == best else top - 0.1, curve=curve, **run.model_dump(exclude={"version"}))
        assert tuning.choose(runs) == best
    records = [results.find(run) for run in studies.architectures(p)]
    assert {record.run.lr for record in records} == {best}
    return findings.architectures(p, frame(records), records)


@pytest.mark.slow
def test_a_ranking_stands_only_where_rates_are_tuned_inside_their_grid_and_curves_are_flat(
    house, tmp_path, monkeypatch
):
    inside = the(ranked(tmp_path, monkeypatch), "ranked")
    assert inside["order"] == [("SqueezeNet 1.1", 0.8), ("ResNet18", 0.7)] and inside["tune_epochs"] is None
    rate = {"network": "ResNet18", "lr": 0.002, "tried": 3, "lowest": 0.001, "highest": 0.004}
    assert rate in inside["rates"] and len(inside["rates"]) == 2
    edge = the(ranked(tmp_path, monkeypatch, best=0.004), "not ranked")
    assert edge["edge"] == ["ResNet18", "SqueezeNet 1.1"] and not edge["rising"]
    found = ranked(tmp_path, monkeypatch, curve=RISING)
    rising = the(found, "not ranked")
    assert rising["rising"] is True and (rising["edge"], rising["epochs"]) == ([], None)
    assert the(found, "still rising") == {"networks": ["ResNet18", "SqueezeNet 1.1"]}
    shorter = the(ranked(tmp_path, monkeypatch, tune_epochs=5), "not ranked")
    assert (shorter["tune_epochs"], shorter["epochs"], shorter["rising"]) == (5, 10, False)
    assert rate in shorter["rates"]
    assert the(told([plant(0.8), plant(0.7, model="squeezenet1_1")]), "not tuned") == {}


@pytest.mark.slow
def test_a_longer_page_is_compared_with_the_runs_that_chose_its_rates(house):
    """Training three times as long brings one network 10 points and the other none, and turns their order round."""
    p = check({"models": ["resnet18", "squeezenet1_1"], "epochs": 30, "tune_epochs": 10})
    longer = [plant(0.7, curve=FLAT * 3), plant(0.65, curve=FLAT * 3, model="squeezenet1_1")]
    assert not all_of(told(longer, p=p), "longer"), "there is nothing to compare with"
    before = {"ResNet18": plant(0.6), "SqueezeNet 1.1": plant(0.65, model="squeezenet1_1")}
    said = the(told(longer, p=p), "longer")
    assert (said["epochs"], said["tune_epochs"]) == (30, 10)
    assert {gain["network"]: gain["keys"] for gain in said["gains"]} == {n: [r.run.key] for n, r in before.items()}
    assert [gain["gap"].mean for gain in said["gains"]] == pytest.approx([0.1, 0.0])
    assert said["order"] == ["ResNet18", "SqueezeNet 1.1"] and said["before"] == ["SqueezeNet 1.1", "ResNet18"]
    assert not all_of(told(longer, p=p.model_copy(update={"tune_epochs": 0})), "longer")


def deployed(fp32, int8, eager, lost=0.0, noise=0.05):
    """What is said of two networks with these latencies, ResNet18's first, and of what INT8 costs the first."""
    wide = pd.DataFrame({"onnxruntime fp32": fp32, "onnxruntime int8": int8, "pytorch-eager fp32": eager})
    wide.index = ["resnet18", "squeezenet1_1"]
    rows = {"runtime": "onnxruntime", "precision": "int8", "model": wide.index, "n_test": 2000}
    marked = ["more than a point" if lost < -0.01 else "", ""]
    converted = pd.DataFrame(rows | {"difference": [lost, 0.0], "marked": marked})
    return findings.deployment(
        wide, pd.Series({"resnet18": 9.0, "squeezenet1_1": 3.0}), converted, {"onnxruntime": noise}, []
    )


def test_what_is_said_of_runtimes_follows_their_latencies():
    found = deployed(fp32=[1.0, 4.0], int8=[0.5, 1.0], eager=[5.0, 8.0], lost=-0.02)
    first, _ = all_of(found, "fastest")
    assert first == {"way": "onnxruntime fp32", "network": "ResNet18", "latency_ms": 1.0, "equal": []}
    ends = {"least": 2.0, "lowest": "SqueezeNet 1.1", "most": 5.0, "highest": "ResNet18"}
    assert the(found, "eager") == {"way": "onnxruntime fp32", "uneven": True} | ends
    ends = {"least": 2.0, "lowest": "ResNet18", "most": 4.0, "highest": "SqueezeNet 1.1"}
    assert the(found, "INT8 gains") == {"runtime": "onnxruntime"} | ends
    assert the(found, "INT8 loses") == {"runtime": "onnxruntime", "n_test": 2000, "lost": [("ResNet18", -0.02)]}
    assert the(found, "noise") == {"runtime": "onnxruntime", "share": 0.05}
    swapped = deployed(fp32=[4.0, 1.0], int8=[2.0, 0.5], eager=[8.0, 2.0])
    first, _ = all_of(swapped, "fastest")
    assert (first["network"], first["latency_ms"]) == ("SqueezeNet 1.1", 1.0)
    assert the(swapped, "eager")["uneven"] is False and the(swapped, "INT8 loses")["lost"] == []


def test_networks_within_the_noise_are_called_equal():
    close, apart = deployed([1.0, 1.04], [1.0, 1.0], [1.0, 1.0]), deployed([1.0, 1.06], [1.0, 1.0], [1.0, 1.0])
    assert all_of(close, "fastest")[0]["equal"] == ["SqueezeNet 1.1"]
    assert all_of(apart, "fastest")[0] == {
        "way": "onnxruntime fp32", "network": "ResNet18", "latency_ms": 1.0, "equal": [],
    }  # fmt: skip


def test_the_answer_in_short_names_the_fronts_and_what_each_network_loses_worked_by_hand():
    models = ["mobilenet_v3_small", "resnet18", "squeezenet1_1"]
    rows = pd.DataFrame(
        {"model": models, "top1": [0.5, 0.8, 0.6], "int8_mb": [2.0, 11.0, 1.0], "int8_ms": [0.2, 0.9, 0.3]}
    ).assign(noise=float("nan"), guess_top1=0.1, num_classes=10, macro_f1=0.5)

    def short(**columns):
        found = findings.short(rows.assign(**columns))
        return found and the([found], "in short")

    def less(front):
        return {name: (pytest.approx(lost), cost) for name, lost, cost in front["less"]}

    size, speed = short()["int8_mb"], short()["int8_ms"]
    assert (size["network"], size["top1"], size["cost"]) == ("ResNet18", 0.8, 11.0)
    assert less(size) == {"SqueezeNet 1.1": (0.2, 1.0)}
    assert less(speed) == {"SqueezeNet 1.1": (0.2, 0.3), "MobileNetV3-Small": (0.3, 0.2)}
    assert (short()["behind"], short()["noise"], short()["guess_top1"], short()["macro_f1"]) == ([], None, None, [])
    assert short(int8_ms=[0.4, 0.9, 0.3])["behind"] == ["MobileNetV3-Small"]
    assert short(int8_ms=float("nan")) is None
    unequal = short(guess_top1=0.7, num_classes=2)
    assert unequal["guess_top1"] == 0.7 and ("SqueezeNet 1.1", 0.5) in unequal["macro_f1"]
    assert "MobileNetV3-Small" in less(short(int8_ms=[0.28, 0.9, 0.3], noise=0.03)["int8_ms"])
    noisy = short(int8_ms=[0.295, 0.9, 0.3], noise=0.03)
    assert noisy["noise"] == 0.03 and noisy["behind"] == ["MobileNetV3-Small"]
