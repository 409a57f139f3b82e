import re

import numpy as np
import pandas as pd
import pytest
from planted import FLAT, RISING, frame, plant

from lwnb.batch import tuning
from lwnb.plan import studies, tuned
from lwnb.plan.facts import FIVE
from lwnb.plan.params import check
from lwnb.records import machine, results
from lwnb.report import findings

P = check({})


def told(records, study=findings.architectures, p=P, *more, **columns):
    return study(p, frame(records).assign(**columns), records, *more)


def test_the_winner_is_chosen_on_validation_and_changes_with_it(house):
    better, worse = plant(0.8, val_top1=0.7), plant(0.9, val_top1=0.6, model="squeezenet1_1")
    assert "prefers **ResNet18**; its test top-1 is 0.800" in told([better, worse])
    swapped = [plant(0.8, val_top1=0.6, lr=0.2), plant(0.9, val_top1=0.7, lr=0.2, model="squeezenet1_1")]
    assert "prefers **SqueezeNet 1.1**; its test top-1 is 0.900" in told(swapped)


def test_the_sentences_change_when_two_networks_swap_their_results(house):
    """The same two sets of predictions, given to the one network and then to the other."""
    first = told([plant(0.8), plant(0.7, model="squeezenet1_1")])
    assert "Against SqueezeNet 1.1: +0.100 (95 % interval over 2,000 images" in first
    assert "a difference that the paired test finds" in first and "for these trained weights" in first
    second = told([plant(0.7, lr=0.2), plant(0.8, lr=0.2, model="squeezenet1_1")])
    assert "Against ResNet18: +0.100" in second and "Against SqueezeNet" not in second


def test_the_cheapest_network_that_the_paired_tests_do_not_tell_apart_is_named(house):
    records = [plant(0.900), plant(0.899, model="squeezenet1_1"), plant(0.5, model="shufflenet_v2_x1_0")]
    text = told(records)
    assert "Of the 2 networks" in text and "**SqueezeNet 1.1** has the fewest parameters, 0.70 million" in text
    assert "does not tell the two apart (p = 0.5; it would have found 0.0" in text and "corrected by Holm" in text


def test_three_seeds_are_told_as_such(house):
    runs = [plant(h, seed=s) for s, h in enumerate((0.8, 0.82, 0.84))]
    runs += [plant(h, seed=s, model="squeezenet1_1") for s, h in enumerate((0.7, 0.71, 0.75))]
    text = told(runs, p=P.model_copy(update={"seeds": 3}))
    assert "0.820 (mean of 3 seeds, 95 % interval 0.770 to 0.870, n = 2,000)" in text and "over 3 seeds" in text
    assert "One seed" not in text and "for these trained weights" not in text


def test_a_finding_carries_interval_and_n(house):
    # Wilson for 81 of 263, Newcombe 1998: 0.2553 to 0.3662
    text = told([plant(81 / 263, n=263)])
    assert "0.308 (95 % interval 0.255 to 0.366, n = 263)" in text


def test_where_and_when_runs_were_trained_is_said(house):
    records = [plant(seed=seed) for seed in (0, 1)]
    records[1].environment["started"] = "2031-02-03T04:05:06"
    records[1].environment["machine"] = {"cpu": "Cortex-A76", "cores": 4}
    said = "\n".join(findings.limits(P, frame(records), records))
    here = re.escape(machine.device(machine.machine()))
    assert re.search(rf"px; trained on {here}; Cortex-A76, 4 cores, \d{{4}}-\d\d-\d\d to 2031-02-03\.", said)
    assert "trained on" not in findings.limits(P, frame(records))[0]


def test_a_page_names_the_networks_that_it_is_without(house):
    assert "- Not trained: EfficientNetV2-S." in told([plant()], p=check({"models": [*FIVE[:3], FIVE[4]]}))
    assert "Not trained" not in told([plant()])


def test_limits_name_one_seed_weak_networks_and_runs_without_a_result(house):
    weak = plant(0.3, curve=RISING, metrics={"train_top1": 0.3})
    rows = frame([weak, plant(model="squeezenet1_1", metrics={"learned": False})])
    failed = rows.iloc[[0]].assign(status="failed", reason="nan", key="a1", model="resnet18")
    text = "\n".join(findings.limits(P, pd.concat([rows, failed]), [weak]))
    assert "One seed" in text and "stayed below 0.9 in 1 of 1 runs (ResNet18)" in text
    assert "still rising at the last epoch: ResNet18" in text
    assert "`a1`: failed (nan)" in text and "did not learn" in text
    assert "One seed" not in "\n".join(findings.limits(P.model_copy(update={"seeds": 3}), rows))


