"""The doors of networks, formats, runtimes and studies: a made-up one of each is a row, and is known everywhere."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pebbles
import pytest
import stubs
import torch

from lwnb import cli
from lwnb.base import doors
from lwnb.base.errors import ParamsError
from lwnb.base.places import CHECKOUT
from lwnb.batch import estimates, grid, prepare
from lwnb.edge import convert, export, protocol, runtimes
from lwnb.evidence import claims, deployed
from lwnb.networks import build, counts, plain, preprocessing
from lwnb.plan import columns, facts, params, studies
from lwnb.records import costs, results
from lwnb.report import execution, figures
from lwnb.training import recipe

VALUES = {
    "notebooks": ["06_pebbles"],
    "models": ["pebble"],
    "runtimes": ["abacus"],
    "train_size": 200,
    "test_size": 100,
    "epochs": 12,
    "output_stride": 16,
}


@pytest.fixture
def made_up(house, monkeypatch):
    """The tables have got these rows, and nothing else knows of them."""
    for table, name, row in pebbles.ROWS:
        monkeypatch.setitem(table, name, row)
    return house


@pytest.fixture
def page(made_up):
    file = made_up / "pebbles.yaml"
    file.write_text(json.dumps(VALUES | {"budget": "quick"}))
    return file


def lwnb(*arguments):
    cli.app([*map(str, arguments)], standalone_mode=False)


def rows():
    tables = (facts.LIBRARIES, facts.NETWORKS, facts.FORMATS, facts.RUNTIMES, facts.STUDIES)
    return [row for table in tables for row in table.values()] + [
        w for n in facts.NETWORKS.values() for w in n.weights.values()
    ]


def test_what_the_rows_name_is_there():
    fields = [value for row in rows() for value in (row if isinstance(row, tuple) else vars(row).values())]
    named = {value for value in fields if isinstance(value, str) and re.fullmatch(r"lwnb[\w.]*:\w+", value)}
    assert len(named) > 15 and all(callable(doors.resolve(work)) for work in named)
    assert {row.form for row in facts.edge_runtimes().values()} == set(facts.FORMATS)


@pytest.mark.parametrize("study", facts.STUDIES)
def test_a_study_s_title_is_that_of_its_notebook(study):
    cells = json.loads((CHECKOUT / "notebooks" / f"{study}.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[0]["source"]).splitlines()[0] == f"# {facts.STUDIES[study].title}"


def test_a_plan_lists_the_runs_of_a_made_up_study(page, capsys):
    lwnb("plan", page)
    out = capsys.readouterr().out
    assert out.count("pebble") == out.count("missing") == 2 and "?" not in out
    lwnb("plan", page, "-p", "notebooks=[01_architectures]")
    assert capsys.readouterr().out.count("pebble") == 1
    assert params.check({}).notebooks[-1] == "06_pebbles"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("-p", "models=[peble]"), "pebble"),
        (("-p", "transfer_model=peble"), "pebble"),
        (("-p", "models=[resnet34x]"), "resnet34"),
        (("-p", "runtimes=[abakus]"), "abacus"),
        (("-p", "runtimes=[pytorch-eager]"), "abacus"),  # runs no file
        (("-p", "notebooks=[06_peble]"), "06_pebbles"),
        (("-s", "06_peble"), "06_pebbles"),
        (("-p", "weights=gravl"), "gravel"),
        (("-p", "source=gravl"), "gravel"),
        (("-p", "weights=imagenet"), "gravel"),  # which this network does not have
    ],
)
def test_a_near_name_is_refused_with_the_made_up_one(page, arguments, near):
    asked = re.split(r"[=\[\]]+", arguments[1].strip("]"))[-1]
    with pytest.raises(ParamsError) as refused:
        lwnb("plan", page, "-p", "notebooks=[06_pebbles, 02_transfer]", *arguments)
    assert repr(asked) in str(refused.value) and near in str(refused.value)


def test_a_format_that_no_table_has_is_refused_by_name(made_up):
    net, file = build.build("pebble", 3), made_up / "net"
    for ask in (
        lambda: export.export(net, "ston", file, 32),
        lambda: protocol.require_format("ston"),
        lambda: lwnb("export", "0" * 12, "--format", "ston"),
    ):
        with pytest.raises(ParamsError, match="'ston'.*onnx.*'stone'"):
            ask()
    assert not file.exists()


def test_what_a_runtime_lacks_is_named_with_what_brings_it(made_up, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    for runtime, *words in (
        ("abacus", "numpy"),
        ("openvino", "onnxscript", "lwnb[edge,openvino]"),
        ("executorch", "lwnb[edge]"),
    ):
        with pytest.raises(ParamsError) as refused:
            protocol.require([runtime])
        assert all(word in str(refused.value) for word in [runtime, *words])


def test_a_made_up_network_has_strides_a_head_and_counts(made_up):
    assert plain.head_names("pebble") == {"3.weight", "3.bias"}
    assert counts.count_macs(build.build("pebble", 10, 32), 32) == 55_296 + 73_728 + 18_432 + 330
    assert counts.count_macs(build.build("pebble", 10, 8), 32) == 4 * (55_296 + 73_728 + 18_432) + 330
    net = build.build("pebble", 10, 16, seed=3)
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {build.MOMENTUM}
    assert (net[-1].bias == 1).all() and net[-1].weight.std() < 0.02
    assert torch.equal(net[0][0].weight, build.build("pebble", 10, 8, seed=3)[0][0].weight)
    plain.freeze(net, "pebble")
    assert [name for name, value in net.named_parameters() if value.requires_grad] == ["3.weight", "3.bias"]
    with pytest.raises(ParamsError, match="16, 8, 4"):
        build.build("pebble", 10, 3)


def test_a_made_up_network_has_a_first_estimate_and_a_name_and_a_sign_in_figures(made_up):
    p = params.check(VALUES)
    (seconds,) = estimates.estimate([studies.base(p, model="pebble", train_size=200)])
    assert seconds == pytest.approx(12 * 200 * 4 / 5000)
    assert (facts.name("pebble"), facts.marker("pebble"), facts.marker("else")) == ("Pebble Net", "*", "o")
    assert figures.colour("pebble") not in {figures.colour(model) for model in [*facts.FIVE, "else"]}


@pytest.fixture
def trained(made_up, monkeypatch):
    """The page's parameters, and the record of its first run; the scales that images were normalised by lie in
    `seen`.
    """
    seen, normalise = set(), preprocessing.normalise
    monkeypatch.setattr(preprocessing, "normalise", lambda images, scale: seen.add(scale) or normalise(images, scale))
    p = grid.pin(params.check(VALUES))
    runs = studies.runs(p)
    grid.ensure(runs, workers=1, exported={run.key: protocol.usable(p) for run in studies.exported(p)})
    return p, results.find(runs[0]), seen


def test_a_run_of_a_made_up_network_is_trained_exported_and_weighed_by_its_own_facts(trained, capsys):
    _, record, seen = trained
    assert record and seen == {pebbles.SCALE}
    assert {"torch", "torchvision"} <= set(record.environment["versions"])
    found = {row["precision"]: row for row in record.conversions}
    assert list(found) == ["fp32", "int8", "int8-aware"] and {row["runtime"] for row in found.values()} == {"abacus"}
    assert found["fp32"]["agree"] == 1 and found["int8"]["predictions"] == [0] * 100
    assert deployed.layers([record])["tensor"].tolist() == ["the last stone"]
    weighed = costs.find_footprint(costs.shape(record.run, 10))
    assert weighed["stone_fp32_bytes"] > 1000 and weighed["stone_dust_bytes"] == 96
    assert set(columns.of_files()) >= set(weighed) - set(costs.SHAPE)
    assert columns.label("stone_int8_bytes") == "Stone INT8, MB" and columns.label("onnx_fp16_bytes") == "ONNX fp16, MB"
    about = convert.about(record)
    assert (json.loads(about["mean"]), json.loads(about["std"])) == tuple(map(list, pebbles.SCALE))
    assert about["model_licence"] == "none needed"
    lwnb("export", record.run.key, "--format", "stone", "--int8", "--out", record.folder / "net.stone")
    net, said = torch.load(record.folder / "net.stone", weights_only=False)
    assert said == about and (net[-1].weight == 0).all()


def test_only_what_a_made_up_study_compares_is_evidence(trained):
    p, record, _ = trained
    found = claims.evidence(p)["06_pebbles"]
    assert found.frame["key"].tolist() == [record.run.key] and len(studies.trained("06_pebbles", p)) == 2
    assert studies.exported(p.model_copy(update={"notebooks": ["01_architectures"]})) == []


def test_published_weights_of_a_made_up_network_are_where_a_run_starts(made_up, monkeypatch):
    seen = []
    monkeypatch.setattr(recipe.Recipe, "on_fit_start", lambda self: seen.append(self.net.state_dict()) or 1 / 0)
    p = grid.pin(params.check(VALUES | {"weights": "gravel", "transfer_model": "pebble", "source": "gravel"}))
    grid.ensure(studies.runs(p)[:1], workers=1)
    assert (seen[0]["0.0.weight"] == 0.25).all() and (seen[0]["3.bias"] == 1).all()
    assert studies.about_source(p) == "a gravel pit" and studies.published_weights(p) == [("pebble", "gravel")]
    assert {run.weights for run in studies.on_target(p)} == {"none", "gravel"}


@pytest.mark.slow
def test_a_made_up_runtime_is_measured_in_a_process_of_its_own(made_up, monkeypatch):
    for name, value in pebbles.everywhere(made_up).items():
        monkeypatch.setenv(name, value)
    p = params.check(VALUES | {"num_classes": 10})
    cells = protocol.cells(p)
    assert {(cell.runtime, cell.precision) for cell in cells} == {
        ("pytorch-eager", "fp32"), ("abacus", "fp32"), ("abacus", "int8"),
    }  # fmt: skip
    cell = next(cell for cell in cells if cell.runtime == "abacus")
    protocol.measure_cells([cell], 1)
    (row,) = costs.timings_table().to_dict("records")
    assert row["runtime"] == "abacus" and row["latency_ms"] > 0 and row["runtime_version"] == np.__version__


def test_precisions_are_those_of_the_runtime(made_up, monkeypatch):
    plain = dataclasses.replace(facts.RUNTIMES["abacus"], precisions=("fp32",))
    monkeypatch.setitem(facts.RUNTIMES, "abacus", plain)
    p = params.check(VALUES | {"num_classes": 10})
    assert {cell.precision for cell in protocol.cells(p)} == {"fp32"}
    (found,) = prepare.footprints(p)
    assert "stone_fp32_bytes" in found and "stone_int8_bytes" not in found


def test_help_names_what_is_made_up(tmp_path):
    env = {"PATH": "", **pebbles.everywhere(tmp_path)}
    told = {
        command: subprocess.run(
            [sys.executable, "-c", "from lwnb.cli import app; app()", command, "--help"],
            env=env, capture_output=True, text=True, check=True, timeout=60,
        ).stdout
        for command in ("plan", "export")
    }  # fmt: skip
    words = " ".join(told["plan"].split())
    for known in ("pebble", "abacus (any table)", "06_pebbles (Pebbles)", "resnet18", "torchvision", "05_deployment"):
        assert known in words, known
    assert "stone" in told["export"] and "executorch" in told["export"]


CELL = """
from IPython.display import display
from lwnb.batch import grid, prepare
from lwnb.plan import columns, paramfiles, params, studies
from lwnb.records import tables
from lwnb.report import figures, findings
p = grid.pin(params.check(values))
runs = studies.trained("06_pebbles", p)
display(figures.table(grid.ensure(runs, workers=1), ["model", "status", "top1"]))
display(figures.table(__import__("pandas").DataFrame(prepare.footprints(p)), ["model", *columns.of_files()]))
"""


@pytest.mark.slow
def test_a_page_of_a_made_up_study_shows_network_and_format(trained, monkeypatch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, value in pebbles.everywhere(folder).items():
        monkeypatch.setenv(name, value)
    notebook = stubs.notebook(folder / "06_pebbles.ipynb", "Pebbles", CELL, parameters="values = {}")
    other = stubs.notebook(folder / "01_architectures.ipynb", "Not of this page", "1 / 0", parameters="values = {}")
    page = execution.Page("pebbles", "My page", {"values": VALUES, "notebooks": ["06_pebbles"]})
    (done,) = execution.execute([notebook, other], [page], folder, lambda *_: "records", progress=lambda line: None)
    assert done.error is None
    shown = [json.dumps(cell.get("outputs", [])) for cell in json.loads(done.path.read_text())["cells"]]
    assert all(word in " ".join(shown) for word in ("Pebble Net", "Stone fp32, MB", "Stone INT8, MB"))
