"""A page on which no network learned says so: every cell of its notebooks runs, and nothing is recommended."""

import ast
import json

import pytest
from planted import plant
from typer.testing import CliRunner

from lwnb import cli
from lwnb.base.places import CHECKOUT
from lwnb.plan import facts, paramfiles, studies
from lwnb.records import costs


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


def execute(name: str, values: dict, monkeypatch) -> str:
    """Run a notebook's code cells with these parameters; all that they show."""
    shown, space = [], {}

    def show(*things):
        for thing in things:
            form = getattr(thing, "_repr_markdown_", None) or getattr(thing, "_repr_html_", lambda: None)
            shown.append(str(form()))

    monkeypatch.setattr("IPython.display.display", show)
    monkeypatch.setattr("lwnb.report.figures.display", show)
    for cell in json.loads((CHECKOUT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            body = ast.parse("".join(cell["source"])).body
            last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), name, "exec"), space)  # noqa: S102 - a notebook of this repository
            if last:
                show(eval(compile(last, name, "eval"), space))
            if "parameters" in cell["metadata"].get("tags", []):
                space |= values
    return "\n".join(shown)


def test_every_notebook_says_that_there_is_no_result(page, monkeypatch):
    values = page.model_dump()
    for study in facts.STUDIES:
        said = execute(study, values, monkeypatch)
        assert "did not learn" in said and "0.110" in said, study
    said = execute("00_summary", {"pages": {"digits": values}}, monkeypatch)
    assert "No network has a result" in said and "fits best" in said
    assert "did not learn" in execute("99_reproducibility", {"pages": {"digits": values}}, monkeypatch)


def test_nothing_is_recommended(page):
    done = CliRunner().invoke(cli.app, ["recommend", "--dataset", "digits"])
    lines = done.output.splitlines()[1:]
    assert done.exit_code == 0 and "did not learn" in done.output and not any(line.startswith("fits") for line in lines)
