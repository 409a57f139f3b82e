"""Every command of the README, as it stands there: its words are understood, and it asks for the runs of its pages."""

import json
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import planted
import pytest
import readme
from trees import cifar10, cifar10_files, folder
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.places import CHECKOUT
from lwnb.batch import grid, prepare, workers
from lwnb.data import sets
from lwnb.edge import convert, protocol
from lwnb.networks import states
from lwnb.plan import facts, paramfiles, params, studies, tuned
from lwnb.records import costs, results
from lwnb.report import book
from lwnb.training import train


def wanted(page: str, budget: str | None = None, **changes) -> set[str]:
    """The keys of the runs that a page asks for, with a budget of its own behind a colon."""
    name, _, own = page.partition(":")
    values = paramfiles.merge(paramfiles.files_of(name, own or budget))
    return {run.key for run in studies.runs(params.check(values | changes))}


@pytest.fixture
def desk(house, monkeypatch):
    """The command line with all slow work replaced by notes of what was asked for; published records are at hand."""
    asked = SimpleNamespace(runs=set(), trained=set(), schedulers=[], pages=[], data=[], cells=[], shipped=[])

    def trained(run, parent=None, on_epoch=None):
        asked.trained.add(run.key)
        peak = 0.6 - abs(run.lr - 2e-3)  # of validation: `lwnb tune` finds it
        return planted.save(run, val_top1=peak, val_loss=1.0, parameters=run.seed, learned=True)

    def ensured(runs, *more, ensure=grid.ensure, **options):
        asked.runs |= {run.key for run in runs}
        return ensure(runs, *more, **options)

    @contextmanager
    def connected(count, scheduler=None):
        asked.schedulers.append(scheduler)
        yield

    def measured(cells, rounds, progress=None):
        for cell in cells:
            asked.cells.append(cell)
            costs.save_timing(planted.timing(cell))

    def shipped(record, form, int8, file):
        asked.shipped.append((record.run.key, form, int8))
        file.write_bytes(b"network")

    def loaded(source, size=0, load=sets.load):
        asked.data.append(source.dataset)
        if source.dataset == "digits":  # needs no download
            return load(source, size)
        split = SimpleNamespace(labels=range(2))
        return SimpleNamespace(train=split, test=split, classes=["a", "b"], digest="0" * 64)

    def reported(pages, *_, **__):
        asked.pages += [page.name for page in pages]
        return house / "index.html", []

    monkeypatch.setenv("LWNB_RESULTS", str(CHECKOUT / "results"))
    monkeypatch.setenv("LWNB_WORKERS", "1")
    for place, name, stub in (
        (train, "train", trained), (grid, "ensure", ensured), (workers, "connect", connected),
        (workers, "listen", lambda *_: None), (protocol, "measure_cells", measured), (convert, "ship", shipped),
        (workers, "spread", lambda tasks, do, _: ((task.key, do(*task.arguments())) for task in tasks)),
        (prepare, "_side_by_side", lambda *_: None), (sets, "load", loaded), (states, "imagenet", lambda *_: None),
        (book, "report", reported), (tuned, "FILE", house / "tuned.yaml"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, stub)
    monkeypatch.chdir(house)
    return asked


def typed(line: str):
    """Run a line as it would be typed, `make` by what it would call; what it printed."""
    words = shlex.split(line)
    if words[0] == "make":
        options = ["--dry-run", "--no-print-directory", "--old-file", ".venv/installed"]
        done = subprocess.run(["make", *options, *words[1:]], cwd=CHECKOUT, check=True, capture_output=True, text=True)
        words = shlex.split(done.stdout.strip().splitlines()[-1])
    assert Path(words[0]).name == "lwnb", words
    done = CliRunner().invoke(cli.app, words[1:])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


ARE_RUN = {
    "make report": [*facts.PUBLISHED, "digits"],
    'make report ARGS="cifar10 --budget cpu"': ["cifar10:cpu"],
    ".venv/bin/lwnb plan cifar10": [],
    ".venv/bin/lwnb report cifar10 cifar100": ["cifar10", "cifar100"],
    ".venv/bin/lwnb report digits cifar10:cpu": ["digits", "cifar10:cpu"],
    ".venv/bin/lwnb report digits -p epochs=20 -p lr=1e-3": ["digits"],
    ".venv/bin/lwnb run cifar10 --budget cpu --scheduler tcp://host:8786": ["cifar10:cpu"],
}
"""Commands of the README that ask for runs, and the pages that these belong to."""

DO_OTHER = (
    ".venv/bin/lwnb tune cifar10 --budget cpu", ".venv/bin/lwnb runs", ".venv/bin/lwnb fetch tiny-imagenet",
    ".venv/bin/lwnb recommend --dataset digits --max-size-mb 3 --max-latency-ms 5 --max-memory-mib 16",
    ".venv/bin/lwnb measure digits --budget cpu --export board.json", "lwnb measure --import board.json",
    ".venv/bin/lwnb export KEY --format onnx --int8",
)  # fmt: skip
"""Commands of the README that have a test of their own below."""

NOTEBOOK = (
    ".venv/bin/papermill notebooks/01_architectures.ipynb out.ipynb -f params/cifar10.yaml -f params/budget-quick.yaml"
)
OWN_IMAGES = {f".venv/bin/lwnb {words}" for words in ("fetch flowers", "report flowers", "recommend --dataset folder")}
NOT_HERE = {"make test", "make check", "make lab", "make bench", *OWN_IMAGES, NOTEBOOK}
"""What test_makefile.py, test_own_images.py and the last test here run."""


def test_every_command_of_the_readme_is_run():
    """Words such as `lwnb plan` amid a sentence, without anything behind them, only have to be commands."""
    found = {*readme.commands(), *readme.mentioned()}
    bare = {line for line in found - NOT_HERE if line.startswith("lwnb") and len(line.split()) == 2}
    assert found - bare == {*ARE_RUN, *DO_OTHER, *NOT_HERE}
    for line in bare:
        assert "Usage" in typed(f"{line} --help")


@pytest.mark.parametrize("line", ARE_RUN)
def test_a_command_asks_for_the_runs_of_its_pages_and_shows_these(desk, line):
    typed(line)
    changes = {"epochs": 20, "lr": 1e-3} if "epochs=20" in line else {}
    assert desk.runs == {key for page in ARE_RUN[line] for key in wanted(page, **changes)}
    names = [page.partition(":")[0] for page in ARE_RUN[line]]
    assert desk.pages == (names if "report" in line else [])
    assert desk.schedulers == (["tcp://host:8786"] if "--scheduler" in line else [])
    assert desk.trained <= desk.runs


def test_what_is_planned_is_what_the_page_asks_for(desk):
    said = typed(".venv/bin/lwnb plan cifar10")
    assert not desk.runs and all(key in said for key in wanted("cifar10"))


def test_tune_chooses_a_rate_for_every_network(desk):
    said = typed(DO_OTHER[0])
    p = paramfiles.read(*paramfiles.files_of("cifar10", "cpu"))
    assert {entry["model"] for entry in tuned.entries()} == set(p.models) and "no choice" not in said
    assert desk.runs <= {run.key for model in p.models for run in studies.ladder(p, model)}


def test_runs_lists_the_published_ones(desk):
    assert all(record.run.key in typed(".venv/bin/lwnb runs") for record in results.every()[:3])


def test_fetch_reads_the_images(desk):
    assert "tiny-imagenet" in typed(".venv/bin/lwnb fetch tiny-imagenet") and desk.data == ["tiny-imagenet"]


def test_recommend_answers(desk):
    planted.two()
    assert "SqueezeNet 1.1" in typed(DO_OTHER[3])


def test_what_a_board_measured_is_brought_in(desk, tmp_path, monkeypatch):
    typed(DO_OTHER[4])
    count = len(json.loads(Path("board.json").read_text())["records"])
    assert count == len(set(desk.cells)) > 5
    monkeypatch.setenv("LWNB_HOME", str(tmp_path / "elsewhere"))
    assert str(count) in typed(DO_OTHER[5])
    assert len(list((tmp_path / "elsewhere" / "runs" / "devices").rglob("*.json"))) == count


def test_a_network_is_exported_by_its_key(desk):
    key = results.every()[0].run.key
    typed(DO_OTHER[6].replace("KEY", key))
    assert desk.shipped == [(key, "onnx", True)] and len(list(Path().glob(f"*{key}*.onnx"))) == 1


@pytest.mark.slow
def test_a_notebook_is_executed_by_papermill_alone(house):
    """On invented images, and short; the notebook is written elsewhere than into the checkout."""
    place = folder(house / "images", cifar10_files(cifar10(train=20, test=5)))
    small = {"data_root": str(place), "digest": "", "pool_train": 0, "pool_test": 0, "train_size": 0, "test_size": 0}
    small |= {"models": ["squeezenet1_1"], "epochs": 1}
    program, *words = shlex.split(NOTEBOOK.replace("out.ipynb", str(house / "out.ipynb")))
    command = [sys.executable, "-m", Path(program).name, *words, "-k", "python3", "-y", json.dumps(small)]
    done = subprocess.run(command, cwd=CHECKOUT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((house / "runs").glob("cifar10/squeezenet1_1/*/metrics.json"))) == 1
