"""The training recipe: what happens at each step and epoch of a run."""

import hashlib
import math
import time
from collections.abc import Callable

import lightning
import torch
from torch import nn
from torch.nn import functional as F

from lwnb.data import sets
from lwnb.networks import plain, preprocessing
from lwnb.plan import facts
from lwnb.plan.run import Run
from lwnb.records import machine
from lwnb.training import augment, evaluation, settings, smallmaps


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


class Recipe(lightning.LightningModule):
    """The training recipe. Batches are made from (seed, epoch, step), so the loaders only count."""

    def __init__(self, run: Run, net: nn.Module, task: sets.Task, on_epoch: Callable, setting: settings.Setting):
        super().__init__()
        self.run, self.task, self.on_epoch, self.setting = run, task, on_epoch, setting
        self.commit = machine.commit()  # of the code that trains, not of what is committed meanwhile
        self.layout = getattr(torch, setting.memory_format)
        self.net = net.to(memory_format=self.layout)
        self.frozen = plain.freeze(net, run.model) if run.freeze else []
        self.classes, self.scale = len(task.classes), facts.network(run.model).scale
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
        images = preprocessing.resize(self.images[chosen], run.image_size)
        labels = self.labels[chosen]
        images, targets = augment.augment(run.augment, images, labels, self.classes, generator, self.scale)
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
