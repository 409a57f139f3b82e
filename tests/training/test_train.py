import json
import math
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from trained import TINY, numbers, tiny

from lwnb.base import errors
from lwnb.base.errors import DataError
from lwnb.batch import estimates, grid
from lwnb.data import sets
from lwnb.networks import build, plain, states
from lwnb.plan import paramfiles, studies
from lwnb.plan.facts import FIVE
from lwnb.plan.params import check
from lwnb.records import folders, publishing, results, tables
from lwnb.training import evaluation, outcome, recipe, settings, train


@pytest.fixture
def done(house):
    return train.train(tiny())


def test_the_same_run_twice_is_the_same_to_the_last_bit(done, tmp_path, monkeypatch):
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "second"))
    torch.rand(3)  # whatever drew from the global generator before
    again = train.train(tiny())
    assert numbers(again) == numbers(done)
    assert again.weights.read_bytes() == done.weights.read_bytes()


def test_another_seed_is_another_training(done):
    assert train.train(tiny(first_seed=1)).metrics["loss"] != done.metrics["loss"]


def test_a_record_holds_what_a_reader_needs(done):
    metrics, test = done.metrics, sets.task(done.run).test
    assert metrics["n_train"] + metrics["n_val"] == 240 and metrics["n_test"] == 100
    top5, labels = done.predictions["top5"], done.predictions["labels"]
    assert labels.tolist() == test.labels.tolist()
    assert metrics["top1"] == pytest.approx((top5[:, 0] == labels).mean(), abs=1e-6)
    assert metrics["top5"] == pytest.approx((top5 == labels[:, None]).any(1).mean(), abs=1e-6)
    confusion = done.predictions["confusion"].astype(float)
    f1 = 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))
    assert metrics["macro_f1"] == pytest.approx(np.nan_to_num(f1).mean(), abs=1e-5)
    assert confusion.trace() / 100 == pytest.approx(metrics["top1"], abs=1e-6)
    most = np.bincount(sets.task(done.run).train.labels).argmax()
    assert metrics["guess_top1"] == (labels == most).mean()
    assert metrics["per_class_top1"] == pytest.approx((confusion.diagonal() / confusion.sum(1)).tolist(), abs=1e-5)
    history = done.history
    assert len(history) == 3 and metrics["best_epoch"] == history["val_top1"].idxmax() + 1
    assert metrics["val_top1"] == pytest.approx(history["val_top1"].max(), abs=1e-6)
    assert not {"seconds", "latency_ms", "wall_seconds"} & set(metrics)
    assert len(done.environment["all_epoch_seconds"]) == 3 and done.environment["threads"] == torch.get_num_threads()


def test_the_part_of_the_training_split_that_is_looked_at_has_every_class_in_its_share():
    labels = torch.arange(5).repeat_interleave(400)
    split = sets.Split(torch.zeros(2000, 3, 1, 1), labels, torch.arange(2000).view(-1, 1))
    assert outcome._part(split, 1000).labels.bincount().tolist() == [200] * 5
    assert len(outcome._part(split, 1000).ids.unique()) == 1000 and outcome._part(split, 5000) is split


def test_calibration_error_worked_by_hand():
    scores = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    truth = torch.tensor([0, 1, 0, 1])
    # bins of width 1/15: {0.9, 0.9} hits 1 of 2: 0.4 off; {0.6} hits: 0.4 off; {0.8} hits: 0.2 off
    assert evaluation.rates(scores.log(), truth)["ece"] == pytest.approx((2 * 0.4 + 0.4 + 0.2) / 4, abs=1e-6)


def test_a_guess_is_the_largest_class_of_the_training_images_counted_among_the_test_images():
    assert evaluation.guess_top1(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 0, 1])) == 0.25


