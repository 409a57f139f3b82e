"""The records under results/ belong to this recipe, are whole, and stay small."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lwnb.base.places import CHECKOUT
from lwnb.evidence import compare, deployed
from lwnb.plan import paramfiles, studies
from lwnb.plan.facts import PUBLISHED
from lwnb.plan.run import RECIPE, Run
from lwnb.records import costs, folders, results, tables
from lwnb.report import make

RESULTS = CHECKOUT / "results"
FOLDERS = sorted(file.parent for file in RESULTS.glob("*/*/*/metrics.json"))


@pytest.fixture
def elsewhere(house):
    """A home with the committed records and nothing else: no run of this machine, no image."""
    (house / "results").symlink_to(RESULTS, target_is_directory=True)
    return house


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_record_is_whole_and_of_this_recipe(folder):
    record = results.Record(Run(**json.loads((folder / "run.json").read_text())), folder)
    run = record.run
    assert (run.key, run.model, run.dataset) == folder.parts[-1:] + folder.parts[-2:-1] + folder.parts[-3:-2]
    assert run.recipe == RECIPE, "made by an older recipe: run it again"
    assert {file.name for file in folder.iterdir()} - {folders.CONVERSIONS, folders.WEIGHTS} == set(folders.FILES)
    labels, top5 = record.predictions["labels"], record.predictions["top5"]
    assert len(record.history) == record.metrics["epochs_run"] and len(labels) == len(top5) == record.metrics["n_test"]
    assert np.isclose((top5[:, 0] == labels).mean(), record.metrics["top1"])
    for row in record.conversions:
        assert np.isclose((np.array(row["predictions"]) == labels).mean(), row["top1"])


def test_what_was_called_learned_by_its_loss_alone_still_is_but_for_three_starts_from_few_images(elsewhere):
    """MobileNetV3-Small from scratch on 450 images of 100 and of 200 classes: no arm of a page chose them."""
    fell = {record.run.key for record in results.every() if record.metrics["learned"] and not record.learned}
    assert fell == {"5351aa841edd", "517c30a9cd03", "60365b90110e"}
    for p in (paramfiles.read(*paramfiles.files_of(name)) for name in PUBLISHED):
        chosen = compare.best(tables.of_runs(studies.on_target(p)), ["arm", "train_size"])
        assert "02_transfer" not in p.notebooks or not fell & set(" ".join(chosen["key"]).split())


@pytest.mark.parametrize("file", sorted(RESULTS.glob("devices/*.json")), ids=lambda file: file.stem)
def test_a_committed_device_record_has_its_own_name_and_all_its_samples(file):
    record = json.loads(file.read_text())
    assert costs.timing_name(record["setting"]) == file.stem
    assert len(record["samples_ms"]) == len(record["processes"]) and min(map(len, record["samples_ms"])) >= 10


def test_results_stay_small_and_hold_no_image():
    files = [file for file in RESULTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 30e6
    kinds = {file.suffix for file in files}
    assert kinds <= {".json", ".jsonl", ".csv", ".npz", ".safetensors", ".md"}
    assert all(file.stat().st_size < 4e6 for file in RESULTS.rglob("*.safetensors"))


def test_every_committed_backbone_is_the_one_that_the_readme_describes():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w{12})` \| .* \| ([\d.]+) \| (\d+) \| `(\w{64})` \|$", text, re.MULTILINE)
    files = {file.parent.name: file for file in RESULTS.glob("*/*/*/weights.safetensors")}
    assert {key for key, *_ in rows} == set(files) and len(files) == 2
    for key, top1, minutes, digest in rows:
        read = {
            name: json.loads((files[key].parent / f"{name}.json").read_text()) for name in ("metrics", "environment")
        }
        assert hashlib.sha256(files[key].read_bytes()).hexdigest() == digest
        assert f"{read['metrics']['top1']:.3f}" == top1
        assert round(read["environment"]["train_seconds"] / 60) == int(minutes)


# --- The published pages ---


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_run_of_a_published_page_is_committed_with_its_source_and_its_conversions(name, elsewhere):
    p = paramfiles.read(*paramfiles.files_of(name))
    runs = studies.runs(p)
    sources = {run.parent for run in runs}
    shown = {run.key for run in studies.deployment(p)} if "05_deployment" in p.notebooks else set()
    assert runs
    for run in runs:
        record = results.find(run)
        assert record, f"{run.key} ({run.model}, {run.arm}, seed {run.seed}) is not in results/"
        assert run.key not in sources or record.weights
        if run.key in shown and record.learned:
            assert {row["runtime"] for row in record.conversions} >= set(p.runtimes)
    assert set(deployed.of_page(p)["model"]) == set(p.models)


@pytest.mark.slow
@pytest.mark.skipif(not PUBLISHED, reason="no page is published")
def test_the_report_is_made_from_the_committed_records_alone(elsewhere):
    command = [Path(sys.executable).with_name("lwnb"), "report", *PUBLISHED]
    environment = os.environ | {"LWNB_HOME": str(elsewhere)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "0 to train" in done.stderr, done.stderr
    assert not (elsewhere / "runs").exists() and not (elsewhere / "data").exists()
    for name in PUBLISHED:
        p, page = (
            paramfiles.read(*paramfiles.files_of(name)),
            elsewhere / "build/html/01_architectures" / f"{name}.html",
        )
        means = compare.summary(tables.of_runs(studies.architectures(p)))
        assert len(means) == len(p.models) and all(f"{top1:.3f}" in page.read_text() for top1 in means["top1"])


@pytest.mark.skipif(not PUBLISHED, reason="no page is published")
def test_the_readme_opens_with_what_the_committed_records_say(elsewhere):
    shown = (CHECKOUT / "README.md").read_text(encoding="utf-8").split(make.BEGIN)[1].split(make.END)[0]
    pages = make.pages()
    assert shown == make.opening(pages, make.frames(pages))
    assert (CHECKOUT / make.FIGURE).exists()
