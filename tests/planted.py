"""Records with planted results: what the tests of comparisons, findings and claims are judged by."""

import numpy as np
from test_params import RUN
from test_results import ENVIRONMENT

from lwnb.plan.run import Run
from lwnb.records import results, tables
from lwnb.records.results import Record

COSTS = {
    "mobilenet_v3_small": {"macs": 2e6, "parameters": 1_500_000, "size_bytes": 6_200_000},
    "resnet18": {"macs": 37e6, "parameters": 11_200_000, "size_bytes": 44_800_000},
    "squeezenet1_1": {"macs": 5e6, "parameters": 700_000, "size_bytes": 2_900_000},
    "efficientnet_v2_s": {"macs": 58e6, "parameters": 20_200_000, "size_bytes": 81_000_000},
    "shufflenet_v2_x1_0": {"macs": 3e6, "parameters": 1_300_000, "size_bytes": 5_200_000},
}
FLAT = (0.2, 0.4, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)
RISING = tuple(i / 10 for i in range(10))


def plant(hits=0.8, n=2000, val_top1=None, curve=FLAT, metrics=(), labels=None, **fields) -> Record:
    """Save a run that is right about exactly a share `hits` of the first and the same `n` test images, in a mixed order.

    Runs with the same seed are right about the same images as far as their shares go, so that their differences are
    sharp; `hits` may also be an array, image by image. `labels` (n,) are 0 to 9 in turn unless given.
    """
    run = Run(**RUN | {"epochs": len(curve), "dataset": "cifar10"} | fields)
    order = np.random.default_rng(run.seed).permutation(n)
    right = np.asarray(hits, bool) if np.ndim(hits) else order < round(hits * n)
    labels = np.arange(n) % 10 if labels is None else np.asarray(labels)
    top5 = (np.where(right, labels, labels + 1)[:, None] + np.arange(5)) % 10
    found = {
        "learned": True, "top1": float(right.mean()), "macro_f1": float(right.mean()), "ece": 0.1, "loss": 1.0,
        "val_top1": float(right.mean() if val_top1 is None else val_top1), "val_loss": 1.0, "train_top1": 1.0,
        "train_loss": 0.1, "best_epoch": len(curve), "epochs_run": len(curve), "n_train": 5000, "n_val": 500, "n_test": n,
        "num_classes": 10, "classes": list("0123456789"), **COSTS[run.model],
    }  # fmt: skip
    history = [{"epoch": i + 1, "train_loss": 1 - v, "val_loss": 1 - v, "val_top1": v} for i, v in enumerate(curve)]
    predictions = {"labels": labels, "top5": top5, "confidence": np.full(n, 0.5)}
    environment = ENVIRONMENT | {"all_epoch_seconds": [1.0] * len(curve)}
    return results.save(run, found | dict(metrics), history, predictions, environment, b"")


def frame(records):
    """The table of these records."""
    return tables.of_runs([record.run for record in records])
