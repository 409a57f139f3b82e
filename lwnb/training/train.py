"""One run: fit, validate, checkpoint, resume, test once. The training library stays behind `train`."""

import hashlib
import logging
import signal
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import lightning
import numpy as np
import safetensors.torch
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from lwnb.base import disk, errors
from lwnb.base.errors import DataError
from lwnb.data import sets
from lwnb.networks import build, states
from lwnb.plan import facts
from lwnb.plan.run import Run
from lwnb.records import folders, results
from lwnb.records.clock import BUSY, Clock
from lwnb.records.results import Record
from lwnb.training import outcome, settings
from lwnb.training.recipe import Recipe

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


def train(run: Run, parent: Run | None = None, on_epoch: Callable[[dict], None] = lambda row: None) -> Record:
    """Train one run, or go on from its last whole epoch, and save its record.

    Parameters
    ----------
    parent : the run that `run.weights` names, with its `source`,
        so that its images can be checked against the test split
    on_epoch : called after each epoch with the new row of the history and the number of images trained on

    Raises
    ------
    FloatingPointError
        When the training loss is not finite.
    WeightsError, DataError
        When weights or images cannot be had.
    """
    if record := results.finish(run):
        return record
    with settings.settled(folders.part(run)) as setting:
        return _train(run, parent, on_epoch, setting)


def _train(run: Run, parent: Run | None, on_epoch: Callable[[dict], None], setting: settings.Setting) -> Record:
    clock = Clock()
    task = sets.task(run)
    leaks, near = _leaks(run, parent, task)
    net = build.build(run.model, len(task.classes), run.output_stride, run.seed)
    if run.weights != "none":
        states.load_backbone(net, _state(run))
    recipe = Recipe(run, net, task, on_epoch, setting)
    trainer = _trainer(run, recipe)
    checkpoint = folders.part(run) / "checkpoint.ckpt"
    resumed = checkpoint.exists()
    with _signals():
        trainer.fit(
            recipe,
            train_dataloaders=range(recipe.steps),
            val_dataloaders=range(1),
            ckpt_path=checkpoint if resumed else None,
            weights_only=True,
        )
    if run.select == "best":
        net.load_state_dict(recipe.best["state"])
    metrics, predictions = outcome.measured(run, net.to(recipe.place), task, recipe)
    if near is not None:
        predictions["near_source"] = near
    about = {"resumed": resumed, "leak_check": leaks, "skipped_images": list(task.skipped)}
    spent = clock.read()
    environment = outcome.environment(recipe) | spent | about | {"idle": spent["other_load"] < BUSY}
    weights = safetensors.torch.save({k: v.cpu().contiguous() for k, v in net.state_dict().items()})
    return results.save(run, metrics, recipe.history, predictions, environment, weights)


class _Whole(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all."""

    def load_checkpoint(self, path, *arguments, **more):
        try:
            return super().load_checkpoint(path, *arguments, **more)
        except Exception as error:  # whatever torch makes of bytes that are not a checkpoint
            raise RuntimeError(
                f"{path}: not readable as a checkpoint ({type(error).__name__}: {error}). "
                "Delete it, and the run starts again from its first epoch"
            ) from error

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        with disk.whole(Path(path)) as aside, aside.open("wb") as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:  # "unexpected pos", when the disk is full: the reason is the error before
                raise error.__context__ or error from None


@contextmanager
def _signals():
    """Let Ctrl-C and SIGTERM do what they always do: Lightning turns both into an exit.

    After Ctrl-C it ignores the next ones, in a notebook's kernel too; after SIGTERM the exit status would be 0.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise SystemExit(128 + signal.SIGTERM) from stop
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop


def _trainer(run: Run, recipe: Recipe) -> lightning.Trainer:
    keep = ModelCheckpoint(folders.part(run), "checkpoint", save_on_train_epoch_end=True, enable_version_counter=False)
    stop = [EarlyStopping("val_top1", patience=run.patience, mode="max")] if run.patience else []
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[run.precision],
        max_epochs=run.epochs,
        callbacks=[*stop, keep],
        plugins=[_Whole(), LightningEnvironment()],  # not a SLURM job's, which would be queued again
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        deterministic=True,
    )


def _state(run: Run) -> dict[str, Tensor]:
    """The weights that a run starts from."""
    if run.weights in facts.sources():
        return states.published(run.model, run.weights)
    if run.parent:
        record = results.find_key(run.weights)
        if not record or not record.weights:
            raise errors.WeightsError(f"weights: run {run.weights} has no weights on this machine; run it here first")
        state = states.from_file(
            record.weights
        )  # in half precision, as a published source has them: one key, one result
        return {name: t.half().float() if t.is_floating_point() else t for name, t in state.items()}
    if not run.weights_file:
        raise errors.WeightsError(f"weights: no file is known for {run.weights}; give its path as `source`")
    found = hashlib.sha256(Path(run.weights_file).read_bytes()).hexdigest()
    if f"sha256:{found}" != run.weights:
        raise errors.WeightsError(f"weights: {run.weights_file} has changed: its SHA-256 is {found}, not {run.weights}")
    return states.from_file(Path(run.weights_file))


def _leaks(run: Run, parent: Run | None, task: sets.Task) -> tuple[str, np.ndarray | None]:
    """Refuse a source that was trained on an image of the target's validation or test split.

    Returns
    -------
    What was found, in words, and which test images (N,) have a near-duplicate among the source's; None where not known
    """
    if not run.parent:
        return "no source run", None
    if not parent or not parent.source:
        return f"not checked: the images of run {run.weights} are not known here", None
    try:
        seen = sets.task(parent).train
    except DataError as error:
        if parent.dataset == run.dataset:
            raise
        return f"not checked: the images of {parent.dataset}, of run {run.weights}, are not here ({error})", None
    for name, split in (("validation", task.val), ("test", task.test)):
        if shared := sets.overlap(split, seen):
            raise DataError(
                f"weights: run {run.weights} was trained on {shared} images of the {name} split of {run.dataset}; "
                "choose another source"
            )
    near = sets.near(torch.cat([task.test.images, task.val.images]), seen.images)
    near, val = near[: len(task.test.labels)], near[len(task.test.labels) :]
    found = (
        f"{val.sum()} of {len(val)} validation and {near.sum()} of {len(near)} test images have a near-duplicate there"
    )
    return f"no training image of the source stands in the validation or test split (SHA-256 of pixels); {found}", near
