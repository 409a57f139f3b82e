"""Tables and plots for the notebooks: one palette; `lwnb.plan.columns` says how a column is written."""

import base64
import html
import io
import re
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lwnb.evidence import stats
from lwnb.plan.columns import beside, incomparable, label, number
from lwnb.plan.columns import column as column_of
from lwnb.plan.facts import NETWORKS, marker, name
from lwnb.records.results import Record
from lwnb.report import trace

sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85, rc={"figure.dpi": 96, "svg.hashsalt": "lwnb"})
pd.set_option("styler.html.mathjax", False)  # a class named $5 is no formula

LONG = 30
"""Characters from which a column's text is broken into lines."""

USUAL = {"status": "done", "seed": 0}
"""Columns that a table leaves out where every row has this value."""


def colour(model: str):
    """A network's colour: the same one in every figure."""
    colours = zip(NETWORKS, sns.color_palette("colorblind", len(NETWORKS)), strict=True)
    return dict(colours).get(model, "0.4")


def table(frame: pd.DataFrame, columns: list[str] | None = None):
    """A table with labels, units and formats from `COLUMNS`;
    the best value of a column that has a better direction is bold.

    Where classes are unequal, what always guessing the largest has and macro F1 stand beside top-1. Below the table
    stand the runs that it was made from, if a column `key` names them (shown or not), and its data as CSV.
    """
    columns, apart = beside([c for c in columns or frame.columns if c in frame], frame), incomparable(frame)
    below = trace.line(frame[columns + ["key"] * ("key" in frame and "key" not in columns)])
    frame = frame[columns].reset_index(drop=True)
    frame = frame.drop(columns=[c for c in USUAL if c in frame and (frame[c] == USUAL[c]).all()])
    shown, best = pd.DataFrame(index=frame.index), {}
    for c in frame:
        column = column_of(c)
        values = frame[c].map(name) if c == "model" else frame[c]
        shown[column.label] = [_keys(value) if c == "key" else number(value, column) for value in values]
        ordered = column.better and c not in apart
        values = pd.to_numeric(frame[c], errors="coerce") if ordered else pd.Series(dtype=float)
        if values.notna().sum() > 1:
            best[column.label] = values == (values.max() if column.better == "higher" else values.min())
    long = [text for text in shown if max(map(_length, shown[text]), default=0) > LONG]
    bold = shown.style.apply(lambda s: ["font-weight: bold" if b else "" for b in best[s.name]], subset=list(best))
    bold = bold.set_properties(subset=long, **{"white-space": "normal", "min-width": "14em"})
    return bold.hide(axis="index").set_caption(below).set_table_styles([_BELOW])


_BELOW = {"selector": "caption", "props": "caption-side: bottom; text-align: left"}


def _length(text: str) -> int:
    return len(re.sub("<[^>]*>", "", text))


def _keys(value) -> str:
    return trace.links(value.split()) if isinstance(value, str) else "–"


def with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the Wilson interval of top-1 over the test images: `low`, `high`, and as text in `interval`."""
    ends = [stats.wilson(r.top1, int(r.n_test)) if r.top1 == r.top1 else (np.nan, np.nan) for r in frame.itertuples()]
    shown = [f"{low:.3f} to {high:.3f}" if not np.isnan(low) else None for low, high in ends]
    return frame.assign(low=[e[0] for e in ends], high=[e[1] for e in ends], interval=shown)


def _traced(figure: plt.Figure, frame: pd.DataFrame, keys: list[str] | None = None) -> plt.Figure:
    """The figure with the data that it shows, and the keys of their runs where no column has them: for `show`."""
    figure.trace = trace.line(frame, keys)
    return figure


def svg(figure: plt.Figure) -> bytes:
    """A figure as SVG, which closes it: the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return stream.getvalue()


def show(figure: plt.Figure, alt: str) -> None:
    """Show a figure as SVG with a text for those who cannot see it; below it, the runs that it shows, and its data."""
    code = base64.b64encode(svg(figure)).decode()
    image = f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{code}" style="max-width: 100%">'
    display(HTML(image + f'<div class="trace">{getattr(figure, "trace", "")}</div>'))


