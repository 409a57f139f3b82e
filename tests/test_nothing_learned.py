"""A page on which no network learned says so: every cell of its notebooks runs, and nothing is recommended."""

import pytest
from cells import execute
from planted import plant
from typer.testing import CliRunner

from lwnb import cli
from lwnb.plan import facts, paramfiles, studies
from lwnb.records import costs
from lwnb.report import words
from lwnb.report.findings import Finding


@pytest.fixture
def page(house, monkeypatch):
    """Digits with networks that guess: the loss of every third stayed where it was, that of the others fell."""
    names = ["resnet18", "squeezenet1_1", "mobilenet_v3_small"]
    p = paramfiles.read(*paramfiles.files_of("digits", "quick"), models=names, tune_lrs=[])
    for number, run in enumerate(studies.runs(p)):
        plant(0.11, n=200, metrics={"learned": number % 3 > 0}, **run.model_dump())
        cell = {"model": run.model, "num_classes": 10, "image_size": run.image_size, "output_stride": run.output_stride}
        costs.save_footprint(cell, cell | {"planned_bytes": 1, "onnx_fp32_bytes": 1})
    (house / "runs").rename(house / "results")  # of published runs nothing is measured
    return p


def test_every_notebook_says_that_there_is_no_result(page, monkeypatch):
    values = page.model_dump()
    for study in facts.STUDIES:
        said = execute(study, values, monkeypatch)
        assert "did not learn" in said and "0.110" in said, study
    said = execute("00_summary", {"pages": {"digits": values}}, monkeypatch)
    assert words.sentence(Finding("nothing", {"what": "network"})) in said and "fits best" in said
    assert "did not learn" in execute("99_reproducibility", {"pages": {"digits": values}}, monkeypatch)


def test_nothing_is_recommended(page):
    done = CliRunner().invoke(cli.app, ["recommend", "--dataset", "digits"])
    lines = done.output.splitlines()[1:]
    assert done.exit_code == 0 and "did not learn" in done.output and not any(line.startswith("fits") for line in lines)
