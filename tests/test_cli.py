import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import stubs
from planted import RUN, plant, save

from lwnb import cli
from lwnb.base import disk, errors
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.batch import asked, grid
from lwnb.edge import convert
from lwnb.plan import paramfiles, studies, tuned
from lwnb.plan.run import Run
from lwnb.records import folders, results
from lwnb.report import execution

LWNB = Path(sys.executable).with_name("lwnb")


def lwnb(*arguments, **more):
    return subprocess.run([LWNB, *map(str, arguments)], check=False, capture_output=True, text=True, **more)


def test_help_names_every_command_and_where_to_start():
    out = lwnb("--help")
    assert out.returncode == 0 and "lwnb plan digits" in out.stdout
    sections, name = {}, ""
    for line in out.stdout.partition("Start with")[0].splitlines():
        if line and not line.startswith(" "):
            name = line
        elif line.strip():
            sections.setdefault(name, []).append(line.split()[0])
    assert {name: some for name, some in sections.items() if name.count(" ") == 0 and name != "Options:"} == {
        "Look:": ["plan", "runs", "recommend"],
        "Train:": ["fetch", "run", "tune"],
        "Report:": ["report", "readme"],
        "Device:": ["measure", "export"],
        "Records:": ["publish"],
    }
    cut = [line for line in out.stdout.splitlines() if line.startswith("  ") and line.endswith("...")]
    assert not cut, "each command is told in one whole line"


def test_the_version_is_that_of_the_package():
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert lwnb("--version").stdout == f"{declared}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "-p", "epocs=3"], ["epocs", "unknown", "did you mean 'epochs'?"]),
        (["plan", "-p", "epochs"], ["write NAME=VALUE"]),
        (["plan", "-p", "=5"], ["write NAME=VALUE"]),
        (["plan", "-p", "models=resnet18"], ["models", "resnet18", "[resnet18]"]),
        (["plan", "-p", "lr=0"], ["lr", "greater than 0"]),
        (["plan", "cifar"], ["cifar.yaml", "cifar10"]),
        (["plan", "-b", "fast"], ["budget-fast.yaml", "budget-quick"]),
        (["plan", "-s", "01"], ["'01'", "01_architectures"]),
        (["runs", "--key", "0123456789ab"], ["0123456789ab", "lwnb runs lists"]),
        (["plan", "-p", "epochs={"], ["epochs={"]),
        (["plan", "-p", "title=a <b>"], ["title", "'<'"]),
        (["report", "a b.yaml"], ["a b.yaml"]),
        (["plan", "digits", "digits"], ["digits and digits"]),
        (["plan", "cifar10-cpu", "cifar10:cpu", "cifar10"], ["cifar10-cpu and cifar10:cpu", "'cifar10-cpu'"]),
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
    assert not list(house.glob("runs/digits"))


@pytest.mark.slow
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
    assert folders.folder(Run(**RUN), "results").is_dir()


@pytest.mark.slow
def test_fetch_says_what_it_found(house):
    out = lwnb("fetch", "digits").stdout
    assert "1,438 training and 359 test images, 10 classes" in out


@pytest.mark.slow
def test_a_page_can_be_a_file_anywhere(house, tmp_path):
    page = tmp_path / "mine.yaml"
    page.write_text((CHECKOUT / "params" / "digits.yaml").read_text().replace("title: Digits", "title: Mine"))
    assert (
        "27 runs"
        in lwnb("plan", page, "-p", "source=classes", cwd=tmp_path, env=os.environ | {"LWNB_HOME": str(house)}).stderr
    )


def test_a_page_that_names_its_own_budget_takes_no_other():
    (run,) = asked.runs(asked.pin(paramfiles.pages(["pretrain-cifar100"])[0]))
    assert (run.epochs, run.train_size, run.lr) == (100, 0, 2e-3)  # two of its own, one of budget-cpu.yaml
    assert run.key == studies.pretraining("cifar100", "mobilenet_v3_small").key
    for budget in ("quick", "cpu"):
        with pytest.raises(ParamsError, match=budget):
            paramfiles.pages(["pretrain-cifar100"], budget)
    with pytest.raises(ParamsError, match="--budget cpu"):
        paramfiles.pages(["digits"], changes=["budget=cpu"])


