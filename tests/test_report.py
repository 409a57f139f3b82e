"""The main job from end to end, at a tiny budget: every notebook executed, the book built,
a second call that does nothing."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from papermill import execute_notebook
from planted import save

from lwnb.base.places import CHECKOUT
from lwnb.batch import asked, estimates, grid, prepare, refusals
from lwnb.plan import facts, paramfiles
from lwnb.plan.run import Run
from lwnb.records import results
from lwnb.records.results import Record
from lwnb.report import book, make
from lwnb.report.execution import Executed

TINY = (
    "models=[mobilenet_v3_small, shufflenet_v2_x1_0]", "train_size=240", "test_size=100", "epochs=6",
    "batch_size=16", "lr=2.0e-3", "source=classes", "source_epochs=4",
    "source_train_size=240", "transfer_sizes=[240]", "transfer_lrs=[2.0e-3]", "policies=[none, crop]", "trials=2",
    "transfer_model=shufflenet_v2_x1_0", "augment_model=shufflenet_v2_x1_0", "hyper_model=shufflenet_v2_x1_0",
)  # fmt: skip
STUDIES = ("01_architectures", "02_transfer", "03_augmentation", "04_hyperparameters", "05_deployment")


def lwnb(home, *arguments):
    command = [Path(sys.executable).with_name("lwnb"), *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"LWNB_HOME": str(home)}
    )


def report(home, *more):
    return lwnb(home, "report", "digits", *(x for p in (*TINY, *more) for x in ("-p", p)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    home = tmp_path_factory.mktemp("report")
    out = report(home)
    assert out.returncode == 0, out.stderr + out.stdout
    return home, out


@pytest.mark.slow
def test_the_path_of_the_first_page_is_printed_last_and_every_page_is_there(built):
    home, out = built
    index = Path(out.stdout.strip().splitlines()[-1])
    assert index == home / "build" / "html" / "index.html" and index.exists()
    for page in [
        *(f"{study}/digits" for study in STUDIES),
        "90_what_holds",
        "99_reproducibility",
        "methods",
        "data",
        "references",
    ]:
        assert (index.parent / f"{page}.html").exists(), page


@pytest.mark.slow
def test_every_figure_has_a_text_and_every_number_its_n(built):
    html = {study: (built[0] / "build/html" / study / "digits.html").read_text() for study in STUDIES}
    for study, page in html.items():
        images = re.findall(r"<img[^>]*data:image/svg[^>]*>", page)
        assert len(images) >= 2 and all(re.search(r'alt="[^"]{20,}"', image) for image in images), study
    assert "n = 100" in html["01_architectures"] and "One seed" in html["01_architectures"]


@pytest.mark.slow
def test_every_study_tells_what_is_known_of_the_images(built):
    for study in STUDIES:
        assert "142 + 36" in (built[0] / "build/html" / study / "digits.html").read_text(), study


def test_a_report_can_be_called_and_does_no_step_twice(house, monkeypatch):
    changes = ["models=[squeezenet1_1]", "notebooks=[01_architectures, 05_deployment]"]
    values, _ = paramfiles.pages(["digits"], changes=changes)
    (run,) = asked.runs(asked.pin(values))
    save(run)
    steps, seen = Counter(), []
    for module, name in ((grid, "pin"), (estimates, "missing"), (estimates, "estimate"), (refusals, "refuse"),
                         (results, "every"), (prepare, "prepare"), (prepare, "time_eager")):  # fmt: skip
        real = (lambda *_: None) if module is prepare else getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name: steps.update([name]) or real(*a))

    def build(pages, fingerprint, progress):
        seen.extend([*pages, *map(fingerprint, [*pages, None])])
        return house / "index.html", [Executed(house, None, house, "planted", False, 0.0)]

    monkeypatch.setattr(book, "report", build)
    made = make.report(values)
    assert steps == dict.fromkeys(("pin", "missing", "estimate", "refuse", "every", "prepare", "time_eager"), 1)
    assert made.index == house / "index.html" and made.runs["key"].tolist() == [run.key]
    assert [one.error for one in made.broken] == ["planted"]
    page, of_page, of_all = seen
    assert page.values["num_classes"] == 10 and page.values["models"] == ["squeezenet1_1"] and of_page != of_all


def test_without_a_page_the_published_ones_are_shown():
    assert list(make.published()) == list(facts.PUBLISHED)


def record_of(metrics: Path) -> Record:
    return Record(Run(**json.loads(metrics.with_name("run.json").read_text())), metrics.parent)


@pytest.mark.slow
def test_the_pages_show_the_numbers_of_the_records(built):
    home = built[0]
    page = (home / "build/html/01_architectures/digits.html").read_text()
    keys = set(re.findall(r"\b[0-9a-f]{12}\b", page))
    records = [f for f in (home / "runs/digits").glob("*/*/metrics.json") if f.parent.name in keys]
    learned = [record.metrics for record in map(record_of, records) if record.learned]
    assert len(records) == 2 and learned and all(f"{m['top1']:.3f}" in page for m in learned)


@pytest.mark.slow
def test_a_second_call_trains_and_executes_nothing(built):
    began = time.perf_counter()
    again = report(built[0])
    assert again.returncode == 0 and "0 to train" in again.stderr, again.stderr
    assert again.stdout.count("used again") == 8 and time.perf_counter() - began < 60


@pytest.mark.slow
def test_other_parameters_execute_again_and_a_failed_run_is_shown_and_told(built, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(built[0], home)
    failed = report(home, "optimizer=sgd", "lr=10.0", "schedule=constant", "warmup_epochs=0.0", "epochs=4")
    assert failed.returncode == 1 and "diverged" in failed.stderr and "nothing has changed" not in failed.stdout
    assert Path(failed.stdout.strip().splitlines()[-1]).exists()
    assert "diverged" in (home / "build/html/99_reproducibility.html").read_text()
    assert "diverged" in (home / "build/html/01_architectures/digits.html").read_text()


@pytest.mark.slow
def test_published_records_alone_make_the_same_report_and_nothing_is_trained_or_measured(built, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(built[0] / "runs", home / "runs")
    assert lwnb(home, "publish", "--all").returncode == 0
    shutil.rmtree(home / "runs")
    out = report(home)
    assert out.returncode == 0 and "0 to train" in out.stderr, out.stderr
    assert not (home / "runs").exists() and not (home / "build/deploy").exists()
    for page in ("index", "01_architectures/digits", "05_deployment/digits"):
        before, now = ((place / f"build/html/{page}.html").read_text() for place in (built[0], home))
        assert cells(before) == cells(now), page
    assert "nothing was measured on this machine" in now


def cells(page):
    """The cells of a page's tables, without the links to their runs."""
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", page, flags=re.DOTALL)]


