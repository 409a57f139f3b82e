"""How columns and networks are written: labels with units, formats, which direction is better, names in print."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lwnb.plan.facts import FORMATS


@dataclass(frozen=True)
class Column:
    """How a column is shown: its label with unit, a number format, and whether higher or lower is better."""

    label: str
    form: str = "{}"
    better: str = ""
    scale: float = 1.0


COLUMNS = {
    "key": Column("run"),
    "status": Column("status"),
    "reason": Column("reason"),
    "model": Column("network"),
    "dataset": Column("data set"),
    "digest": Column("digest"),
    "val_share": Column("val. share", "{:g}"),
    "warmup_epochs": Column("warm-up, epochs", "{:g}"),
    "seeds": Column("seeds", "{:.0f}"),
    "top1": Column("top-1", "{:.3f}", "higher"),
    "interval": Column("95 % interval"),
    "top5": Column("top-5", "{:.3f}", "higher"),
    "macro_f1": Column("macro F1", "{:.3f}", "higher"),
    "guess_top1": Column("always the largest class", "{:.3f}"),
    "ece": Column("calibration error", "{:.3f}", "lower"),
    "loss": Column("test loss, nats", "{:.3f}", "lower"),
    "val_top1": Column("val. top-1", "{:.3f}", "higher"),
    "train_top1": Column("train. top-1", "{:.3f}"),
    "gap": Column("training − validation", "{:+.3f}", "lower"),
    "n_train": Column("train. images", "{:,.0f}"),
    "n_val": Column("val. images", "{:,.0f}"),
    "n_test": Column("test images", "{:,.0f}"),
    "near": Column("near-duplicates", "{:,.0f}"),
    "top1_apart": Column("top-1 without them", "{:.3f}"),
    "parameters": Column("parameters, M", "{:.2f}", "lower", 1e-6),
    "macs": Column("MACs, M", "{:.1f}", "lower", 1e-6),
    "size_bytes": Column("file size, MB", "{:.2f}", "lower", 1e-6),
    "latency_ms": Column("latency, ms", "{:.3f}", "lower"),
    "epoch_seconds": Column("epoch, s", "{:.2f}", "lower"),
    "train_seconds": Column("training, s", "{:.1f}", "lower"),
    "wall_seconds": Column("wall time, s", "{:.1f}", "lower"),
    "images_per_second": Column("trained images/s", "{:,.0f}", "higher"),
    "estimate_s": Column("estimate, s", "{:,.0f}"),
    "best_epoch": Column("best epoch", "{:.0f}"),
    "epochs_run": Column("epochs run", "{:.0f}"),
    "arm": Column("start"),
    "lr": Column("learning rate", "{:g}"),
    "weight_decay": Column("weight decay", "{:g}"),
    "batch_size": Column("batch size", "{:.0f}"),
    "optimizer": Column("optimiser"),
    "schedule": Column("schedule"),
    "augment": Column("augmentation"),
    "train_size": Column("images asked for", "{:,.0f}"),
    "seed": Column("seed", "{:.0f}"),
    "epoch": Column("epoch", "{:.0f}"),
    "weights": Column("weights"),
    "freeze": Column("frozen"),
    "classes": Column("classes"),
    "epochs": Column("epochs", "{:.0f}"),
    "seconds": Column("training time with pretraining, s", "{:.1f}", "lower"),
    "commit": Column("commit"),
    "device": Column("device"),
    "trained_on": Column("trained on"),
    "started": Column("started"),
    "page": Column("page"),
    "claim": Column("claim"),
    "statement": Column("statement"),
    "source": Column("source"),
    "quantity": Column("quantity"),
    "published": Column("published"),
    "measured": Column("this report (95 % interval)"),
    "distance": Column("difference"),
    "protocol": Column("what differs"),
    "gpu_latency_ms": Column("GPU latency, ms", "{:.2f}", "lower"),
    "latency_2_threads_ms": Column("latency with 2 threads, ms", "{:.2f}", "lower"),
    "cuda_peak_memory_mib": Column("peak CUDA memory, MiB", "{:.1f}", "lower"),
    "sd": Column("standard deviation over seeds", "{:.3f}"),
    "pair": Column("pair"),
    "trained": Column("weights of seed"),
    "difference": Column("top-1 difference", "{:+.3f}"),
    "difference_interval": Column("95 % interval over images"),
    "seeds_interval": Column("95 % interval over seeds"),
    "f1_difference": Column("macro F1 difference", "{:+.3f}"),
    "f1_interval": Column("its 95 % interval"),
    "p": Column("p", "{:.2g}"),
    "p_holm": Column("p, Holm", "{:.2g}"),
    "detectable": Column("detectable difference", "{:.3f}"),
    "rank": Column("mean rank", "{:.1f}", "lower"),
    "rank_interval": Column("95 % interval of the rank"),
    "front_macs": Column("on the front of MACs", "{:.0%}"),
    "front_size_bytes": Column("on the front of file size", "{:.0%}"),
    "front_latency_ms": Column("on the front of latency", "{:.0%}"),
    "other_load": Column("load by others", "{:.0%}"),
    "runtime": Column("runtime"),
    "runtime_version": Column("version"),
    "precision": Column("precision"),
    "threads": Column("threads", "{:.0f}"),
    "p90_ms": Column("90th percentile, ms", "{:.3f}"),
    "p99_ms": Column("99th percentile, ms", "{:.3f}"),
    "images_per_s": Column("images/s", "{:,.0f}", "higher"),
    "calls": Column("calls", "{:,.0f}"),
    "processes": Column("processes", "{:.0f}"),
    "load_mib": Column("loading, peak MiB", "{:.1f}", "lower"),
    "run_mib": Column("running, MiB", "{:.2f}", "lower"),
    "peak_mib": Column("peak memory, MiB", "{:.1f}", "lower"),
    "busy": Column("busy machine"),
    "noise": Column("noise of the protocol", "{:.1%}"),
    "planned_bytes": Column("planned activations, KiB", "{:,.1f}", "lower", 1 / 1024),
    "agree": Column("same guess as PyTorch", "{:.2%}", "higher"),
    "error": Column("largest relative difference of a logit", "{:.1e}"),
    "marked": Column("marked"),
    "tensor": Column("tensor"),
    "place": Column("place in the network", "{:.0f}"),
    "of": Column("of", "{:.0f}"),
    "snr_db": Column("signal to noise, dB", "{:.1f}"),
    "budget": Column("budget"),
    "limits": Column("limits"),
    "choice": Column("what fits best"),
    "next": Column("next network, behind by"),
    "size_mb": Column("its file, MB", "{:.2f}", "lower"),
    "fp32_mb": Column("fp32 file, MB", "{:.2f}", "lower"),
    "int8_mb": Column("INT8 file, MB", "{:.2f}", "lower"),
    "fp32_ms": Column("fp32 latency, ms", "{:.2f}", "lower"),
    "int8_ms": Column("INT8 latency, ms", "{:.2f}", "lower"),
    "int8_top1": Column("INT8 top-1, first seed", "{:.3f}", "higher"),
    "memory_mib": Column("its memory, MiB", "{:.2f}", "lower"),
    "memory_is": Column("memory is"),
    "verdict": Column("verdict"),
    "why": Column("why"),
    "behind": Column("against the first (95 % interval)"),
    "size": Column("cells", "{:.0f}"),
}
"""Label, unit, format and better direction of every column that a table or a plot shows; see `column` for those of
files."""

UNEQUAL = 1.1
"""Classes are unequal where always guessing the largest is right more than so many times as often as with equal."""

TIMES = ("train_seconds", "epoch_seconds", "images_per_second", "wall_seconds")
"""Columns that compare machines where runs were trained on different ones; see `incomparable`."""


def incomparable(frame) -> tuple[str, ...]:
    """The columns of a table of runs that say nothing of the networks:
    `TIMES` where the runs were trained on several machines."""
    return TIMES if "trained_on" in frame and frame["trained_on"].nunique() > 1 else ()


def unequal(guess_top1: float, num_classes: float) -> bool:
    """Whether the classes of the test images are unequal, see `UNEQUAL`; false where nothing is known."""
    return bool(guess_top1 * num_classes > UNEQUAL)


def guessed(guess_top1: float, macro_f1: float, num_classes: float) -> str:
    """What stands beside a top-1 in a sentence: empty where classes are equal."""
    if not unequal(guess_top1, num_classes):
        return ""
    return f"; always guessing the largest class {guess_top1:.3f}; macro F1 {macro_f1:.3f}"


def beside(columns: Sequence[str], frame) -> list[str]:
    """The columns of a table; where classes are unequal, a guess's top-1 and macro F1 follow top-1 and its interval."""
    columns = list(columns)
    if "top1" not in columns or not {"guess_top1", "macro_f1", "num_classes"} <= set(frame):
        return columns
    if not any(map(unequal, frame["guess_top1"], frame["num_classes"])):
        return columns
    place = columns.index("interval" if "interval" in columns else "top1") + 1
    return list(dict.fromkeys([*columns[:place], "guess_top1", "macro_f1", *columns[place:]]))


def of_files() -> list[str]:
    """The columns of what a network takes in each format, in the order of tables."""
    return [name for row in FORMATS.values() for name in row.columns]


def column(name: str) -> Column:
    """How a column is shown: as `COLUMNS` says; that of a file by its format and precision; any other under its own
    name.
    """
    for form, row in FORMATS.items():
        if name in row.columns and name not in COLUMNS:
            precision = name.removeprefix(f"{form}_").removesuffix("_bytes").replace("int", "INT")
            return Column(f"{row.title} {precision}, MB", "{:.2f}", "lower", 1e-6)
    return COLUMNS.get(name, Column(name))


def label(name: str) -> str:
    """A column's label with its unit."""
    return column(name).label


def number(value, column: Column) -> str:
    """A value as its column shows it, safe to stand in HTML; a dash where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return html.escape(column.form.format(value * column.scale if column.scale != 1 else value))
