"""What networks cost and keep on devices: latencies of a page, their noise,
and what exporting and INT8 do to accuracy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lwnb.evidence import stats
from lwnb.evidence.compare import span
from lwnb.plan.facts import LOSS, PYTORCH, Cell
from lwnb.plan.params import Params
from lwnb.plan.run import Run
from lwnb.records import costs, machine, results
from lwnb.records.results import Record

REPEATS = 5
"""How often the same cell is measured to see how steady the protocol is."""


def eager(run: Run, num_classes: int, threads: int = 1) -> Cell:
    """The cell of a run's network by eager PyTorch."""
    return Cell(run.model, num_classes, run.image_size, run.output_stride, threads=threads)


def shapes(p: Params) -> list[Cell]:
    """The cell of each of a page's networks by eager PyTorch."""
    return [Cell(model, p.num_classes, p.image_size, p.output_stride) for model in p.models]


def of_page(p: Params, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of a page's networks at its image size, stride and number of classes, on every device."""
    frame = costs.timings_table() if frame is None else frame
    same = (frame["num_classes"] == p.num_classes) & (frame["image_size"] == p.image_size)
    return frame[same & (frame["output_stride"] == p.output_stride) & frame["model"].isin(p.models)]


def noise(frame: pd.DataFrame) -> pd.DataFrame:
    """How far the median moves when the same cell is measured again: (highest - lowest) / median, for each device,
    runtime.

    Where several cells were repeated, the largest counts.
    """
    by = [
        "device",
        "runtime",
        "precision",
        "threads",
        "batch_size",
        "model",
        "num_classes",
        "image_size",
        "output_stride",
    ]
    groups = frame.groupby(by)["latency_ms"]
    spread = ((groups.max() - groups.min()) / groups.median()).rename("noise")
    repeated = spread[groups.size() >= REPEATS].reset_index()
    return repeated.groupby(["device", "runtime"])["noise"].max().reset_index()


def here(frame: pd.DataFrame) -> str:
    """The device that a page speaks of: this machine if it has records there, else the one with the most."""
    own = machine.device(machine.machine())
    return own if frame.empty or (frame["device"] == own).any() else most(frame)


def most(frame: pd.DataFrame) -> str | None:
    """The device with the most records, the same on every machine; None without any."""
    return next(iter(frame["device"].mode()), None)


def single(frame: pd.DataFrame, device: str) -> pd.DataFrame:
    """The rows of a device for one image at a time on one thread, each cell once."""
    one = (frame["threads"] == 1) & (frame["batch_size"] == 1) & (frame["repeat"] == 0)
    return frame[(frame["device"] == device) & one]


def wide(frame: pd.DataFrame, device: str) -> pd.DataFrame:
    """A row a network, a column each runtime and precision (`onnxruntime int8`): median latency in ms, see `single`."""
    own = single(frame, device)
    ways = own["runtime"] + " " + own["precision"]
    return own.assign(way=ways).pivot_table(index="model", columns="way", values="latency_ms", aggfunc="last")


def levelled(values: pd.Series, noise: float) -> pd.Series:
    """The same values, but equal where measuring cannot tell them apart.

    From the lowest up, each value that is at most `noise` (a share, 0..1) above the lowest of its group takes that
    one's place.
    """
    found, low = {}, None
    for key, value in values.sort_values().items():
        low = low if low is not None and value <= low * (1 + noise) else value
        found[key] = low
    return pd.Series(found).reindex(values.index)


def latencies(runs: list[Run]) -> pd.DataFrame:
    """What one image takes by eager PyTorch on one device: this one,
    or for published runs the one with the most records.

    `lwnb.batch.prepare.time_eager` measures what has no record yet.

    Returns
    -------
    A row a run: `key`, `device`, `latency_ms` and, where measured, `latency_2_threads_ms`, medians;
    nan without a record
    """
    records = [record for record in map(results.find, runs) if record]
    known = [{"key": r.run.key} | costs.shape(r.run, r.metrics["num_classes"]) for r in records]
    frame = costs.timings_table()
    frame = frame[(frame["runtime"] == PYTORCH) & (frame["batch_size"] == 1) & (frame["repeat"] == 0)]
    frame = pd.DataFrame(known, columns=["key", *costs.SHAPE]).merge(frame, on=list(costs.SHAPE))
    frame = frame[frame["device"] == here(frame)]
    found = pd.DataFrame({"key": [run.key for run in runs]})
    for threads, column in ((1, "latency_ms"), (2, "latency_2_threads_ms")):
        some = frame[frame["threads"] == threads].drop_duplicates("key", keep="last")
        if threads == 1 or len(some):
            found[column] = found["key"].map(some.set_index("key")["latency_ms"])
    return found.assign(device=found["key"].map(frame.drop_duplicates("key").set_index("key")["device"]))


def conversions_table(records: Sequence[Record]) -> pd.DataFrame:
    """A row a converted network: its top-1, and the paired difference to PyTorch in fp32 on the same test images.

    `macro_f1` is that of the converted network, `guess_top1` what always guessing the largest class has. `agree` is the
    share of images for which it says what PyTorch says, `error` the largest difference of a logit over the largest
    logit; p is McNemar's exact test, corrected by Holm; `marked` where more than `LOSS` is lost.
    """
    rows = []
    for record in records:
        labels = record.predictions["labels"]
        own = record.predictions["top5"][:, 0] == labels
        for one in record.conversions:
            right = np.asarray(one["predictions"]) == labels
            change, *ends = stats.difference(right, own)
            rows.append(
                {"key": record.run.key, "model": record.run.model, "image_size": record.run.image_size}
                | {name: one[name] for name in ("runtime", "precision", "size_bytes", "top1", "agree", "error")}
                | {"difference": change, "difference_interval": span(ends), "n_test": len(labels)}
                | {"macro_f1": stats.macro_f1(labels, one["predictions"]), "guess_top1": record.guess_top1}
                | {"num_classes": record.metrics["num_classes"]}
                | {"p": stats.p_mcnemar(right, own), "marked": "loses more than a point" if change < -LOSS else ""}
            )
    if not rows:
        return pd.DataFrame(columns=["key", "model", "runtime", "precision", "top1", "marked"])
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=stats.holm(frame["p"]))


def layers(records: Sequence[Record]) -> pd.DataFrame:
    """Where INT8 networks that lose more than a point depart from fp32:
    the tensors with the lowest signal-to-noise ratio."""
    rows = [
        {"key": record.run.key, "model": record.run.model, "runtime": one["runtime"]} | layer
        for record in records
        for one in record.conversions
        for layer in one.get("layers", [])
    ]
    return pd.DataFrame(rows, columns=["model", "runtime", "tensor", "place", "of", "snr_db", "key"])
