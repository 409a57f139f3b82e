import subprocess
import sys

import pytest
from planted import ENVIRONMENT, RUN, save

from lwnb.base.errors import DataError, ParamsError
from lwnb.batch import estimates, grid, refusals
from lwnb.networks import counts
from lwnb.plan import facts, studies
from lwnb.plan.facts import FIVE
from lwnb.plan.paramfiles import file_of, read
from lwnb.plan.params import check
from lwnb.plan.run import Run
from lwnb.records import machine, results, tables

TINY = {"train_size": 120, "test_size": 100, "epochs": 2, "batch_size": 32, "models": ["squeezenet1_1"]}


def chain():
    """Three runs, each starting from the one before."""
    first = Run(**RUN)
    second = Run(**RUN | {"weights": first.key, "classes": "0:5"})
    return first, second, Run(**RUN | {"weights": second.key, "classes": "5:10"})


def test_missing_runs_come_with_their_sources_first_whatever_the_order_asked_for(house):
    first, second, third = chain()
    assert [r.key for r in estimates.missing([third, first, second, third])] == [first.key, second.key, third.key]


def test_a_finished_source_is_trained_again_only_when_its_weights_are_wanted_and_not_here(house):
    first, second, _ = chain()
    record = save(first)
    assert estimates.missing([first, second]) == [second]
    record.weights.unlink()
    assert estimates.missing([first]) == [] and estimates.missing([first, second]) == [first, second]


def test_the_estimate_comes_from_this_machine_s_runs_once_there_are_some(house):
    run, whole = Run(**RUN, train_size=800), machine.machine()["cores"]
    assert estimates.estimate([run]) == [pytest.approx(3 * 800 / facts.NETWORKS["resnet18"].speed)]
    save(Run(**RUN, seed=5), n_train=100)  # 3 epochs of 100 images took 2 s by 2 threads
    assert estimates.estimate([run]) == [pytest.approx(16 * 2 / whole)]
    assert estimates.estimate([run.model_copy(update={"output_stride": 16})]) == [pytest.approx(64 * 2 / whole)]
    frozen = run.model_copy(update={"weights": "imagenet", "freeze": True})
    save(frozen, n_train=800)  # 3 epochs of 800 images took 2 s
    assert estimates.estimate([frozen, run]) == [pytest.approx(2 * 2 / whole), pytest.approx(16 * 2 / whole)]
    save(Run(**RUN, seed=6), n_train=900)
    assert estimates.estimate([run]) == [pytest.approx(800 * (2 + 2) / (100 + 900) * 2 / whole)]


def test_the_estimate_leaves_out_what_another_machine_trained(house, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "machine", machine.machine() | {"cpu": "another"})  # a worker of a cluster
    save(Run(**RUN, seed=5))
    assert estimates.estimate([Run(**RUN, train_size=800)]) == [
        pytest.approx(3 * 800 / facts.NETWORKS["resnet18"].speed)
    ]


def test_a_network_that_nothing_is_known_of_has_no_estimate(house):
    assert estimates.estimate([Run(**RUN | {"model": "mobilenet_v2"}, train_size=800)]) == [None]


def test_a_plan_shows_the_fields_that_differ_and_trains_nothing(house):
    frame = estimates.plan_table([Run(**RUN), Run(**RUN | {"lr": 0.2})])
    assert list(frame.columns) == ["key", "model", "lr", "status", "estimate_s"]
    assert frame["status"].tolist() == ["missing"] * 2 and not (house / "runs").exists()


def test_planning_a_thousand_runs_beside_existing_ones_takes_under_a_second(house):
    import time

    for seed in range(20):
        save(Run(**RUN | {"seed": seed}))
    runs = [Run(**RUN | {"seed": seed}) for seed in range(1000)]
    began = time.process_time()
    assert estimates.plan_table(runs)["status"].value_counts().to_dict() == {"missing": 980, "done": 20}
    assert time.process_time() - began < 1


