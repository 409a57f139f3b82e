"""One run: fit, validate, checkpoint, resume, test once. The training library stays behind `train`."""

import hashlib
import logging
import math
import platform
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import lightning
import numpy as np
import safetensors.torch
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.nn import functional as F

from lwnb import augment, data, disk, evaluation, measure, models, results, settings, smallmaps
from lwnb.clock import BUSY, Clock
from lwnb.params import Run
from lwnb.results import Record

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")

FITTED_ON = 1000
"""Training images on which the trained network's top-1 and loss are taken, or as many as there are for validation."""

LEARNED = 0.98
"""A run has not learned unless its last epoch's training loss is below this share of a constant guess's."""


def train(run: Run, parent: Run | None = None, on_epoch: Callable[[dict], None] = lambda row: None) -> Record:
    """Train one run, or go on from its last whole epoch, and save its record.

    Parameters
    ----------
    parent : the run that `run.weights` names, with its `source`, so that its images can be checked against the test split
    on_epoch : called after each epoch with the new row of the history and the number of images trained on

    Raises
    ------
    FloatingPointError
        When the training loss is not finite.
    lwnb.models.WeightsError, lwnb.data.DataError
        When weights or images cannot be had.
    """
    if record := results.finish(run):
        return record
    with settings.settled(results.part(run)) as setting:
        return _train(run, parent, on_epoch, setting)


def _train(run: Run, parent: Run | None, on_epoch: Callable[[dict], None], setting: settings.Setting) -> Record:
    clock = Clock()
    task = data.task(run)
    leaks, near = _leaks(run, parent, task)
    net = models.build(run.model, len(task.classes), run.output_stride, run.seed)
    if run.weights != "none":
        models.load_backbone(net, _state(run))
    recipe = _Recipe(run, net, task, on_epoch, setting)
    trainer = _trainer(run, recipe)
    checkpoint = results.part(run) / "checkpoint.ckpt"
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
    metrics, predictions = _measure(run, net.to(recipe.place), task, recipe)
    if near is not None:
        predictions["near_source"] = near
    about = {"resumed": resumed, "leak_check": leaks, "skipped_images": list(task.skipped)}
    spent = clock.read()
    environment = _environment(recipe) | spent | about | {"idle": spent["other_load"] < BUSY}
    weights = safetensors.torch.save({k: v.cpu().contiguous() for k, v in net.state_dict().items()})
    return results.save(run, metrics, recipe.history, predictions, environment, weights)


def rate(run: Run, step: int, steps: int) -> float | None:
    """The learning rate at a step of a run with this many steps an epoch; None where the plateau rule decides.

    Linear warm-up, then constant, a tenth at half and again at three quarters (step), or a half cosine to zero.
    """
    warm, total = round(run.warmup_epochs * steps), run.epochs * steps
    if step < warm:
        return run.lr * (step + 1) / warm
    share = (step - warm) / max(1, total - warm)
    if run.schedule == "cosine":
        return run.lr * 0.5 * (1 + math.cos(math.pi * share))
    if run.schedule == "step":
        return run.lr * 0.1 ** ((share >= 0.5) + (share >= 0.75))
    return run.lr if run.schedule == "constant" or step == warm else None