def _bounded(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that have a value of `column`, with `low` and `high` of top-1; by Wilson, if they have none yet."""
    known = frame.dropna(subset=["top1", column])
    return known if "low" in known else with_interval(known)


def _errors(axis, x, rows: pd.DataFrame, colour, marker="o", **more):
    bars = np.clip([rows["top1"] - rows["low"], rows["high"] - rows["top1"]], 0, None)
    axis.errorbar(x, rows["top1"], yerr=bars, color=colour, marker=marker, capsize=2, lw=1.2, ms=6, **more)


def _nothing() -> plt.Figure:
    """What stands in the place of a figure when no run has a result: the page's findings say why."""
    figure = plt.figure(figsize=(6, 0.6))
    figure.text(0.02, 0.5, "No run has a result to draw.", va="center")
    return figure


def _log(axis, ticks: tuple[int, ...] = (1, 2, 5)) -> None:
    """A logarithmic axis with these ticks in each decade, as plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=ticks))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def costs(frame: pd.DataFrame, columns=("macs", "parameters", "latency_ms", "epoch_seconds")) -> plt.Figure:
    """Top-1 against each cost, with 95 % intervals over the test images and the Pareto front.

    Training times are left out where networks were trained on different machines: they would compare those.
    """
    if frame["top1"].isna().all():
        return _nothing()
    apart = incomparable(frame)
    columns = [c for c in columns if c in frame and frame[c].notna().any() and c not in apart]
    rows = -(-len(columns) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(9, 3.3 * rows), sharey=True, squeeze=False, layout="constrained")
    for axis, column in zip(axes.flat, columns, strict=False):
        known = _bounded(frame, column).sort_values(column)
        x = known[column] * column_of(column).scale
        on_front = stats.front(x, known["top1"])
        axis.plot(x[on_front], known["top1"][on_front], color="0.7", lw=4, zorder=0, label="Pareto front")
        for model, rows in known.groupby("model", sort=False):
            _errors(axis, x[rows.index], rows, colour(model), marker(model), ls="none", label=name(model))
        _log(axis)
        axis.set(xlabel=label(column), ylabel=label("top1"))
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    handles = dict(zip(*reversed(axes.flat[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return _traced(figure, frame[[c for c in ("model", "seeds", "top1", "low", "high", *columns, "key") if c in frame]])


def slopes(frame: pd.DataFrame, columns: dict[str, str]) -> plt.Figure:
    """How the order of the networks changes from one cost to another: a line a network through its ranks, 1 the lowest.

    Parameters
    ----------
    frame : a row a network: `model` and the columns; networks share a rank where their values are equal
    columns : the columns in their order, and what stands below each
    """
    columns = {column: title for column, title in columns.items() if column in frame and frame[column].notna().all()}
    if frame.empty or len(columns) < 2:
        return _nothing()
    ranks = frame[list(columns)].rank(method="min")
    figure, axis = plt.subplots(figsize=(2.1 * len(columns) + 2, 3.2), layout="constrained")
    for model, row in zip(frame["model"], ranks.to_numpy(), strict=True):
        axis.plot(range(len(columns)), row, color=colour(model), marker=marker(model), lw=2, label=name(model))
    axis.set_xticks(range(len(columns)), list(columns.values()))
    axis.set_yticks(range(1, len(frame) + 1))
    axis.set(ylabel="rank, 1 is the lowest cost")
    axis.invert_yaxis()
    figure.legend(loc="outside right upper", frameon=False)
    return _traced(figure, frame[["model", *columns]])


def curves(groups: dict[str, list[Record]], columns=("train_loss", "val_top1"), colours: dict | None = None):
    """A panel a column of the history, over epochs: a line a group, the band its range over seeds."""
    if not groups:
        return _nothing()
    figure, axes = plt.subplots(1, len(columns), figsize=(4.5 * len(columns), 3.3), layout="constrained", squeeze=False)
    names = {"train_loss": "training loss, nats", "val_top1": "validation top-1", "val_loss": "validation loss, nats"}
    palette = colours or dict(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True))
    for axis, column in zip(axes.flat, columns, strict=True):
        for group, records in groups.items():
            frame = pd.concat([record.history for record in records])
            sns.lineplot(frame, x="epoch", y=column, color=palette[group], label=group, ax=axis, errorbar=("pi", 100))
        axis.set(xlabel="epoch", ylabel=names[column])
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.get_legend().remove()
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    told = [r.history.assign(group=g, seed=r.run.seed, key=r.run.key) for g, records in groups.items() for r in records]
    return _traced(figure, pd.concat(told))


def networks(records: list[Record]) -> tuple[dict, dict]:
    """Records grouped by network, and the colour of each, for `curves`."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(name(record.run.model), []).append(record)
    return groups, {name(record.run.model): colour(record.run.model) for record in records}


def confusion(records: list[Record]) -> plt.Figure:
    """Which classes the run that validation prefers takes for which: shares of the true class, 0..1."""
    if not records:
        return _nothing()
    record = max(records, key=lambda record: record.metrics["val_top1"])
    counts, classes = record.predictions["confusion"].astype(float), record.metrics["classes"]
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    few = len(classes) <= 20
    figure, axis = plt.subplots(figsize=(5.4, 4.6), layout="constrained")
    plain = [text.replace("$", r"\$") for text in classes]  # matplotlib reads $ … $ as mathematics
    marks = plain if few else False
    sns.heatmap(shares, cmap="Blues", vmin=0, vmax=1, square=True, ax=axis, xticklabels=marks, yticklabels=marks)
    axis.set(xlabel="predicted", ylabel="true", title=name(record.run.model))
    return _traced(figure, pd.DataFrame(counts.astype(int), columns=classes).assign(true=classes), [record.run.key])


def per_class(records: list[Record], most: int = 20):
    """Test top-1 of each class, a column a network (the first record of each), the hardest on average first.

    Of more than `most` classes the half of `most` at either end. `images`:
    of the class in the first record's test split.
    """
    firsts = {}
    for record in records:
        firsts.setdefault(name(record.run.model), record)
    columns = {model: dict(zip(r.metrics["classes"], r.metrics["per_class_top1"])) for model, r in firsts.items()}
    frame = pd.DataFrame(columns)
    frame = frame.loc[frame.mean(axis=1).sort_values(kind="stable").index].rename_axis("class").reset_index()
    if records:
        images = records[0].predictions["confusion"].sum(axis=1).tolist()
        frame.insert(1, "images", frame["class"].map(dict(zip(records[0].metrics["classes"], images))))
    below = trace.line(frame, [record.run.key for record in firsts.values()])
    ends = frame if len(frame) <= most else pd.concat([frame.head(most // 2), frame.tail(most // 2)])
    return (
        ends.style.format(precision=3, escape="html").hide(axis="index").set_caption(below).set_table_styles([_BELOW])
    )


def lines(frame: pd.DataFrame, x: str, group: str) -> plt.Figure:
    """Top-1 against `x`, a line a group, with 95 % intervals."""
    if frame["top1"].isna().all():
        return _nothing()
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    known = _bounded(frame, x).sort_values(x)
    for (value, rows), shade in zip(known.groupby(group, sort=False), sns.color_palette("colorblind"), strict=False):
        _errors(axis, rows[x], rows, shade, label=str(value))
    _log(axis)
    axis.set(xlabel=label(x), ylabel=label("top1"))
    axis.legend(frameon=False)
    return _traced(
        figure, known[[c for c in (group, x, "seeds", "top1", "low", "high", "n_test", "key") if c in known]]
    )


def bars(frame: pd.DataFrame, by: str) -> plt.Figure:
    """One bar of top-1 a row of `by`, with 95 % intervals."""
    if frame["top1"].isna().all():
        return _nothing()
    known = _bounded(frame, by)
    figure, axis = plt.subplots(figsize=(7, 0.42 * len(known) + 1.2), layout="constrained")
    for place, row in enumerate(known.itertuples()):
        axis.barh(place, row.top1, color=sns.color_palette("colorblind")[0], alpha=0.75)
        axis.plot([row.low, row.high], [place, place], color="0.2", lw=1.5)
    axis.set_yticks(range(len(known)), [str(value) for value in known[by]])
    axis.invert_yaxis()
    axis.set(xlabel=label("top1"), xlim=(0, min(1, 1.1 * known["high"].max())))
    return _traced(figure, known[[c for c in (by, "seeds", "top1", "low", "high", "n_test", "key") if c in known]])


def responses(frame: pd.DataFrame, factors: list[str], y: str = "val_top1") -> plt.Figure:
    """One panel a factor: every run's `y` against the factor, coloured by optimiser."""
    if frame[y].isna().all():
        return _nothing()
    known = frame.dropna(subset=[y])
    figure, axes = plt.subplots(1, len(factors), figsize=(2.7 * len(factors), 3), sharey=True, layout="constrained")
    for axis, factor in zip(np.atleast_1d(axes), factors, strict=True):
        numeric = pd.api.types.is_float_dtype(known[factor]) and (known[factor] > 0).all()
        plot = (
            sns.scatterplot if numeric else partial(sns.stripplot, jitter=False)
        )  # it would be another figure each time
        data = (
            known
            if numeric
            else known.sort_values(factor).assign(**{factor: lambda rows, f=factor: rows[f].astype(str)})
        )
        plot(data, x=factor, y=y, hue="optimizer", palette="colorblind", hue_order=["sgd", "adamw"], ax=axis)
        axis.set(xlabel=label(factor), ylabel=label(y))
        if numeric:
            _log(axis, ticks=(1,))  # a narrow panel over several decades
        axis.get_legend().remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return _traced(figure, known[[c for c in (*factors, "optimizer", "seed", y, "key") if c in known]])


def races(groups: dict[str, Record], ahead: dict[str, float], colours=None) -> plt.Figure:
    """Validation top-1 against training seconds; `ahead` holds the seconds that went before, as in pretraining."""
    if not groups:
        return _nothing()
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    told = []
    for (group, record), shade in zip(groups.items(), sns.color_palette("colorblind"), strict=False):
        seconds = ahead.get(group, 0.0) + np.cumsum(record.environment["all_epoch_seconds"])
        axis.plot(seconds, record.history["val_top1"], color=shade, label=group, marker=".")
        told.append(record.history[["epoch", "val_top1"]].assign(group=group, seconds=seconds, key=record.run.key))
    _log(axis)  # pretraining can take a hundred times as long as what it saves
    axis.set(xlabel=label("seconds"), ylabel=label("val_top1"))
    axis.legend(frameon=False)
    return _traced(figure, pd.concat(told))