def test_where_classes_are_unequal_the_guess_macro_f1_and_the_classes_images_are_told(house):
    """Class 0 has 1,550 of 2,000 images, the others 50."""
    labels = np.maximum(0, np.arange(2000) // 50 - 30)
    text = told([plant(0.9, labels=labels, metrics={"macro_f1": 0.432})])
    assert "0.775" in text and "0.432" in text and "1,550 (0)" in text and "50 (1)" in text
    even = told([plant(0.9, metrics={"macro_f1": 0.432}, lr=0.2)])
    assert "0.432" not in even and "unequal" not in even
    lazy = told([plant(labels == 0, labels=labels, lr=0.3)])
    assert "No network has a result" in lazy and "0.775" in lazy


def test_few_optimiser_steps_are_told(house):
    rows = frame([plant()]).assign(n_train=425, batch_size=128, epochs_run=8)
    assert "as few as 24 optimiser steps" in "\n".join(findings.limits(P, rows))
    one = "\n".join(findings.limits(P, rows.assign(batch_size=512)))  # one batch an epoch
    assert "as few as 8 optimiser steps" in one
    assert "optimiser steps" not in "\n".join(findings.limits(P, rows.assign(batch_size=16)))


@pytest.mark.parametrize("study", [findings.architectures, findings.augmentation, findings.hyperparameters])
def test_no_result_is_said_and_is_no_error(house, study):
    bad = plant(metrics={"learned": False})
    assert "has a result" in told([bad], study, gap=float("nan"))


def test_augmentation_quotes_the_gap_with_its_sign_and_the_paired_difference(house):
    records = [plant(0.5, augment="none"), plant(0.61, augment="mixup")]
    text = told(records, findings.augmentation, gap=[0.4, -0.1])
    assert "prefers **mixup**" in text and "+0.400 above validation" in text and "mixup minus none: +0.110" in text


def test_transfer_compares_each_arm_with_scratch_on_the_same_images(house):
    records = [plant(0.6, lr=1.0e-3), plant(0.7, lr=1.0e-3, weights="imagenet")]
    text = told(records, findings.transfer, P, "somewhere")
    assert "There, fine-tuned minus from scratch: +0.100" in text and "at the edge of its grid" in text


def test_settings_without_a_common_seed_are_told_and_not_compared(house):
    """What failed runs may leave: each network with another seed."""
    assert "Against" not in told([plant(0.8), plant(0.7, seed=1, model="squeezenet1_1")])
    records = [plant(0.5, augment="none"), plant(0.61, augment="mixup", seed=1)]
    assert "mixup minus none: they have no seed in common" in told(records, findings.augmentation, gap=0.0)


def test_a_hyperparameter_at_the_edge_of_its_range_is_told(house):
    records = [plant(v, lr=lr) for lr, v in ((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))]
    assert "lowest or highest tried" in told(records, findings.hyperparameters)
    inside = [plant(v, lr=lr, batch_size=32) for lr, v in ((0.1, 0.5), (0.2, 0.8), (0.3, 0.7))]
    assert "lowest or highest tried" not in told(inside, findings.hyperparameters)


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


def test_a_ranking_stands_only_where_rates_are_tuned_inside_their_grid_and_curves_are_flat(
    house, tmp_path, monkeypatch
):
    assert "By top-1: SqueezeNet 1.1 0.800, ResNet18 0.700" in ranked(tmp_path, monkeypatch)
    assert "edge of those tried: ResNet18, SqueezeNet 1.1" in ranked(tmp_path, monkeypatch, best=0.004)
    rising = ranked(tmp_path, monkeypatch, curve=RISING)
    assert "No ranking is given: validation curves were still rising, see below." in rising
    assert "still rising at the last epoch: ResNet18, SqueezeNet 1.1" in rising
    shorter = ranked(tmp_path, monkeypatch, tune_epochs=5)
    assert "by runs of 5 epochs: ResNet18 0.002 of 3" in shorter
    assert "No ranking is given: at 10 epochs another rate may be better." in shorter
    assert "No ranking is given: one learning rate" in told([plant(0.8), plant(0.7, model="squeezenet1_1")])


def test_a_longer_page_is_compared_with_the_runs_that_chose_its_rates(house):
    """Training three times as long brings one network 10 points and the other none, and turns their order round."""
    p = check({"models": ["resnet18", "squeezenet1_1"], "epochs": 30, "tune_epochs": 10})
    longer = [plant(0.7, curve=FLAT * 3), plant(0.65, curve=FLAT * 3, model="squeezenet1_1")]
    assert "What 30 epochs" not in told(longer, p=p), "there is nothing to compare with"
    first, _ = plant(0.6), plant(0.65, model="squeezenet1_1")
    said = told(longer, p=p)
    assert "ResNet18 +0.100" in said and f"before: `{first.run.key}`" in said and "SqueezeNet 1.1 +0.000" in said
    assert "By top-1 that is ResNet18 > SqueezeNet 1.1; at 10 epochs it was SqueezeNet 1.1 > ResNet18." in said
    assert "What 30 epochs" not in told(longer, p=p.model_copy(update={"tune_epochs": 0}))


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
    text = deployed(fp32=[1.0, 4.0], int8=[0.5, 1.0], eager=[5.0, 8.0], lost=-0.02)
    assert "Fastest by onnxruntime fp32: **ResNet18**, 1.000 ms." in text
    assert "takes 2.0 (SqueezeNet 1.1) to 5.0 (ResNet18) times as long as onnxruntime fp32: it distorts" in text
    assert "INT8 is 2.00 (ResNet18) to 4.00 (SqueezeNet 1.1) times as fast" in text
    assert "loses more than a point of top-1, of 2,000 images: ResNet18 (-0.020)" in text and "up to 5.0%" in text
    swapped = deployed(fp32=[4.0, 1.0], int8=[2.0, 0.5], eager=[8.0, 2.0])
    assert "Fastest by onnxruntime fp32: **SqueezeNet 1.1**, 1.000 ms." in swapped
    assert "much the same factor" in swapped and "images: none" in swapped


def test_networks_within_the_noise_are_called_equal():
    assert "equal to it within the noise: SqueezeNet 1.1" in deployed([1.0, 1.04], [1.0, 1.0], [1.0, 1.0])
    assert "fp32: **ResNet18**, 1.000 ms." in deployed([1.0, 1.06], [1.0, 1.0], [1.0, 1.0])
