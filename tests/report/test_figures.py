import base64
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import is_math_text

from lwnb.plan import columns
from lwnb.plan.facts import FIVE
from lwnb.report import figures


def test_a_table_has_labels_units_and_the_best_value_bold():
    html = figures.table(
        pd.DataFrame({"model": ["resnet18", "mine"], "top1": [0.5, 0.75], "macs": [2.0e6, 3.0e6]})
    ).to_html()
    assert "MACs, M" in html and "ResNet18" in html and "0.750" in html and "2.0" in html
    bold = re.findall(r"#(\S+) {\s*font-weight: bold", html.replace(", #", " {font-weight: bold} #"))
    assert len(bold) == 2 and any("row1_col1" in b for b in bold) and any("row0_col2" in b for b in bold)


def test_a_missing_number_is_a_dash_and_is_never_best():
    html = figures.table(pd.DataFrame({"model": ["a", "b", "c"], "ece": [float("nan"), 0.1, 0.2]})).to_html()
    assert "–" in html and "nan" not in html.split("<caption>")[0].lower() + html.split("</caption>")[1].lower()


def test_status_is_left_out_only_where_every_run_is_done():
    assert "status" not in figures.table(pd.DataFrame({"key": ["x"], "status": ["done"]})).to_html()
    assert "failed" in figures.table(pd.DataFrame({"key": ["x", "y"], "status": ["done", "failed"]})).to_html()


def test_where_classes_are_unequal_the_guess_and_macro_f1_stand_beside_top1():
    frame = pd.DataFrame(
        {"model": ["a", "b"], "top1": [0.8, 0.9], "interval": "", "guess_top1": 0.71, "macro_f1": 0.52}
    )
    shown = figures.table(frame.assign(num_classes=2), ["model", "top1", "interval"]).data
    assert [shown.iloc[0, n] for n in (1, 3, 4)] == ["0.800", "0.710", "0.520"]
    equal = figures.table(frame.assign(num_classes=2, guess_top1=0.52), ["model", "top1", "interval"]).data
    assert len(equal.columns) == 3
    assert len(figures.table(frame.assign(num_classes=2), ["model", "macro_f1", "top1"]).data.columns) == 4


def test_text_from_a_user_s_data_cannot_become_markup():
    assert "<script>" not in figures.table(pd.DataFrame({"reason": ["<script>x</script>"]})).to_html()


def test_a_figure_is_an_svg_with_a_text_for_those_who_cannot_see_it(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda html: shown.append(html.data))
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    figures.show(figure, 'Accuracy & "cost"')
    assert 'alt="Accuracy &amp; &quot;cost&quot;"' in shown[0]
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", shown[0]).group(1)).decode()
    assert "<svg" in svg and not plt.fignum_exists(figure.number)


def test_the_five_networks_have_five_colours_and_names_everywhere():
    assert len({figures.colour(model) for model in FIVE}) == 5 and len({figures.name(model) for model in FIVE}) == 5


def test_costs_are_drawn_for_the_networks_that_have_a_result():
    frame = pd.DataFrame(
        {"model": list(FIVE), "top1": [0.5, 0.6, None, 0.8, 0.9], "n_test": 100, "macs": [1e6, 2e6, 3e6, 4e6, 5e6],
         "parameters": [5e6, 4e6, 3e6, 2e6, 1e6], "latency_ms": None}
    )  # fmt: skip
    figure = figures.costs(frame)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert labels == {"Pareto front", *(figures.name(m) for m in FIVE if m != "squeezenet1_1")}
    plt.close(figure)


def test_every_column_of_the_notebooks_has_a_label():
    import json

    from lwnb.base.places import CHECKOUT

    sources = [
        "".join(cell["source"])
        for file in sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
        for cell in json.loads(file.read_text())["cells"]
        if cell["cell_type"] == "code"
    ]
    named = {
        n
        for s in sources
        for block in re.findall(r"figures\.table\(.*\[([^\]]*)\]\)", s)
        for n in re.findall(r'"(\w+)"', block)
    }
    assert len(named) > 20 and named <= set(columns.COLUMNS), named - set(columns.COLUMNS)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_bars_show_intervals_inside_the_unit_range(value):
    figure = figures.bars(pd.DataFrame({"augment": ["none"], "top1": [value], "n_test": [50]}), "augment")
    low, high = figure.axes[0].lines[0].get_xdata()
    assert 0 <= low <= high <= 1 and high - low > 0.05
    plt.close(figure)


def test_where_no_run_has_a_result_every_figure_and_table_says_so_instead_of_failing():
    frame = pd.DataFrame(
        {"model": ["resnet18"], "status": ["failed"], "optimizer": "sgd", "augment": "none", "arm": "a"}
    )
    frame = frame.assign(top1=float("nan"), val_top1=float("nan"), n_test=float("nan"), n_train=float("nan"), lr=0.1)
    drawn = [
        figures.costs(frame), figures.curves({}), figures.confusion([]), figures.races({}, {}),
        figures.lines(frame, "n_train", "arm"), figures.bars(frame, "augment"), figures.responses(frame, ["lr"]),
    ]  # fmt: skip
    assert all("No run has a result" in figure.texts[0].get_text() for figure in drawn)
    assert figures.per_class([]).to_html() and figures.table(figures.with_interval(frame)).to_html()
    plt.close("all")


def test_of_many_classes_the_hardest_and_the_easiest_are_shown_in_order_with_their_test_images():
    classes = [f"class {n}" for n in range(30)]
    right = {"resnet18": [n / 30 for n in range(30)], "squeezenet1_1": [n / 60 for n in range(30)]}
    records = [
        SimpleNamespace(
            run=SimpleNamespace(model=model, key=f"{number:012x}"),
            metrics={"classes": classes, "per_class_top1": values},
            predictions={"confusion": np.diag(range(100, 130))},
        )
        for number, (model, values) in enumerate(right.items())
    ]
    shown = figures.per_class(records, most=6).data
    assert shown["class"].tolist() == [classes[n] for n in (0, 1, 2, 27, 28, 29)]
    assert shown["images"].tolist() == [100, 101, 102, 127, 128, 129]
    assert shown["SqueezeNet 1.1"].tolist() == [n / 60 for n in (0, 1, 2, 27, 28, 29)]


def test_class_names_are_neither_mathematics_nor_markup():
    classes = ["$5_{ to $6", "$10_a", "<b>", "x"]
    record = SimpleNamespace(
        run=SimpleNamespace(model="resnet18", key="0" * 12),
        metrics={"classes": classes, "per_class_top1": [0.1, 0.2, 0.3, 0.4], "val_top1": 0.5},
        predictions={"confusion": np.eye(4, dtype=int)},
    )
    figure = figures.confusion([record])
    assert [text.get_text() for text in figure.axes[0].get_xticklabels() if is_math_text(text.get_text())] == []
    drawn = figures.svg(figure).decode()  # half a formula would fail here
    assert [name for name in classes[:2] if f"<!-- {name} -->" not in drawn] == []
    html = figures.per_class([record]).to_html()
    assert "&lt;b&gt;" in html and "<b>" not in html and "mathjax_ignore" in html