def test_where_a_page_and_its_budget_differ_is_told_with_the_value_used(capsys):
    pages, (line,) = paramfiles.pages(["cifar10:cpu"])
    used = pages["cifar10"]
    for name in ("train_size", "test_size", "source_train_size", "transfer_sizes"):  # on which the two files differ
        assert f"{name} {used[name]!r}" in line
    assert "epochs" not in line and used["train_size"] == 10000
    assert paramfiles.pages(["digits"])[1] == []  # they have no key in common
    cli._read(["cifar10:cpu"], None, None)
    assert capsys.readouterr().err == f"{line}\n"
    pages, (line,) = paramfiles.pages(["cifar10:cpu"], changes=["train_size=5000"])
    assert pages["cifar10"]["train_size"] == 5000 and " train_size" not in line


def test_a_page_may_have_a_budget_of_its_own():
    found, _ = paramfiles.pages(["digits", "cifar10:cpu"])
    assert [(name, page["budget"]) for name, page in found.items()] == [("digits", "quick"), ("cifar10", "cpu")]
    assert found["cifar10"]["title"] == "CIFAR-10"
    with pytest.raises(ParamsError, match="budget-cpuu"):
        paramfiles.pages(["cifar10:cpuu"])
    with pytest.raises(ParamsError, match="names its own budget"):
        paramfiles.pages(["pretrain-cifar100:cpu"])


def test_a_page_may_take_part_in_some_studies_only():
    found = asked.pin(paramfiles.pages(["cifar10-all"])[0])
    assert {run.model for run in asked.runs(found)} == {"mobilenet_v3_small", "squeezenet1_1"}
    with pytest.raises(ParamsError, match="cifar10-all: no part in 02_transfer"):
        asked.runs(found, ["02_transfer"])


def test_one_page_with_two_budgets_is_two_pages():
    found, _ = paramfiles.pages(["digits:quick", "digits:cpu"], "quick")
    assert {name: (page["budget"], page["title"]) for name, page in found.items()} == {
        "digits-quick": ("quick", "Digits, budget quick"),
        "digits-cpu": ("cpu", "Digits, budget cpu"),
    }
    assert list(paramfiles.pages(["digits", "digits:cpu"], "quick")[0]) == ["digits", "digits-cpu"]


