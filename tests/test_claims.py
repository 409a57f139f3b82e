import pandas as pd
import pytest
from test_params import RUN
from test_results import ARRAYS, ENVIRONMENT, METRICS

from lwnb import claims, results
from lwnb.params import Run, check

P = check({})


def frame(**columns):
    rows = pd.DataFrame(columns)
    known = {"status": "done", "key": "k", "n_test": 1000, "n_val": 100, "n_train": 500, "macs": 1e6, "parameters": 1e6}
    known |= {"batch_size": 16, "epochs_run": 100, "train_top1": 1.0}
    return rows.assign(**{k: v for k, v in known.items() if k not in rows})


def test_the_winner_is_chosen_on_validation_and_changes_with_it():
    names, top1 = ["resnet18", "squeezenet1_1"], [0.8, 0.9]
    text = claims.architectures(P, frame(model=names, val_top1=[0.7, 0.6], top1=top1), [])
    assert "prefers **ResNet18**; its test top-1 is 0.800" in text
    swapped = claims.architectures(P, frame(model=names, val_top1=[0.6, 0.7], top1=top1), [])
    assert "prefers **SqueezeNet 1.1**; its test top-1 is 0.900" in swapped


def test_the_cheapest_network_whose_interval_reaches_the_winner_is_named():
    found = frame(
        model=["resnet18", "squeezenet1_1", "shufflenet_v2_x1_0"],
        val_top1=[0.9, 0.8, 0.7], top1=[0.90, 0.89, 0.5], parameters=[11e6, 7e5, 1e5],
    )  # fmt: skip
    assert "Of the 2 networks" in claims.architectures(P, found, [])
    assert "**SqueezeNet 1.1** has the fewest parameters, 0.70 million" in claims.architectures(P, found, [])


def test_a_finding_carries_interval_and_n():
    # Wilson for 81 of 263, Newcombe 1998: 0.2553 to 0.3662
    row = frame(model=["resnet18"], val_top1=[0.3], top1=[81 / 263], n_test=[263]).iloc[0]
    assert claims.rate(row) == "0.308 (95 % interval 0.255 to 0.366, n = 263)"


def test_best_looks_at_validation_alone_and_breaks_by_group():
    rows = frame(arm=["a", "a", "b"], lr=[1, 2, 3], val_top1=[0.5, 0.6, 0.1], top1=[0.9, 0.1, 0.2], model=["m"] * 3)
    assert claims.best(rows)["lr"].tolist() == [2] and claims.best(rows, ["arm"])["lr"].tolist() == [2, 3]


def record(house, curve, train_top1):
    history = [{"epoch": i + 1, "val_top1": value} for i, value in enumerate(curve)]
    return results.save(Run(**RUN), METRICS | {"train_top1": train_top1}, history, ARRAYS, ENVIRONMENT, b"")


@pytest.mark.parametrize(
    ("curve", "flat"),
    [
        ([0.1, 0.5, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], True),
        ([i / 10 for i in range(10)], False),
        ([0.8] * 3, False),
    ],
)
def test_a_curve_is_flat_when_its_last_fifth_no_longer_rises(house, curve, flat):
    assert claims.flat(record(house, curve, 1.0)) is flat


def test_limits_name_one_seed_weak_networks_and_runs_without_a_result(house):
    names, states = ["resnet18", "squeezenet1_1", "mobilenet_v3_small"], ["failed", "did not learn", "done"]
    rows = frame(model=names, status=states, key=["a1", "b2", "c3"], reason="nan", train_top1=[1.0, 1.0, 0.3])
    text = "\n".join(claims.limits(P, rows, [record(house, [i / 10 for i in range(10)], 0.3)]))
    assert "One seed" in text and "stayed below 0.9 in 1 of 1 runs (MobileNetV3-Small)" in text
    assert "still rising at the last epoch: ResNet18" in text
    assert "`a1`: failed (nan)" in text and "`b2`: did not learn" in text
    assert "One seed" not in "\n".join(claims.limits(P.model_copy(update={"seeds": 3}), rows))


def test_few_optimiser_steps_are_told():
    rows = frame(model=["resnet18"], n_train=[425], batch_size=[128], epochs_run=[8])
    assert "as few as 24 optimiser steps" in "\n".join(claims.limits(P, rows))
    assert "as few as 8 optimiser steps" in "\n".join(
        claims.limits(P, rows.assign(batch_size=512))
    )  # one batch an epoch
    assert "optimiser steps" not in "\n".join(claims.limits(P, rows.assign(batch_size=16)))


def test_no_result_is_said_and_is_no_error():
    empty = frame(model=["resnet18"], status=["failed"], reason=["nan"], val_top1=[float("nan")], top1=[float("nan")])
    empty = empty.assign(augment="none", gap=float("nan"), arm="from scratch", lr=0.1, optimizer="sgd")
    for study in (claims.augmentation, claims.hyperparameters):
        assert "has a result" in study(P, empty)
    assert "No network has a result" in claims.architectures(P, empty, [])


def test_augmentation_quotes_the_gap_with_its_sign():
    rows = frame(augment=["none", "mixup"], val_top1=[0.5, 0.6], top1=[0.5, 0.61], gap=[0.4, -0.1], model=["m", "m"])
    text = claims.augmentation(P, rows)
    assert "prefers **mixup**" in text and "+0.400 above validation" in text


def test_a_hyperparameter_at_the_edge_of_its_range_is_told():
    rows = frame(optimizer=["sgd"] * 3, lr=[0.1, 0.2, 0.3], val_top1=[0.5, 0.6, 0.7], top1=[0.5] * 3, model=["m"] * 3)
    rows = rows.assign(batch_size=32, schedule="step", weight_decay=0.0)
    assert "lowest or highest tried" in claims.hyperparameters(P, rows)
    rows["val_top1"] = [0.5, 0.8, 0.7]
    assert "lowest or highest tried" not in claims.hyperparameters(P, rows)