@pytest.mark.slow
def test_a_short_run_evaluates_as_it_trained(house):
    """torchvision's MobileNetV3 has BatchNorm momentum 0.01 and would evaluate at chance here."""
    record = train.train(tiny(models=["mobilenet_v3_small"], train_size=0, epochs=4))
    assert record.history["train_top1"].iloc[-1] > 0.7
    assert record.metrics["val_top1"] > record.history["train_top1"].iloc[-1] - 0.15


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)  # as here: the last bits hold for one number of threads
from lwnb.batch import grid
from lwnb.plan import studies
from lwnb.plan.params import check
from lwnb.training import train
run = studies.architectures(grid.pin(check({values!r})))[0]
epochs = []
def watch(row):
    epochs.append(row)
    if len(epochs) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
train.train(run, on_epoch=watch)
"""


@pytest.mark.slow
@pytest.mark.parametrize("values", [{}, {"schedule": "plateau", "patience": 2, "warmup_epochs": 0.0, "epochs": 5}])
def test_a_killed_run_resumes_and_ends_with_the_same_numbers(house, values, monkeypatch, tmp_path):
    run = tiny(**values)
    whole = train.train(run)
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "killed"))
    for after in (2, 2):  # dies as its second epoch ends, and once more an epoch later
        code = KILLED.format(values=TINY | values, after=after)
        child = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
        assert child.returncode == -signal.SIGKILL, child.stderr
        assert results.find(run) is None and results.status(run) == "interrupted"
    resumed = train.train(run)
    assert resumed.environment["resumed"] and numbers(resumed) == numbers(whole)
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert not folders.part(run).exists()


def test_early_stopping_looks_at_validation_and_survives_a_kill_after_its_last_epoch(house, monkeypatch, tmp_path):
    run = tiny(patience=1, epochs=12, lr=1.0e-9, warmup_epochs=0.0, select="last")
    whole = train.train(run)
    assert whole.metrics["epochs_run"] < 12
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "late"))
    monkeypatch.setattr(results, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train.train(run)
    monkeypatch.undo()
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "late"))
    assert numbers(train.train(run)) == numbers(whole)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_a_failure_that_is_told(house):
    run = tiny(optimizer="sgd", lr=10.0, warmup_epochs=0.0, schedule="constant", epochs=8, models=["squeezenet1_1"])
    table = grid.ensure([run, tiny()])
    assert table["status"][0] == "failed" and results.find(tiny())  # the other one went on
    assert "diverged" in table["reason"][0] and run.key in json.dumps(tables.failed()[0]) + folders.part(run).name


def test_a_run_whose_loss_stays_at_a_constant_guess_did_not_learn(house):
    record = train.train(tiny(lr=1.0e-9, epochs=1))
    assert record.metrics["learned"] is False and results.status(record.run) == "did not learn"


@pytest.mark.slow
@pytest.mark.parametrize("model", FIVE)
def test_every_network_s_loss_falls_below_a_guess_at_budget_quick(house, model):
    """As published, EfficientNetV2-S and SqueezeNet did not in so short a run: their heads start badly."""
    short = {} if model in ("efficientnet_v2_s", "squeezenet1_1") else {"train_size": 250}
    run = studies.architectures(check({"models": [model]} | short))[0]
    record = train.train(run)
    assert record.metrics["learned"] and record.history["train_loss"].iloc[-1] < 0.97 * math.log(10)
    assert record.metrics["val_loss"] < math.log(10)


@pytest.mark.slow
def test_transfer_starts_from_the_source_and_a_frozen_backbone_stays(house):
    p = grid.pin(check(TINY | {"source_train_size": 240, "source_epochs": 2, "transfer_lrs": [0.01]}))
    p = p.model_copy(update={"transfer_sizes": [120], "transfer_model": "shufflenet_v2_x1_0"})
    source, scratch, frozen, full = studies.transfer(p)
    table = grid.ensure([full, frozen, scratch, source])  # whatever the order asked for
    assert set(table["status"]) <= {"done", "did not learn"}
    before, after, tuned = (states.from_file(results.find(run).weights) for run in (source, frozen, full))
    head = plain.head_names("shufflenet_v2_x1_0")
    before = {k: t.half().float() for k, t in before.items()}  # as a published source has them
    assert all(torch.equal(before[k], after[k].float()) for k in before if k not in head)
    assert not all(torch.equal(before[k], tuned[k].float()) for k in before if k not in head)
    record = results.find(full)
    assert "no training image" in record.environment["leak_check"]
    assert record.predictions["near_source"].shape == record.predictions["labels"].shape


@pytest.mark.slow
def test_a_published_source_serves_as_the_one_trained_here(house):
    p = check(TINY | {"source_train_size": 240, "source_epochs": 1, "transfer_lrs": [0.01], "transfer_sizes": [120]})
    source, *_, full = studies.transfer(grid.pin(p))
    grid.ensure([source, full])
    here = results.find(full).history
    publishing.publish_runs([results.find(source)], weights=True)
    shutil.rmtree(house / "runs")
    assert results.find(source).weights.stat().st_size < 0.6 * results.find(source).metrics["size_bytes"]
    assert [run.key for run in estimates.missing([source, full])] == [full.key]
    grid.ensure([source, full])
    assert results.find(full).history.equals(here)


def test_a_source_trained_on_the_target_s_images_is_refused(house):
    source = tiny()
    train.train(source)
    target = tiny(epochs=2).model_copy(update={"weights": source.key, "split_seed": 3})
    with pytest.raises(DataError, match="validation"):
        train.train(target, source)


def test_weights_that_are_not_there_are_never_replaced_by_random_ones(house):
    with pytest.raises(errors.WeightsError, match="0123456789ab"):
        train.train(tiny().model_copy(update={"weights": "0123456789ab"}))


def test_changed_weights_files_are_refused(house, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"one")
    run = next(r for r in studies.transfer(grid.pin(check(TINY | {"source": str(file)}))) if r.arm == "fine-tuned")
    file.write_bytes(b"two")
    with pytest.raises(errors.WeightsError, match="changed"):
        train.train(run)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", {2: 1, 6: 1, 9: 1}),
        ("step", {2: 1, 5.99: 1, 6: 0.1, 8: 0.01}),
        ("cosine", {2: 1, 4: (1 + 2**-0.5) / 2, 6: 0.5, 10: 0}),
    ],
)
def test_schedules_after_a_linear_warm_up(schedule, shares):
    run, steps = tiny(schedule=schedule, epochs=10, warmup_epochs=2.0, lr=1.0), 100
    assert [recipe.rate(run, step, steps) for step in (0, 99, 199)] == pytest.approx([0.005, 0.5, 1.0])
    for epoch, share in shares.items():
        assert recipe.rate(run, round(epoch * steps), steps) == pytest.approx(share, abs=1e-9)


def test_weight_decay_spares_norms_and_biases(house):
    task = sets.task(tiny())
    made = recipe.Recipe(tiny(), build.build("resnet18", 10), task, lambda row: None, settings.fastest())
    decayed, spared = made.configure_optimizers().param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (tiny().weight_decay, 0)
    assert (
        len(decayed["params"]) == 21 and len(spared["params"]) == 41
    )  # 20 convolutions + 1 matrix; 2 × 20 norms + 1 bias


@pytest.mark.slow
def test_bf16_trains_too(house):
    assert train.train(tiny(precision="bf16", epochs=8)).metrics["learned"]


@pytest.mark.slow
def test_the_paper_s_parameters_run_at_a_length_of_a_few_steps(house):
    files = (paramfiles.file_of("digits"), paramfiles.file_of("budget-paper"))
    p = paramfiles.read(*files, train_size=200, epochs=1, source_epochs=1, models=["resnet18"], seeds=1, digest="")
    assert set(grid.ensure(studies.architectures(grid.pin(p)))["status"]) <= {"done", "did not learn"}
