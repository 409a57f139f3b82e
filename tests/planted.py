"""Records with planted results: what the tests of comparisons, findings and claims are judged by."""

import numpy as np

from lwnb.edge import protocol
from lwnb.plan.run import Run
from lwnb.records import costs, machine, results, tables
from lwnb.records.results import Record

RUN = {
    "dataset": "digits", "digest": "0" * 64, "image_size": 32, "model": "resnet18", "optimizer": "sgd",
    "lr": 0.1, "weight_decay": 5.0e-4, "schedule": "cosine", "batch_size": 64, "epochs": 3,
}  # fmt: skip
"""The fields that a run must have."""

ENVIRONMENT = {
    "train_seconds": 2.0, "epoch_seconds": 1.0, "all_epoch_seconds": [1.0, 1.0], "images_per_second": 50.0,
    "wall_seconds": 3.0, "started": "2026-01-01T00:00:00+00:00", "other_load": 0.0, "commit": "c" * 40,
    "versions": {"lwnb": "0"}, "machine": machine.machine(), "device": "cpu", "threads": 2,
}  # fmt: skip
METRICS = {
    "learned": True, "top1": 0.5, "guess_top1": 0.1, "n_train": 100, "n_test": 4, "num_classes": 2,
    "classes": ["a", "b"],
}  # fmt: skip
ARRAYS = {"labels": np.array([0, 1]), "top5": np.array([[0, 1], [1, 0]]), "confidence": np.array([0.9, 0.8])}
HISTORY = [{"epoch": 1, "val_top1": 0.4}, {"epoch": 2, "val_top1": 0.5}]

COSTS = {
    "mobilenet_v3_small": {"macs": 2e6, "parameters": 1_500_000, "size_bytes": 6_200_000},
    "resnet18": {"macs": 37e6, "parameters": 11_200_000, "size_bytes": 44_800_000},
    "squeezenet1_1": {"macs": 5e6, "parameters": 700_000, "size_bytes": 2_900_000},
    "efficientnet_v2_s": {"macs": 58e6, "parameters": 20_200_000, "size_bytes": 81_000_000},
    "shufflenet_v2_x1_0": {"macs": 3e6, "parameters": 1_300_000, "size_bytes": 5_200_000},
}
FLAT = (0.2, 0.4, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)
RISING = tuple(i / 10 for i in range(10))


def save(run=None, **metrics) -> Record:
    """Save a run with the least that a record holds."""
    return results.save(run or Run(**RUN), METRICS | metrics, HISTORY, ARRAYS, ENVIRONMENT, b"weights")


def plant(hits=0.8, n=2000, val_top1=None, curve=FLAT, metrics=(), labels=None, **fields) -> Record:
    """Save a run that is right about exactly a share `hits` of the first and the same `n` test images,
    in a mixed order.

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
        "train_loss": 0.1, "best_epoch": len(curve), "epochs_run": len(curve), "n_train": 5000, "n_val": 500,
        "n_test": n, "num_classes": 10, "classes": list("0123456789"), **COSTS[run.model],
    }  # fmt: skip
    history = [{"epoch": i + 1, "train_loss": 1 - v, "val_loss": 1 - v, "val_top1": v} for i, v in enumerate(curve)]
    predictions = {"labels": labels, "top5": top5, "confidence": np.full(n, 0.5)}
    environment = ENVIRONMENT | {"all_epoch_seconds": [1.0] * len(curve)}
    return results.save(run, found | dict(metrics), history, predictions, environment, b"")


def frame(records):
    """The table of these records."""
    return tables.of_runs([record.run for record in records])


def timing(cell, samples=((1.0, 2.0, 3.0), (2.0, 2.0, 9.0)), machine=None, load=0.0, peak=8.0):
    """A device record with these samples, of this machine or of another."""
    setting = protocol.setting(cell) | ({"machine": machine} if machine else {})
    part = {"other_load": load, "peak_mib": peak, "load_mib": peak, "run_mib": 1.0, "started": "2026-01-01"}
    return {
        "setting": setting,
        "samples_ms": [list(s) for s in samples],
        "size_bytes": 1,
        "processes": [part] * len(samples),
    }


def two() -> str:
    """Two networks with INT8 files: a small one that is right on half of the images, a large one that is always right.

    Returns
    -------
    The name of their data set.
    """
    for model, right, size, latency in (("squeezenet1_1", 0.5, 1e6, 0.5), ("resnet18", 1.0, 4e7, 5.0)):
        labels = np.arange(100) % 2
        guesses = np.where(np.arange(100) < 100 * right, labels, 1 - labels)
        run = Run(**RUN | {"model": model})
        arrays = {"labels": labels, "top5": np.stack([guesses, 1 - guesses], axis=1)}
        metrics = METRICS | {
            "top1": right, "val_top1": right, "n_test": 100, "num_classes": 10, "macs": 1e6, "size_bytes": size,
        }  # fmt: skip
        kept = results.save(run, metrics, HISTORY, arrays, ENVIRONMENT, b"")
        row = {
            "runtime": "onnxruntime", "precision": "int8", "size_bytes": size, "top1": right, "agree": 1.0,
            "error": 0.0,
        }  # fmt: skip
        results.save_conversions(kept, [row | {"predictions": guesses.tolist()}])
        cell = protocol.Cell(model, 10, run.image_size, run.output_stride, "onnxruntime", "int8")
        costs.save_timing(timing(cell, [[latency]]))
        costs.save_footprint(
            {"model": model, "num_classes": 10, "image_size": run.image_size, "output_stride": run.output_stride},
            {"planned_bytes": 2**20},
        )
    return Run(**RUN).dataset