def papermill(notebook, out, home, *arguments):
    command = [sys.executable, "-m", "papermill", CHECKOUT / "notebooks" / notebook, out, "-k", "python3", *arguments]
    return subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, cwd=CHECKOUT,
        env=os.environ | {"LWNB_HOME": str(home)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_notebook_works_by_plain_papermill_and_finds_the_runs_of_the_report(built, tmp_path):
    files = [x for name in ("digits", "budget-quick") for x in ("-f", CHECKOUT / "params" / f"{name}.yaml")]
    changes = tmp_path / "tiny.yaml"
    changes.write_text("\n".join(line.replace("=", ": ", 1) for line in TINY))
    out = tmp_path / "out.ipynb"
    done = papermill("01_architectures.ipynb", out, built[0], *files, "-f", changes)
    assert done.returncode == 0, done.stderr
    assert "missing" not in out.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((CHECKOUT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_twice_in_one_kernel(built, tmp_path, monkeypatch, path):
    """All its cells, with the parameters of the report changed in their cell, and all of them again;
    nothing is trained."""
    monkeypatch.setenv("LWNB_HOME", str(built[0]))
    notebook, records = nbformat.read(path, 4), set((built[0] / "runs").rglob("metrics.json"))
    changes = dict(map(paramfiles.change, TINY))
    lines = [f"{name} = {value!r}" for name, value in changes.items()]
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []) and path.stem != "explore":
            cell.source += "\n" + ("\n".join(lines) if path.stem in STUDIES else f"pages = { ({'digits': changes})!r}")
    again = copy.deepcopy(notebook.cells)
    for cell in again:
        cell.id += "-again"
    notebook.cells += again
    nbformat.write(notebook, tmp_path / "twice.ipynb")
    options = {"kernel_name": "python3", "cwd": CHECKOUT, "progress_bar": False}
    done = execute_notebook(tmp_path / "twice.ipynb", tmp_path / "done.ipynb", **options)
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert set((built[0] / "runs").rglob("metrics.json")) == records


@pytest.mark.slow
def test_a_misspelt_parameter_stops_a_notebook_at_its_setup(tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill("01_architectures.ipynb", out, tmp_path, "-p", "epocs", "3")
    assert done.returncode != 0 and "did you mean" in done.stderr and not (tmp_path / "runs").exists()