def test_two_files_of_one_name_are_refused_with_both(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("title: Mine\n")
    with pytest.raises(ParamsError, match="a/mine.yaml and .*b/mine.yaml"):
        paramfiles.pages([str(tmp_path / folder / "mine.yaml") for folder in ("a", "b")], "quick")


@pytest.mark.slow
@pytest.mark.parametrize("home", ["my home", "~/my home"])
def test_a_command_and_a_kernel_that_it_starts_have_one_home(tmp_path, monkeypatch, home):
    """The kernel stands in the checkout, the command elsewhere."""
    monkeypatch.setenv("LWNB_HOME", home)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert lwnb("publish", "--all").returncode == 0 and (tmp_path / "my home" / "runs").is_dir()
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    seen = stubs.notebook(
        tmp_path / "01_home.ipynb", "Home", "from lwnb.base import places; str(places.home())", parameters=""
    )
    (one,) = execution.execute([seen], [execution.Page("a", "A", {})], tmp_path, lambda *_: "", progress=lambda _: None)
    assert one.error is None and repr(str(tmp_path / "my home")) in one.path.read_text()


@pytest.mark.slow
def test_a_kernel_with_a_relative_home_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LWNB_HOME", "relative")
    seen = stubs.notebook(
        tmp_path / "01_home.ipynb", "Home", "from lwnb.base import places; places.home()", parameters=""
    )
    (one,) = execution.execute([seen], [execution.Page("a", "A", {})], tmp_path, lambda *_: "", progress=lambda _: None)
    assert "ParamsError: LWNB_HOME: 'relative'" in one.error


@pytest.mark.slow
def test_a_home_elsewhere_sees_the_project_s_results(house, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "LWNB_RESULTS"}
    done = lwnb("plan", "cifar10-cpu", env=environment)
    assert done.returncode == 0 and ", 0 to train" in done.stderr, done.stderr
    assert "0 records copied" in lwnb("publish", "cifar10-cpu", env=environment).stdout
    assert not (house / "results").exists()


def refusal(monkeypatch, *arguments) -> str:
    """The one line with which a command ends."""
    monkeypatch.setattr(sys, "argv", ["lwnb", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, str) and "\n" not in end.value.code
    return end.value.code


RATES = ["-p", "tune_lrs=[1e-3, 2e-3]", "-p", "models=[resnet18]", "-p", "source=classes"]


@pytest.mark.parametrize("command", ["run", "report", "publish", "tune", "fetch"])
def test_a_home_that_is_no_folder_is_named_before_anything_trains(house, monkeypatch, command):
    (house / "file").touch()
    monkeypatch.setenv("LWNB_HOME", str(house / "file" / "home"))
    monkeypatch.setattr(grid, "_one", None)
    monkeypatch.setattr(grid, "_spread", None)
    message = refusal(monkeypatch, command, "digits", *RATES)
    assert str(house / "file") in message and "LWNB_HOME" in message


@pytest.mark.parametrize("command", ["run", "report", "tune", "measure"])
def test_a_home_that_may_not_be_written_to_is_named_before_anything_trains(house, monkeypatch, command):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(grid, "_one", None)
    monkeypatch.setattr(grid, "_spread", None)
    assert str(house / "runs") in refusal(monkeypatch, command, "digits", *RATES)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("command", ["publish", "report"])
def test_a_system_that_does_not_let_one_write_is_one_line(house, monkeypatch, command, number):
    run = save(Run(**RUN)).run
    monkeypatch.setattr(asked, "runs", lambda *_: [run])
    monkeypatch.setattr(studies, "ladder", lambda *_: [])
    monkeypatch.setattr(os, "mkdir", lambda path, *_: (_ for _ in ()).throw(OSError(number, os.strerror(number), path)))
    message = refusal(monkeypatch, command, "digits", "-p", "notebooks=[03_augmentation]")
    assert str(house) in message and os.strerror(number) in message


def test_a_tuned_file_that_cannot_be_written_is_named(house, monkeypatch):
    (house / "file").touch()
    monkeypatch.setattr(tuned, "FILE", house / "file" / "tuned.yaml")
    monkeypatch.setattr(grid, "ensure", lambda runs, *_: [plant(0.9, **run.model_dump()) for run in runs])
    assert str(house / "file") in refusal(monkeypatch, "tune", "digits", *RATES, "-p", "notebooks=[01_architectures]")


@pytest.mark.parametrize("kind", [ParamsError, errors.DataError, errors.WeightsError, errors.BookError])
def test_an_error_of_the_project_is_its_message_alone(house, monkeypatch, kind):
    monkeypatch.setattr(results, "every", lambda: (_ for _ in ()).throw(kind("planted")))
    assert refusal(monkeypatch, "runs") == "lwnb: planted"


def test_an_unexpected_fault_keeps_its_traceback(house, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lwnb", "runs"])
    for error in (KeyError("planted"), FileNotFoundError(errno.ENOENT, "planted", "x")):
        monkeypatch.setattr(results, "every", lambda error=error: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            cli.main()


def test_an_export_into_a_folder_or_below_a_file_is_one_line(house, monkeypatch):
    record = save(Run(**RUN))
    (house / "file").touch()
    monkeypatch.setattr(convert, "ship", lambda record, form, int8, file: disk.write(file, b""))
    assert f"resnet18-digits-{record.run.key}.onnx" in refusal(monkeypatch, "export", record.run.key, "-o", house)
    assert str(house / "file") in refusal(monkeypatch, "export", record.run.key, "-o", house / "file" / "x.onnx")
