"""What exporting and INT8 do to trained networks: tables from the rows that `lwnb.deploy.convert` left with records."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lwnb import stats
from lwnb.compare import span
from lwnb.results import Record

LOSS = 0.01
"""An INT8 network that loses more top-1 than this is marked."""


def table(records: Sequence[Record]) -> pd.DataFrame:
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
    """Where INT8 networks that lose more than a point depart from fp32: the tensors with the lowest signal-to-noise ratio."""
    rows = [
        {"key": record.run.key, "model": record.run.model, "runtime": one["runtime"]} | layer
        for record in records
        for one in record.conversions
        for layer in one.get("layers", [])
    ]
    return pd.DataFrame(rows, columns=["model", "runtime", "tensor", "place", "of", "snr_db", "key"])
