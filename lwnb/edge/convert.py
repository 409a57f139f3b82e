"""Trained networks exported and tested, and files to ship."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lwnb.base import disk, doors, errors
from lwnb.data import sets
from lwnb.edge import export, runtimes, to_onnx
from lwnb.edge.runtimes import file_of
from lwnb.networks import build, preprocessing, states
from lwnb.plan import facts
from lwnb.plan.facts import DATASETS, FORMATS, LOSS, RUNTIMES, Cell
from lwnb.plan.run import Run
from lwnb.records.results import Record
from lwnb.training import evaluation

CALIBRATION = 128
"""Training images that the ranges of INT8 activations are taken from."""

INPUT = (
    "images, N x 3 x image_size x image_size, float32, RGB. From an image file, as in training: turned as its EXIF "
    "data say; 16-bit grey divided by 257; laid on white where it is transparent; for each of sizes in turn resized by "
    "its shorter side (bilinear, antialiased) and cropped about the centre; then (pixel / 255 - mean) / std"
)
"""The input of a shipped network, in words: what `images.decode`, `augment.resize` and `augment.normalise` make."""


# --- Trained networks ---


def convert(record: Record, wanted: Sequence[str], place: Path) -> list[dict]:
    """Export a trained network to each runtime in its precisions, and test every file on the run's test images.

    Copies of the files stay for `any_file`, which would else export the same shape again.

    Returns
    -------
    A row a file: `runtime`, `precision`, `size_bytes`, `top1`, `agree` (the share of images for which it says what
    PyTorch says), `error` (the largest difference of a logit over the largest logit), `predictions` (N,); where INT8
    loses more than `LOSS`, also what the format's `lost` finds.
    """
    run, task = record.run, sets.task(record.run)
    net = trained(record)
    reference = evaluation.evaluate(net, task.test.images, run.image_size).numpy()
    images, calibration = _inputs(task.test.images, run), calibrating(run, task)
    labels, rows = task.test.labels.numpy(), []
    right = (reference.argmax(1) == labels).mean()

    def row(runtime: str, precision: str, file: Path) -> dict:
        logits = _logits(runtime, file, images)
        found = {"runtime": runtime, "precision": precision, "size_bytes": file.stat().st_size}
        found |= {"top1": float((logits.argmax(1) == labels).mean())}
        found |= {"agree": float((logits.argmax(1) == reference.argmax(1)).mean())}
        found |= {"error": float(np.abs(logits - reference).max() / np.abs(reference).max())}
        return found | {"predictions": logits.argmax(1).tolist()}

    for runtime in wanted:
        own = RUNTIMES[runtime]
        form, files = FORMATS[own.form], {}
        for precision in own.precisions:
            file = place / f"{run.key}-{precision}{form.suffix}"
            images_of = calibration if precision == "int8" else None
            export.export(net, own.form, file, run.image_size, calibration=images_of, fp32=files.get("fp32"))
            files[precision] = file
        found = {precision: row(runtime, precision, file) for precision, file in files.items()}
        for precision, file in files.items():
            cell = Cell(run.model, len(task.classes), run.image_size, run.output_stride, runtime, precision)
            with disk.whole(file_of(cell, place)) as aside:
                shutil.copyfile(file, aside)
        if form.lost and "int8" in found and right - found["int8"]["top1"] > LOSS:
            more, others = doors.resolve(form.lost)(net, run, task, files, calibration)
            found["int8"] |= more
            found |= {precision: row(runtime, precision, file) for precision, file in others.items()}
        rows += found.values()
    return rows


def trained(record: Record) -> nn.Module:
    """The network of a finished run with its weights.

    Raises
    ------
    WeightsError
        This machine does not have the weights.
    """
    if not record.weights:
        raise errors.WeightsError(
            f"run {record.run.key} has no weights on this machine: published records carry none; train it here"
        )
    net = build.build(record.run.model, record.metrics["num_classes"], record.run.output_stride)
    net.load_state_dict(states.from_file(record.weights))
    return net.eval()


def calibrating(run: Run, task: sets.Task) -> Tensor:
    """(M, 3, S, S) float32: `CALIBRATION` training images, or all there are, the same ones for each run's seed."""
    order = torch.randperm(len(task.train.labels), generator=torch.Generator().manual_seed(run.seed))
    return _inputs(task.train.images[order[:CALIBRATION]], run)


def _inputs(images: Tensor, run: Run) -> Tensor:
    scale = facts.network(run.model).scale
    return preprocessing.normalise(preprocessing.resize(images, run.image_size), scale)


def _logits(runtime: str, file: Path, images: Tensor) -> np.ndarray:
    call = runtimes.loader(runtime, torch.get_num_threads())({"file": str(file)})
    size = 128 if FORMATS[RUNTIMES[runtime].form].any_batch else 1
    with to_onnx.quiet():
        return np.concatenate([call(batch.contiguous().numpy()).copy() for batch in images.split(size)])


def sizes(run: Run) -> list[int]:
    """The sides in pixels that an image is brought to one after the other: that of its data set, then `image_size`.

    A photograph is first made as small as the images that the network has learned from, and then enlarged as they were.
    """
    return list(dict.fromkeys([DATASETS[run.dataset].side or run.image_size, run.image_size]))


def about(record: Record) -> dict[str, str]:
    """What a deployed file tells of itself: classes, preprocessing, terms of the data, the run that it comes from."""
    run, network = record.run, facts.network(record.run.model)
    return {
        "classes": json.dumps(record.metrics["classes"]),
        "image_size": str(run.image_size),
        "sizes": json.dumps(sizes(run)),
        "input": INPUT,
        "mean": json.dumps(network.scale.mean),
        "std": json.dumps(network.scale.std),
        "output": "logits, N x classes",
        "model": run.model,
        "model_licence": network.licence,
        "dataset": run.dataset,
        "data_terms": DATASETS[run.dataset].terms,
        "run": run.key,
    }


def ship(record: Record, form: str, int8: bool, file: Path) -> None:
    """Write the network of a finished run as a file that can be shipped; see `export` and `about`."""
    net = trained(record)
    calibration = calibrating(record.run, sets.task(record.run)) if int8 else None
    export.export(net, form, file, record.run.image_size, calibration=calibration, about=about(record))
