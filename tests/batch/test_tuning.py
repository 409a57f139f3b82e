"""Learning rates chosen on validation, kept with their runs, and used by exactly the pages whose runs they are."""

import pytest
import typer
import yaml
from planted import plant

from lwnb import cli
from lwnb.base.errors import ParamsError
from lwnb.batch import asked, grid, prepare, tuning
from lwnb.plan import paramfiles, studies, tuned
from lwnb.plan.params import check
from lwnb.records import failures, results

RATES = [0.001, 0.002, 0.004]


@pytest.fixture
def p(house, monkeypatch):
    monkeypatch.setattr(tuned, "FILE", house / "tuned.yaml")
    return check({"models": ["resnet18", "squeezenet1_1"], "tune_lrs": RATES, "seeds": 2})


def finish(runs, tops):
    for run, top in zip(runs, tops, strict=True):
        plant(0.9, val_top1=top, **run.model_dump())
    assert all(map(results.find, runs))


@pytest.mark.parametrize("change", [{"lr": 50.0}, {"lr": -1.0}, {"lr": 0.5}, {"tried": {}}, {"tried": {0.001: "x"}}])
def test_an_entry_edited_by_hand_is_refused_and_never_used_in_silence(p, change):
    entry = {"dataset": "digits", "model": "resnet18", "lr": 0.001, "tried": {0.001: "0123456789ab"}}
    tuned.FILE.write_text(yaml.safe_dump([entry | change]))
    with pytest.raises(ParamsError, match="tuned.yaml"):
        studies.architectures(p)


def test_the_rates_of_one_network_are_not_those_of_another(p):
    runs = studies.ladder(p, "squeezenet1_1")
    entry = {"dataset": "digits", "model": "resnet18", "lr": 0.002, "tried": {run.lr: run.key for run in runs}}
    tuned.FILE.write_text(yaml.safe_dump([entry]))
    assert {run.lr for run in studies.architectures(p)} == {p.lr}


def test_a_file_that_cannot_be_read_is_told_before_anything_trains(p, monkeypatch):
    tuned.FILE.write_text("a: [")
    monkeypatch.setattr(grid, "ensure", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ParamsError, match="tuned.yaml"):
        tuning.tune("digits", p, None, None, lambda line: None)


def test_the_rate_that_validation_prefers_serves_all_seeds_of_its_network_alone(p):
    runs = studies.ladder(p, "resnet18")
    finish(runs, (0.7, 0.8, 0.75))
    assert [run.lr for run in studies.architectures(p)] == [p.lr] * 4  # nothing was chosen yet
    assert tuning.choose(runs) == 0.002 == tuning.choose(runs)
    assert [run.lr for run in studies.architectures(p)] == [0.002, 0.002, p.lr, p.lr]
    assert (
        runs[1].key == studies.architectures(p)[0].key in tuned.FILE.read_text()
    )  # the winner is the first seed's run
    assert tuned.FILE.read_text().count("resnet18") == 1


@pytest.mark.parametrize("change", [{"epochs": 9}, {"train_size": 400}, {"tune_lrs": RATES[:2]}, {"output_stride": 16}])
def test_a_rate_tuned_under_another_protocol_does_not_count(p, change):
    finish(studies.ladder(p, "resnet18"), (0.7, 0.8, 0.75))
    tuning.choose(studies.ladder(p, "resnet18"))
    assert {run.lr for run in studies.architectures(p.model_copy(update=change))} == {p.lr}


def test_a_longer_page_takes_the_rates_of_a_shorter_ladder(p):
    finish(studies.ladder(p, "resnet18"), (0.7, 0.8, 0.75))
    tuning.choose(studies.ladder(p, "resnet18"))
    longer = p.model_copy(update={"epochs": 3 * p.epochs, "tune_epochs": p.epochs, "models": ["resnet18"]})
    assert {(run.lr, run.epochs) for run in studies.architectures(longer)} == {(0.002, 3 * p.epochs)}


def test_without_all_results_nothing_is_chosen(p):
    finish(studies.ladder(p, "resnet18")[:2], (0.7, 0.8))
    assert tuning.choose(studies.ladder(p, "resnet18")) is None and not tuned.FILE.exists()


LADDER = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]


@pytest.mark.parametrize(
    ("best", "tried"),
    [(0.003, LADDER[2:5]), (0.001, LADDER[1:5]), (0.03, LADDER[2:]), (0.1, LADDER[2:]), (0.0001, LADDER[:5])],
)
def test_a_climb_ends_when_the_best_lies_inside_or_the_ladder_ends(p, monkeypatch, best, tried):
    """A network whose validation accuracy falls to both sides of one rate: it is found,
    with no more runs than it takes."""
    rounds = []

    def ensure(runs, *_):
        rounds.append([run.lr for run in runs])
        finish(runs, [0.8 - 0.1 * abs(LADDER.index(run.lr) - LADDER.index(best)) for run in runs])

    monkeypatch.setattr(grid, "ensure", ensure)
    changes = [f"tune_lrs={LADDER[::-1]}", "models=[resnet18]", "notebooks=[01_architectures]"]
    page = asked.pin(paramfiles.pages(["digits"], "quick", changes)[0])["digits"]
    cli.tune(["digits"], "quick", changes)
    ladder = studies.ladder(page, "resnet18")
    assert rounds[0] == LADDER[2:5] and sorted(lr for some in rounds for lr in some) == tried == tuned.tried(ladder)
    assert studies.tuned(page, "resnet18") == best


