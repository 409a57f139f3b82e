"""Learning rates chosen on validation, kept with their runs, and used by exactly the pages whose runs they are."""

import pytest
from planted import plant

from lwnb import cli, exports, results, studies, tuning
from lwnb.params import ParamsError, check

RATES = [0.001, 0.002, 0.004]


@pytest.fixture
def p(house, monkeypatch):
    monkeypatch.setattr(tuning, "FILE", house / "tuned.yaml")
    return check({"models": ["resnet18", "squeezenet1_1"], "tune_lrs": RATES, "seeds": 2})


def finish(runs, tops):
    for run, top in zip(runs, tops, strict=True):
        plant(0.9, val_top1=top, **run.model_dump())
    assert all(map(results.find, runs))


def test_the_rate_that_validation_prefers_serves_all_seeds_of_its_network_alone(p):
    runs = studies.tuning(p, "resnet18")
    finish(runs, (0.7, 0.8, 0.75))
    assert [run.lr for run in studies.architectures(p)] == [p.lr] * 4  # nothing was chosen yet
    assert tuning.choose(runs) == 0.002 == tuning.choose(runs)
    assert [run.lr for run in studies.architectures(p)] == [0.002, 0.002, p.lr, p.lr]
    assert (
        runs[1].key == studies.architectures(p)[0].key in tuning.FILE.read_text()
    )  # the winner is the first seed's run
    assert tuning.FILE.read_text().count("resnet18") == 1


@pytest.mark.parametrize("change", [{"epochs": 9}, {"train_size": 400}, {"tune_lrs": RATES[:2]}, {"output_stride": 16}])
def test_a_rate_tuned_under_another_protocol_does_not_count(p, change):
    finish(studies.tuning(p, "resnet18"), (0.7, 0.8, 0.75))
    tuning.choose(studies.tuning(p, "resnet18"))
    assert {run.lr for run in studies.architectures(p.model_copy(update=change))} == {p.lr}


def test_without_all_results_nothing_is_chosen(p):
    finish(studies.tuning(p, "resnet18")[:2], (0.7, 0.8))
    assert tuning.choose(studies.tuning(p, "resnet18")) is None and not tuning.FILE.exists()


def test_one_rate_is_nothing_to_choose_from(house):
    with pytest.raises(ParamsError, match="nothing to choose from"):
        cli.tune(["digits"], "quick", ["tune_lrs=[1.0e-3]"])


def test_what_chose_a_rate_is_published_with_its_page(p, house):
    changes = [f"tune_lrs={RATES}", "models=[resnet18]"]
    page = cli._pinned(cli._read(["digits"], "quick", changes))["digits"]
    runs = studies.tuning(page, "resnet18")
    finish(runs, (0.7, 0.8, 0.75))
    tuning.choose(runs)
    cli.publish(["digits"], "quick", changes, ["01_architectures"], everything=False, weights=False)
    assert {file.parent.name for file in (house / "results").rglob("metrics.json")} == {run.key for run in runs}


def test_the_chosen_run_is_exported_for_the_page_on_deployment(p, monkeypatch):
    """It is known only after the last rate has run, when no process trains it any more."""
    exported = []
    monkeypatch.setattr(exports, "convert", lambda runs, runtimes: exported.extend((run.lr, runtimes) for run in runs))
    changes = [f"tune_lrs={RATES}", "models=[resnet18]", "runtimes=[onnxruntime]"]
    page = cli._pinned(cli._read(["digits"], "quick", changes))["digits"]
    finish(studies.tuning(page, "resnet18"), (0.7, 0.8, 0.75))
    cli.tune(["digits"], "quick", changes)
    assert exported == [(0.002, ["onnxruntime"])]
    cli.tune(["digits"], "quick", [*changes, "notebooks=[01_architectures]"])
    assert len(exported) == 1