@pytest.mark.slow
def test_two_workers_give_what_one_process_with_one_thread_gives(house, tmp_path, monkeypatch):
    p = check(TINY | {"source_train_size": 120, "source_epochs": 2, "transfer_lrs": [1.0e-3], "transfer_sizes": [100]})
    runs = studies.runs(p, ("01_architectures", "02_transfer"))
    spread = grid.ensure(runs, workers=2).set_index("key")
    assert set(spread["status"]) <= {"done", "did not learn"} and len(spread) == 5
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "alone"))
    code = (
        "import torch; torch.set_num_threads(1); from lwnb.batch import grid; from lwnb.plan import studies; "
        "from lwnb.plan.params import check; "
        f"grid.ensure(studies.runs(check({p.model_dump()!r}), ('01_architectures', '02_transfer')), workers=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    alone = {run.key: results.find(run).metrics for run in runs}
    monkeypatch.setenv("LWNB_HOME", str(house))
    assert {run.key: results.find(run).metrics for run in runs} == alone


def test_a_failed_run_is_a_row_is_tried_again_and_stops_no_other(house, monkeypatch):
    from lwnb.training import train

    runs = [Run(**RUN | {"seed": seed}) for seed in range(3)]

    def fake(run, parent, on_epoch):
        if run.seed == 1:
            raise MemoryError("no memory left")
        save(run)

    monkeypatch.setattr(train, "train", fake)
    table = grid.ensure(runs, workers=1)
    assert table["status"].tolist() == ["done", "failed", "done"]
    assert table["reason"][1] == "MemoryError: no memory left"
    monkeypatch.setattr(train, "train", lambda run, parent, on_epoch: save(run))
    assert grid.ensure(runs, workers=1)["status"].tolist() == ["done"] * 3


def test_an_export_that_fails_is_told_and_leaves_the_run_whole(house, monkeypatch, capsys):
    from lwnb.training import train

    runs = [Run(**RUN | {"seed": seed}) for seed in range(2)]
    monkeypatch.setattr(train, "train", lambda run, parent, on_epoch: save(run, parameters=1))
    table = grid.ensure(runs, workers=1, exported={runs[1].key: ["onnxruntime"]})
    assert table["status"].tolist() == ["done", "done"] and tables.failed() == []
    told = capsys.readouterr().err
    assert f"{runs[1].key}: not exported (DataError: " in told  # the images of this run are nowhere
    assert f"{runs[0].key}: not" not in told


def test_what_is_there_is_loaded_and_not_trained(house, monkeypatch):
    from lwnb.training import train

    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("trained"))
    save(Run(**RUN))
    assert grid.ensure([Run(**RUN)])["top1"].tolist() == [0.5]


def test_pin_reads_the_digest_and_sizes_from_the_images(house):
    p, page = grid.pin(check({})), read(file_of("digits"), source="classes")
    assert (p.digest, p.num_classes) == (page.digest, 10)
    assert p.pool_train + p.pool_test == 1797  # as scikit-learn's documentation says
    assert [r.key for r in studies.runs(p)] == [r.key for r in studies.runs(page)]


# --- What cannot run is refused before anything trains ---


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image_size": 8, "models": ["squeezenet1_1"]}, ["image_size", "8", "squeezenet1_1"]),
        ({"models": ["vit_b_16"]}, ["image_size", "32", "vit_b_16", "224"]),
        ({"train_size": 5}, ["train_size", "5"]),
        ({"digest": "0" * 64}, ["digest", "0" * 64]),
        ({"dataset": "cifar10", "data_root": "nowhere"}, ["cifar10", "nowhere"]),
        ({"notebooks": ["02_transfer"], "source": "0123456789ab"}, ["source", "0123456789ab"]),
        (
            {"notebooks": ["02_transfer"], "source": "cifar100", "data_root": "nowhere"},
            ["source", "cifar100", "nowhere"],
        ),
    ],
)
def test_what_would_stop_runs_is_refused_once(house, values, words):
    values = {"notebooks": ["01_architectures"], "source": "classes"} | values
    runs = studies.runs(check(read(file_of("digits")).model_dump() | values))
    with pytest.raises((ParamsError, DataError)) as told:
        refusals.refuse(runs)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert "\n" not in str(told.value)


def test_weights_of_another_network_are_refused(house):
    source = save(Run(**RUN))
    run = Run(**RUN | {"model": "squeezenet1_1", "weights": source.run.key})
    with pytest.raises(ParamsError, match="resnet18.*squeezenet1_1"):
        refusals.refuse([run])
    source.weights.unlink()
    with pytest.raises(ParamsError, match="no weights"):
        refusals.refuse([run])


def test_what_is_there_is_not_checked(house):
    """Its images may be anywhere by now."""
    save(Run(**RUN | {"image_size": 8, "model": "squeezenet1_1"}))
    refusals.refuse([Run(**RUN | {"image_size": 8, "model": "squeezenet1_1"})])


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("model", FIVE)
def test_the_networks_that_are_not_checked_work_from_32_px_on(model, stride):
    assert counts.cost(model, 2, 32, stride)["macs"] > 0


def test_a_reason_that_stops_many_runs_is_told_once(house, monkeypatch, capsys):
    from lwnb.training import train

    def fail(*_, **__):
        raise OSError("planted")

    monkeypatch.setattr(train, "train", fail)
    grid.ensure([Run(**RUN | {"seed": seed}) for seed in range(3)], workers=1)
    assert capsys.readouterr().err.count("planted") == 1 and len(tables.failed()) == 3
