import base64
import io
import re

import pandas as pd
from planted import frame, plant

from lwnb.evidence import compare
from lwnb.plan.run import RECIPE, Run
from lwnb.records import machine, tables
from lwnb.report import figures, trace


def saved(html):
    """The table behind the link that offers it as CSV."""
    return pd.read_csv(io.StringIO(base64.b64decode(re.search(r"text/csv;base64,([^\"]+)", html)[1]).decode()))


def test_a_table_names_its_runs_and_its_csv_holds_their_unrounded_numbers():
    frame = pd.DataFrame({"model": ["resnet18", "mine"], "top1": [1 / 3, 0.5], "key": ["a1 b2", "c3"]})
    html = figures.table(frame, ["model", "top1"]).to_html()
    for key in ("a1", "b2", "c3"):
        assert f'href="99_reproducibility.html#run-{key}"' in html
    assert saved(html)["top1"].tolist() == [1 / 3, 0.5] and "<summary>3 runs</summary>" in html


def test_a_figure_names_its_runs_and_offers_what_it_shows(house, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda html: shown.append(html.data))
    one, two = plant(), plant(0.6, model="squeezenet1_1")
    groups, colours = figures.networks([one, two])
    figures.show(figures.curves(groups, colours=colours), "Curves of two networks")
    assert f"#run-{one.run.key}" in shown[0] and f"#run-{two.run.key}" in shown[0]
    data = saved(shown[0])
    assert len(data) == 20 and set(data["group"]) == {"ResNet18", "SqueezeNet 1.1"}


def test_every_figure_has_its_trace(house):

    records = [plant(), plant(0.6, model="squeezenet1_1")]
    rows = compare.summary(frame(records))
    groups = {"one": records[:1], "two": records[1:]}
    drawn = [
        figures.costs(rows), figures.curves(groups), figures.confusion(_with_confusion(records)),
        figures.bars(rows, "model"), figures.lines(rows, "n_train", "arm"),
        figures.responses(rows, ["lr", "schedule"]), figures.races({"one": records[0]}, {}),
    ]  # fmt: skip
    assert all("#run-" in figure.trace and len(saved(figure.trace)) for figure in drawn)


def _with_confusion(records):
    for record in records:
        record.predictions["confusion"] = pd.DataFrame(1, range(10), range(10)).to_numpy()
    return records


def test_the_table_of_all_runs_has_a_row_to_which_links_lead(house):
    records = [plant(curve=(0.1, 0.5, 0.9)), plant(0.6, seed=1, curve=(0.1, 0.5, 0.9))]
    missing = Run(**records[0].run.model_dump() | {"seed": 2})
    html = trace.runs([record.run for record in records] + [missing])
    for run in [records[0].run, records[1].run, missing]:
        assert f'<tr id="run-{run.key}">' in html
    assert "<title>3 epochs, last 0.900</title>" in html and "missing" in html
    assert html.count("resnet18") == 1 and "<td>0.800</td>" in html  # what all share is said once
    assert len(html) < 2000 * 3


def test_runs_of_an_older_recipe_are_found_and_so_are_those_that_start_from_one(house, monkeypatch):
    source = plant()
    child = plant(weights=source.run.key)
    assert trace.older([source.run, child.run]) == []
    monkeypatch.setattr(trace, "RECIPE", RECIPE + 1)
    newer = plant(weights=source.run.key, recipe=RECIPE + 1)
    fresh = plant(recipe=RECIPE + 1)
    assert trace.older([source.run, newer.run, fresh.run]) == [source.run.key, newer.run.key]


def test_the_origins_of_runs_name_them(house):
    one, two = plant(), plant(0.6, seed=1)
    table = tables.origins([one.run, two.run])
    assert len(table) == 1 and set(table["key"][0].split()) == {one.run.key, two.run.key}
    assert table["machine"][0].startswith(machine.machine()["cpu"]) and table["wall_seconds"][0] == 6.0