def test_a_run_of_the_ladder_that_is_there_counts(p):
    ladder = studies.ladder(p.model_copy(update={"tune_lrs": LADDER}), "resnet18")
    finish(ladder[-2:], (0.9, 0.5))  # a second peak, which a climb from the middle would not see
    finish(ladder[2:5], (0.6, 0.7, 0.6))
    assert not tuning.wanted(ladder) and tuning.choose(ladder) == 0.03


def test_a_longer_ladder_keeps_what_was_chosen_until_it_is_climbed(p):
    finish(studies.ladder(p, "resnet18"), (0.7, 0.75, 0.8))
    tuning.choose(studies.ladder(p, "resnet18"))
    longer = studies.ladder(p.model_copy(update={"tune_lrs": [*RATES, 0.008, 0.016]}), "resnet18")
    assert tuned.chosen(longer) == 0.004 and [run.lr for run in tuning.wanted(longer)] == [0.008]
    assert tuning.choose(longer) is None
    finish(tuning.wanted(longer), (0.78,))
    assert tuning.choose(longer) == 0.004 and tuned.tried(longer) == [*RATES, 0.008]
    assert tuned.FILE.read_text().count("resnet18") == 1


def test_a_rate_that_learned_nothing_is_the_worst(p):
    plant(0.9, metrics={"learned": False}, **studies.ladder(p, "resnet18")[0].model_dump())
    finish(studies.ladder(p, "resnet18")[1:], (0.3, 0.2))
    assert tuning.choose(studies.ladder(p, "resnet18")) == 0.002


def test_a_climb_stops_at_a_run_that_fails(p, monkeypatch):
    asked = []
    monkeypatch.setattr(
        grid, "ensure", lambda runs, *_: asked.extend(failures.fail(run, OSError("full")) or run for run in runs)
    )
    with pytest.raises(typer.Exit):
        cli.tune(["digits"], "quick", [f"tune_lrs={LADDER}", "models=[resnet18]"])
    assert [run.lr for run in asked] == LADDER[2:5] and not tuned.FILE.exists()


ENTRY = {"dataset": "digits", "model": "resnet18", "lr": 0.002, "tried": {0.002: "0123456789ab"}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1", ["line 1"]),
        ("5", ["5"]),
        ("a: 1", ["a"]),
        ("- 1", ["0"]),
        (yaml.safe_dump([{k: v for k, v in ENTRY.items() if k != "lr"}]), ["0.lr"]),
        (yaml.safe_dump([ENTRY, ENTRY | {"lr": "fast"}]), ["1.lr", "fast"]),
        (yaml.safe_dump([ENTRY | {"tried": None}]), ["0.tried"]),
        (yaml.safe_dump([ENTRY | {"tried": {0.002: 822391747663}}]), ["0.tried", "822391747663"]),
        (yaml.safe_dump([ENTRY | {"remark": "mine"}]), ["0.remark"]),
    ],
)
def test_a_file_edited_by_hand_is_refused_in_one_line_that_names_the_place(p, content, words):
    tuned.FILE.write_text(content)
    with pytest.raises(ParamsError) as error:
        studies.architectures(p)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in [str(tuned.FILE), *words]), str(error.value)


def test_a_file_that_is_no_text_is_named(p):
    tuned.FILE.write_bytes(b"\xff")
    with pytest.raises(ParamsError, match="tuned.yaml"):
        tuned.chosen([])
    tuned.FILE.write_text("# nothing was tuned yet")
    assert tuned.chosen([]) is None


def test_one_rate_is_nothing_to_choose_from(house):
    with pytest.raises(ParamsError, match="nothing to choose from"):
        cli.tune(["digits"], "quick", ["tune_lrs=[1.0e-3]"])


def test_what_chose_a_rate_is_published_with_its_page(p, house):
    changes = [f"tune_lrs={RATES}", "models=[resnet18]"]
    page = asked.pin(paramfiles.pages(["digits"], "quick", changes)[0])["digits"]
    runs = studies.ladder(page, "resnet18")
    finish(runs, (0.7, 0.8, 0.75))
    tuning.choose(runs)
    cli.publish(["digits"], "quick", changes, ["01_architectures"], everything=False, weights=False)
    assert {file.parent.name for file in (house / "results").rglob("metrics.json")} == {run.key for run in runs}


def test_the_chosen_run_is_exported_for_the_page_on_deployment(p, monkeypatch):
    """It is known only after the last rate has run, when no process trains it any more."""
    exported = []
    monkeypatch.setattr(prepare, "convert", lambda runs, runtimes: exported.extend((run.lr, runtimes) for run in runs))
    changes = [f"tune_lrs={RATES}", "models=[resnet18]", "runtimes=[onnxruntime]"]
    page = asked.pin(paramfiles.pages(["digits"], "quick", changes)[0])["digits"]
    finish(studies.ladder(page, "resnet18"), (0.7, 0.8, 0.75))
    cli.tune(["digits"], "quick", changes)
    assert exported == [(0.002, ["onnxruntime"])]
    cli.tune(["digits"], "quick", [*changes, "notebooks=[01_architectures]"])
    assert len(exported) == 1