def _seeded(*parts, device="cpu") -> torch.Generator:
    """A generator that is a function of its parts alone."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))


class _Recipe(lightning.LightningModule):
    """The training recipe. Batches are made from (seed, epoch, step), so the loaders only count."""

    def __init__(self, run: Run, net: nn.Module, task: data.Task, on_epoch: Callable, setting: settings.Setting):
        super().__init__()
        self.run, self.task, self.on_epoch, self.setting = run, task, on_epoch, setting
        self.commit = results.commit()  # of the code that trains, not of what is committed meanwhile
        self.layout = getattr(torch, setting.memory_format)
        self.net = net.to(memory_format=self.layout)
        self.frozen = models.freeze(net, run.model) if run.freeze else []
        self.classes = len(task.classes)
        self.steps = max(1, len(task.train.labels) // run.batch_size)
        self.images_an_epoch = self.steps * min(run.batch_size, len(task.train.labels))
        self.history: list[dict] = []
        self.seconds: list[float] = []
        self.best: dict = {"rank": (-1.0, 0.0)}
        self.plateau_state: dict | None = None

    def configure_optimizers(self):
        """SGD or AdamW, with no weight decay on norms and biases."""
        run, parameters = self.run, [p for p in self.net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": run.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if run.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=run.lr, momentum=0.9, nesterov=True, fused=self.setting.fused)
        else:
            optimizer = torch.optim.AdamW(groups, lr=run.lr, fused=self.setting.fused)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=3)
        if self.plateau_state:
            self.plateau.load_state_dict(self.plateau_state)
        return optimizer

    def on_fit_start(self):
        self.place = self.device
        if self.place.type == "cpu":
            smallmaps.shortcut(self.net)
        self.images, self.labels = self.task.train.images.to(self.place), self.task.train.labels.to(self.place)

    def on_train_start(self):
        stop = self.trainer.early_stopping_callback
        self.trainer.should_stop = bool(stop and stop.wait_count >= stop.patience)  # killed after its last epoch

    def on_train_epoch_start(self):
        self.began = time.perf_counter()
        seed = _seeded("network", self.run.seed, self.current_epoch).initial_seed()
        torch.manual_seed(seed)  # dropout and stochastic depth draw from the global generator
        order = _seeded("order", self.run.seed, self.current_epoch)
        self.order = torch.randperm(len(self.labels), generator=order).to(self.place)
        self.sums = torch.zeros(3, device=self.place)
        for module in self.frozen:
            module.eval()

    def training_step(self, step: int, _):
        run, optimizer = self.run, self.optimizers().optimizer
        lr = rate(run, self.global_step, self.steps)
        for group in optimizer.param_groups if lr is not None else ():
            group["lr"] = lr
        chosen = self.order[step * run.batch_size : (step + 1) * run.batch_size]
        generator = _seeded("batch", run.seed, self.current_epoch, step, device=self.place)
        images = augment.resize(self.images[chosen], run.image_size)
        images, targets = augment.augment(run.augment, images, self.labels[chosen], self.classes, generator)
        logits = self.net(images.contiguous(memory_format=self.layout))
        loss = F.cross_entropy(logits, targets, label_smoothing=run.label_smoothing)
        hits = (logits.argmax(1) == targets.argmax(1)).sum()
        self.sums += torch.stack([loss.detach() * len(chosen), hits, torch.tensor(len(chosen), device=self.place)])
        return loss

    def validation_step(self, *_):
        logits = evaluation.evaluate(self.net, self.task.val.images, self.run.image_size, self.run.precision)
        for name, value in evaluation.fit(logits, self.task.val.labels.to(self.place)).items():
            self.log(f"val_{name}", value, batch_size=1)

    def on_train_epoch_end(self):
        loss, hits, count = self.sums.tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(f"diverged: the training loss is {loss} in epoch {self.current_epoch + 1}")
        val_loss, val_top1 = (self.trainer.callback_metrics[name].item() for name in ("val_loss", "val_top1"))
        lr = self.optimizers().optimizer.param_groups[0]["lr"]
        row = {"epoch": self.current_epoch + 1, "lr": lr, "train_loss": loss / count, "train_top1": hits / count}
        self.history.append(row | {"val_loss": val_loss, "val_top1": val_top1})
        if self.run.schedule == "plateau":
            self.plateau.step(val_loss)
        if self.run.select == "best" and (val_top1, -val_loss) > tuple(self.best["rank"]):
            state = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
            self.best = {"rank": (val_top1, -val_loss), "epoch": self.current_epoch + 1, "state": state}
        self.seconds.append(time.perf_counter() - self.began)
        self.on_epoch(self.history[-1] | {"images": self.images_an_epoch})

    def on_save_checkpoint(self, checkpoint: dict):
        checkpoint |= {"history": self.history, "seconds": self.seconds, "plateau": self.plateau.state_dict()}
        now = self.best.get("epoch") == self.current_epoch + 1  # then its weights are those of the checkpoint itself
        checkpoint["best"] = self.best | ({"state": None} if now else {})

    def on_load_checkpoint(self, checkpoint: dict):
        self.history, self.seconds, self.best = (checkpoint[name] for name in ("history", "seconds", "best"))
        self.plateau_state = checkpoint["plateau"]
        if "state" in self.best and self.best["state"] is None:
            state = {name.removeprefix("net."): value.clone() for name, value in checkpoint["state_dict"].items()}
            self.best = self.best | {"state": state}


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


def _trainer(run: Run, recipe: _Recipe) -> lightning.Trainer:
    keep = ModelCheckpoint(results.part(run), "checkpoint", save_on_train_epoch_end=True, enable_version_counter=False)
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


def _measure(run: Run, net: nn.Module, task: data.Task, recipe: _Recipe) -> tuple[dict, dict]:
    """The metrics, and the arrays of the predictions; the test split is read here, once, of the training split a part."""
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
    metrics |= measure.cost(run.model, classes, run.image_size, run.output_stride)
    return metrics, evaluation.predictions(test, task.test.labels)


def _part(split: data.Split, count: int) -> data.Split:
    """So many images of a split at most, of every class in its share: every k-th, for they are sorted by class, then hash."""
    size = len(split.labels)
    return split.take(np.arange(min(count, size)) * size // min(count, size))


def _state(run: Run) -> dict[str, Tensor]:
    """The weights that a run starts from."""
    if run.weights == "imagenet":
        return models.imagenet(run.model)
    if run.parent:
        record = results.find_key(run.weights)
        if not record or not record.weights:
            raise models.WeightsError(f"weights: run {run.weights} has no weights on this machine; run it here first")
        state = models.read(record.weights)  # in half precision, as a published source has them: one key, one result
        return {name: t.half().float() if t.is_floating_point() else t for name, t in state.items()}
    if not run.weights_file:
        raise models.WeightsError(f"weights: no file is known for {run.weights}; give its path as `source`")
    found = hashlib.sha256(Path(run.weights_file).read_bytes()).hexdigest()
    if f"sha256:{found}" != run.weights:
        raise models.WeightsError(f"weights: {run.weights_file} has changed: its SHA-256 is {found}, not {run.weights}")
    return models.read(Path(run.weights_file))


def _leaks(run: Run, parent: Run | None, task: data.Task) -> tuple[str, np.ndarray | None]:
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
        seen = data.task(parent).train
    except data.DataError as error:
        if parent.dataset == run.dataset:
            raise
        return f"not checked: the images of {parent.dataset}, of run {run.weights}, are not here ({error})", None
    for name, split in (("validation", task.val), ("test", task.test)):
        if shared := data.overlap(split, seen):
            raise data.DataError(
                f"weights: run {run.weights} was trained on {shared} images of the {name} split of {run.dataset}; "
                "choose another source"
            )
    near = data.near(torch.cat([task.test.images, task.val.images]), seen.images)
    near, val = near[: len(task.test.labels)], near[len(task.test.labels) :]
    found = (
        f"{val.sum()} of {len(val)} validation and {near.sum()} of {len(near)} test images have a near-duplicate there"
    )
    return f"no training image of the source stands in the validation or test split (SHA-256 of pixels); {found}", near


def _environment(recipe: _Recipe) -> dict:
    """Where and how fast a run ran: versions, hardware, settings, seconds."""
    names = ("torch", "torchvision", "lightning", "torchmetrics", "ptflops", "numpy")
    train_seconds, images = sum(recipe.seconds), recipe.images_an_epoch * len(recipe.seconds)
    return {
        "versions": results.versions(*names) | {"python": platform.python_version()},
        "machine": results.machine() | _accelerator(recipe.place),
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
