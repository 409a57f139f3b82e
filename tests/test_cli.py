import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_params import RUN
from test_results import save

from lwnb import cli, results, studies
from lwnb.params import CHECKOUT, ParamsError, Run

LWNB = Path(sys.executable).with_name("lwnb")


def lwnb(*arguments, **more):
    return subprocess.run([LWNB, *map(str, arguments)], check=False, capture_output=True, text=True, **more)


def test_help_names_every_command_and_where_to_start():
    out = lwnb("--help")
    assert out.returncode == 0 and "lwnb plan digits" in out.stdout
    assert all(f"  {name} " in out.stdout for name in ("plan", "run", "runs", "report", "publish", "fetch"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "-p", "epocs=3"], ["epocs", "unknown", "did you mean 'epochs'?"]),
        (["plan", "-p", "epochs"], ["write NAME=VALUE"]),
        (["plan", "-p", "lr=0"], ["lr", "greater than 0"]),
        (["plan", "cifar"], ["cifar.yaml", "cifar10"]),
        (["plan", "-b", "fast"], ["budget-fast.yaml", "budget-quick"]),
        (["plan", "-s", "01"], ["'01'", "01_architectures"]),
        (["runs", "--key", "0123456789ab"], ["0123456789ab", "lwnb runs lists"]),
        (["run", "cifar10", "-p", "data_root=/nowhere"], ["/nowhere", "cifar10", "digits"]),
    ],
)
def test_a_mistake_is_one_message_without_a_traceback(house, arguments, words):
    out = lwnb(*arguments, *(["-s", "01_architectures", "-p", "models=[squeezenet1_1]"] if "run" in arguments else []))
    assert out.returncode == 1 and "Traceback" not in out.stderr, out.stderr
    assert all(word in out.stderr for word in words), out.stderr


def test_a_plan_answers_at_once_lists_every_run_and_trains_nothing(house):
    before = os.times()
    out = lwnb("plan", "digits", "-s", "01_architectures", "-p", "lr=1e-3")
    after = os.times()
    assert out.returncode == 0 and out.stdout.count("missing") == 5, out.stderr
    assert "5 to train" in out.stderr and after.children_user - before.children_user < 6  # seconds of a processor
    assert not (house / "runs").exists()


def test_a_run_that_failed_sets_the_exit_status_and_names_its_reason(house):
    changes = [
        "optimizer=sgd",
        "lr=10.0",
        "schedule=constant",
        "warmup_epochs=0.0",
        "models=[squeezenet1_1]",
        "epochs=4",
    ]
    out = lwnb("run", "digits", "-s", "01_architectures", *(x for c in changes for x in ("-p", c)))
    assert out.returncode == 1 and "diverged" in out.stderr and "Traceback" not in out.stderr, out.stderr
    assert "diverged" in lwnb("runs").stderr


def test_runs_shows_a_table_csv_and_one_run_whole(house):
    record = save(Run(**RUN))
    assert record.run.key in lwnb("runs").stdout
    assert lwnb("runs", "--csv").stdout.startswith("key,dataset,model")
    whole = json.loads(lwnb("runs", "--key", record.run.key).stdout)
    assert whole["run"]["lr"] == 0.1 and whole["metrics"]["top1"] == 0.5 and whole["environment"]["threads"] == 2


def test_publish_copies_and_says_how_many(house):
    save(Run(**RUN))
    assert "1 records copied" in lwnb("publish", "--all").stdout
    assert "0 records copied to results/, 1 were there" in lwnb("publish", "--all").stdout
    assert results.folder(Run(**RUN), "results").is_dir()


def test_fetch_says_what_it_found(house):
    out = lwnb("fetch", "digits").stdout
    assert "1,438 training and 359 test images, 10 classes" in out


def test_a_page_can_be_a_file_anywhere(house, tmp_path):
    page = tmp_path / "mine.yaml"
    page.write_text((CHECKOUT / "params" / "digits.yaml").read_text().replace("title: Digits", "title: Mine"))
    assert (
        "27 runs"
        in lwnb("plan", page, "-p", "source=classes", cwd=tmp_path, env=os.environ | {"LWNB_HOME": str(house)}).stderr
    )


def test_a_page_that_names_its_own_budget_takes_no_other():
    (run,) = cli._runs(cli._pinned(cli._read(["pretrain-cifar100"], None, None)), None)
    assert (run.epochs, run.train_size, run.lr) == (100, 0, 2e-3)  # two of its own, one of budget-cpu.yaml
    assert run.key == studies.pretraining("cifar100", "mobilenet_v3_small").key
    for budget in ("quick", "cpu"):
        with pytest.raises(ParamsError, match=budget):
            cli._read(["pretrain-cifar100"], budget, None)
    with pytest.raises(ParamsError, match="--budget cpu"):
        cli._read(["digits"], None, ["budget=cpu"])


def test_where_a_page_and_its_budget_differ_is_told_with_the_value_used(capsys):
    used = cli._read(["cifar10:cpu"], None, None)["cifar10"]
    (line,) = capsys.readouterr().err.splitlines()
    for name in ("train_size", "test_size", "source_train_size", "transfer_sizes"):  # on which the two files differ
        assert f"{name} {used[name]!r}" in line
    assert "epochs" not in line and used["train_size"] == 10000
    cli._read(["digits"], None, None)  # they have no key in common
    assert capsys.readouterr().err == ""


def test_a_page_may_have_a_budget_of_its_own():
    found = cli._read(["digits", "cifar10:cpu"], None, None)
    assert [(name, page["budget"]) for name, page in found.items()] == [("digits", "quick"), ("cifar10", "cpu")]
    with pytest.raises(ParamsError, match="budget-cpuu"):
        cli._read(["cifar10:cpuu"], None, None)
    with pytest.raises(ParamsError, match="names its own budget"):
        cli._read(["pretrain-cifar100:cpu"], None, None)


def test_a_page_may_take_part_in_some_studies_only():
    found = cli._pinned(cli._read(["cifar10-all"], None, None))
    assert {run.model for run in cli._runs(found, None)} == {"mobilenet_v3_small", "squeezenet1_1"}
    with pytest.raises(ParamsError, match="cifar10-all: no part in 02_transfer"):
        cli._runs(found, ["02_transfer"])
