"""What is kept of a run that has ended: metrics, predictions, where and how fast it ran."""

import platform
from dataclasses import asdict

import numpy as np
import torch
from torch import nn

from lwnb.data import sets
from lwnb.networks import counts
from lwnb.plan import facts
from lwnb.plan.run import Run
from lwnb.records import machine
from lwnb.training import evaluation
from lwnb.training.recipe import Recipe

FITTED_ON = 1000
"""Training images on which the trained network's top-1 and loss are taken, or as many as there are for validation."""

LEARNED = 0.98
"""A run has not learned unless its last epoch's training loss is below this share of a constant guess's."""


def measured(run: Run, net: nn.Module, task: sets.Task, recipe: Recipe) -> tuple[dict, dict]:
    """The metrics, and the arrays of the predictions; the test split is read here, once,
    of the training split a part."""
    part, classes, history = _part(task.train, max(FITTED_ON, len(task.val.labels))), len(task.classes), recipe.history
    train, test = (
        evaluation.evaluate(net, split.images, run.image_size, run.precision).cpu() for split in (part, task.test)
    )
    best = recipe.best["epoch"] if run.select == "best" else len(history)
    metrics = {
        "learned": history[-1]["train_loss"] < LEARNED * evaluation.constant_loss(task.train.labels),
        "guess_top1": evaluation.guess_top1(task.train.labels, task.test.labels),
        "epochs_run": len(history),
        "best_epoch": best,
        "classes": list(task.classes),
        "num_classes": classes,
    }
    metrics |= {f"train_{name}": value for name, value in evaluation.fit(train, part.labels).items()}
    metrics |= {name: history[best - 1][name] for name in ("val_top1", "val_loss")}
    metrics |= evaluation.rates(test, task.test.labels)
    metrics |= {f"n_{name}": len(getattr(task, name).labels) for name in ("train", "val", "test")}
    metrics |= counts.cost(run.model, classes, run.image_size, run.output_stride)
    return metrics, evaluation.predictions(test, task.test.labels)


def _part(split: sets.Split, count: int) -> sets.Split:
    """So many images of a split at most, of every class in its share: every k-th, for they are sorted by class,
    then hash."""
    size = len(split.labels)
    return split.take(np.arange(min(count, size)) * size // min(count, size))


def environment(recipe: Recipe) -> dict:
    """Where and how fast a run ran: versions, hardware, settings, seconds."""
    names = ("torch", "torchvision", "lightning", "torchmetrics", "ptflops", "numpy")
    names = dict.fromkeys([*names, facts.network(recipe.run.model).library])
    train_seconds, images = sum(recipe.seconds), recipe.images_an_epoch * len(recipe.seconds)
    return {
        "versions": machine.versions(*names) | {"python": platform.python_version()},
        "machine": machine.machine() | _accelerator(recipe.place),
        **asdict(recipe.setting),
        "commit": recipe.commit,
        "train_seconds": train_seconds,
        "epoch_seconds": float(np.median(recipe.seconds)),
        "all_epoch_seconds": recipe.seconds,
        "images_per_second": images / train_seconds,
    }


def _accelerator(place: torch.device) -> dict:
    """The name of the device that trained, where that was not the processor."""
    if place.type == "cpu":
        return {}
    return {"accelerator": torch.cuda.get_device_name(place) if place.type == "cuda" else place.type}
