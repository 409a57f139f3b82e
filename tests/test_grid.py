import subprocess
import sys

import pytest
from test_params import RUN
from test_results import ENVIRONMENT, save

from lwnb import grid, results, studies
from lwnb.params import Run, check

TINY = {"train_size": 120, "test_size": 100, "epochs": 2, "batch_size": 32, "models": ["squeezenet1_1"]}


def chain():
    """Three runs, each starting from the one before."""
    first = Run(**RUN)
    second = Run(**RUN | {"weights": first.key, "classes": "0:5"})
    return first, second, Run(**RUN | {"weights": second.key, "classes": "5:10"})


def test_missing_runs_come_with_their_sources_first_whatever_the_order_asked_for(house):
    first, second, third = chain()
    assert [r.key for r in grid.missing([third, first, second, third])] == [first.key, second.key, third.key]


def test_a_finished_source_is_trained_again_only_when_its_weights_are_wanted_and_not_here(house):
    first, second, _ = chain()
    record = save(first)
    assert grid.missing([first, second]) == [second]
    record.weights.unlink()
    assert grid.missing([first]) == [] and grid.missing([first, second]) == [first, second]


def test_the_estimate_comes_from_this_machine_s_runs_once_there_are_some(house):
    run, whole = Run(**RUN, train_size=800), results.machine()["cores"]
    assert grid.estimate([run]) == [pytest.approx(3 * 800 / grid.SPEED["resnet18"])]
    save(Run(**RUN, seed=5), n_train=100)  # 3 epochs of 100 images took 2 s by 2 threads
    assert grid.estimate([run]) == [pytest.approx(16 * 2 / whole)]
    assert grid.estimate([run.model_copy(update={"output_stride": 16})]) == [pytest.approx(64 * 2 / whole)]
    frozen = run.model_copy(update={"weights": "imagenet", "freeze": True})
    save(frozen, n_train=800)  # 3 epochs of 800 images took 2 s
    assert grid.estimate([frozen, run]) == [pytest.approx(2 * 2 / whole), pytest.approx(16 * 2 / whole)]
    save(Run(**RUN, seed=6), n_train=900)
    assert grid.estimate([run]) == [pytest.approx(800 * (2 + 2) / (100 + 900) * 2 / whole)]


def test_the_estimate_leaves_out_what_another_machine_trained(house, monkeypatch):
    monkeypatch.setitem(ENVIRONMENT, "machine", results.machine() | {"cpu": "another"})  # a worker of a cluster
    save(Run(**RUN, seed=5))
    assert grid.estimate([Run(**RUN, train_size=800)]) == [pytest.approx(3 * 800 / grid.SPEED["resnet18"])]


def test_a_network_that_nothing_is_known_of_has_no_estimate(house):
    assert grid.estimate([Run(**RUN | {"model": "mobilenet_v2"}, train_size=800)]) == [None]


def test_a_plan_shows_the_fields_that_differ_and_trains_nothing(house):
    frame = grid.plan([Run(**RUN), Run(**RUN | {"lr": 0.2})])
    assert list(frame.columns) == ["key", "model", "lr", "status", "estimate_s"]
    assert frame["status"].tolist() == ["missing"] * 2 and not (house / "runs").exists()


def test_planning_a_thousand_runs_beside_existing_ones_takes_under_a_second(house):
    import time

    for seed in range(20):
        save(Run(**RUN | {"seed": seed}))
    runs = [Run(**RUN | {"seed": seed}) for seed in range(1000)]
    began = time.process_time()
    assert grid.plan(runs)["status"].value_counts().to_dict() == {"missing": 980, "done": 20}
    assert time.process_time() - began < 1


@pytest.mark.slow
def test_two_workers_give_what_one_process_with_one_thread_gives(house, tmp_path, monkeypatch):
    p = check(TINY | {"source_train_size": 120, "source_epochs": 2, "transfer_lrs": [1.0e-3], "transfer_sizes": [100]})
    runs = studies.runs(p, ("01_architectures", "02_transfer"))
    spread = grid.ensure(runs, workers=2).set_index("key")
    assert set(spread["status"]) <= {"done", "did not learn"} and len(spread) == 5
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "alone"))
    code = (
        "import torch; torch.set_num_threads(1); from lwnb import grid, studies; from lwnb.params import check; "
        f"grid.ensure(studies.runs(check({p.model_dump()!r}), ('01_architectures', '02_transfer')), workers=1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    alone = {run.key: results.find(run).metrics for run in runs}
    monkeypatch.setenv("LWNB_HOME", str(house))
    assert {run.key: results.find(run).metrics for run in runs} == alone


def test_a_failed_run_is_a_row_is_tried_again_and_stops_no_other(house, monkeypatch):
    from lwnb import train

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
    from lwnb import train

    runs = [Run(**RUN | {"seed": seed}) for seed in range(2)]
    monkeypatch.setattr(train, "train", lambda run, parent, on_epoch: save(run, parameters=1))
    table = grid.ensure(runs, workers=1, exported={runs[1].key: ["onnxruntime"]})
    assert table["status"].tolist() == ["done", "done"] and results.failures() == []
    told = capsys.readouterr().err
    assert f"{runs[1].key}: not exported (DataError: " in told  # the images of this run are nowhere
    assert f"{runs[0].key}: not" not in told


def test_what_is_there_is_loaded_and_not_trained(house, monkeypatch):
    from lwnb import train

    monkeypatch.setattr(train, "train", lambda *_, **__: pytest.fail("trained"))
    save(Run(**RUN))
    assert grid.ensure([Run(**RUN)])["top1"].tolist() == [0.5]


def test_pin_reads_the_digest_and_sizes_from_the_images(house):
    p = grid.pin(check({"digest": "", "num_classes": 0, "pool_train": 0, "pool_test": 0}))
    assert (p.digest, p.num_classes) == (check({}).digest, 10)
    assert p.pool_train + p.pool_test == 1797  # as scikit-learn's documentation says
    assert [r.key for r in studies.runs(p)] == [r.key for r in studies.runs(check({}))]
