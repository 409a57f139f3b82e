"""The sides of the comparison: the same run, as each of them would train it.

All take the network, its first weights and the splits from `lwnb`, so that only loop, loader and formats differ.
Each returns `top1` on the test split (0..1), `train_loss` of the last epoch (nats, label smoothing included),
`epoch_seconds`, the seconds of each epoch with its validation, and `images`, how many an epoch trains on.
"""

import math
import time
from functools import partial

import torch
from torch import nn

from lwnb.data import sets
from lwnb.networks import build
from lwnb.plan.facts import IMAGENET
from lwnb.plan.run import Run

WORKERS = 2
"""Processes of a DataLoader."""


def script(run: Run, tuned: bool = False) -> dict:
    """A typical script after torchvision's references: PIL transforms, a DataLoader, a plain loop.

    `tuned`: the same with channels_last and a fused optimiser.
    """
    torch.manual_seed(run.seed)
    task = sets.task(run)
    net = _network(run, task)
    if tuned:
        net = net.to(memory_format=torch.channels_last)
    optimizer = _optimizer(run, net, **({"fused": True} if tuned else {}))
    train, val, test = _loaders(run, task)
    schedule = _schedule(run, optimizer, len(train))
    return _fit(run, net, optimizer, lambda _: schedule.step(), train, val, test, tuned)


def timm(run: Run) -> dict:
    """timm's loader with its own preprocessing, optimiser and scheduler in a plain loop; its crop is a resized one."""
    from timm.data import create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler

    torch.manual_seed(run.seed)
    task = sets.task(run)
    net = _network(run, task)
    size = {"input_size": (3, run.image_size, run.image_size), "batch_size": run.batch_size}
    common = size | {"num_workers": WORKERS, "device": torch.device("cpu"), "mean": IMAGENET.mean, "std": IMAGENET.std}
    shift = (1 - 1 / 8) ** 2  # of the area: a crop moves by up to an eighth of the side, as with the others
    bend = {"scale": (shift, 1.0), "ratio": (1.0, 1.0), "hflip": 0.5 * ("flip-crop" in run.augment), "color_jitter": 0}
    train = create_loader(Images(task.train), is_training=True, **common, **bend)
    val, test = (create_loader(Images(split), crop_pct=1.0, **common) for split in (task.val, task.test))
    momentum = {"momentum": 0.9} if run.optimizer == "sgd" else {}
    optimizer = create_optimizer_v2(net, run.optimizer, run.lr, run.weight_decay, **momentum)
    total, warm = run.epochs * len(train), round(run.warmup_epochs * len(train))
    warming = {"warmup_t": warm, "warmup_lr_init": run.lr / max(1, warm), "warmup_prefix": True}
    schedule = CosineLRScheduler(optimizer, max(1, total - warm), t_in_epochs=False, **warming)
    return _fit(run, net, optimizer, schedule.step_update, train, val, test)


def lightning(run: Run) -> dict:
    """Lightning with the script's DataLoader, as its documentation writes a training."""
    from lightning.pytorch import LightningModule, Trainer

    class Classifier(LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.seconds = _network(run, task), []

        def configure_optimizers(self):
            optimizer = _optimizer(run, self)
            schedule = _schedule(run, optimizer, len(train))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_train_epoch_start(self):
            self.began = time.perf_counter()

        def training_step(self, batch, _):
            loss = _loss(run)(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, _):
            logits = self.net(batch[0])
            self.log("loss", nn.functional.cross_entropy(logits, batch[1]), on_epoch=True)
            self.log("top1", (logits.argmax(1) == batch[1]).float().mean(), on_epoch=True)

        test_step = validation_step

        def on_train_epoch_end(self):
            self.seconds.append(time.perf_counter() - self.began)

    torch.manual_seed(run.seed)
    task = sets.task(run)
    train, val, test = _loaders(run, task)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_epochs=run.epochs, enable_checkpointing=False, **quiet)
    module = Classifier()
    trainer.fit(module, train, val)
    train_loss = trainer.callback_metrics["train_loss"].item()
    (found,) = trainer.test(module, test, verbose=False)
    images = len(train) * run.batch_size
    return {"top1": found["top1"], "train_loss": train_loss, "epoch_seconds": module.seconds, "images": images}


def lwnb(run: Run) -> dict:
    """This project, by the way that `lwnb run` takes."""
    from lwnb.batch import grid
    from lwnb.records import failures, results

    grid.ensure([run], workers=1)
    record = results.find(run)
    if not record:
        raise RuntimeError(failures.failure(run)["traceback"])
    about = record.environment
    return {
        "top1": record.metrics["top1"],
        "train_loss": float(record.history["train_loss"].iloc[-1]),
        "epoch_seconds": about["all_epoch_seconds"],
        "images": round(about["images_per_second"] * about["train_seconds"] / run.epochs),
    }


SIDES = {
    "script": script,
    "script-tuned": partial(script, tuned=True),
    "timm": timm,
    "lightning": lightning,
    "lwnb": lwnb,
    "lwnb-bf16": lwnb,  # the run's precision is bf16
}


class Images(torch.utils.data.Dataset):
    """A split as torchvision's CIFAR10 keeps one: an array in memory, handed out as PIL images."""

    def __init__(self, split: sets.Split, transform=None):
        self.images, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        from PIL import Image

        image = Image.fromarray(self.images[index])
        return self.transform(image) if self.transform else image, self.labels[index]


def _network(run: Run, task: sets.Task) -> nn.Module:
    return build.build(run.model, len(task.classes), run.output_stride, run.seed)


def _loaders(run: Run, task: sets.Task) -> list:
    """DataLoaders of the three splits; the transforms are those of torchvision's references at this augmentation."""
    from torchvision import transforms as T

    if run.augment not in ("none", "crop", "flip-crop"):
        raise ValueError(f"augment: {run.augment!r} is not in the comparison; allowed are none, crop and flip-crop")
    resize = [T.Resize(run.image_size)] * (task.train.images.shape[-1] != run.image_size)
    crop = [T.RandomCrop(run.image_size, padding=run.image_size // 8)] * ("crop" in run.augment)
    flip = [T.RandomHorizontalFlip()] * ("flip" in run.augment)
    convert = [T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(*IMAGENET)]
    Loader = partial(torch.utils.data.DataLoader, batch_size=run.batch_size, num_workers=WORKERS)
    train = Loader(Images(task.train, T.Compose(resize + crop + flip + convert)), shuffle=True, drop_last=True)
    return [train, *(Loader(Images(split, T.Compose(resize + convert))) for split in (task.val, task.test))]


def _optimizer(run: Run, net: nn.Module, **options) -> torch.optim.Optimizer:
    """The run's optimiser, without weight decay on norms and biases."""
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": run.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if run.optimizer == "sgd":
        return torch.optim.SGD(groups, run.lr, momentum=0.9, nesterov=True, **options)
    return torch.optim.AdamW(groups, run.lr, **options)


def _schedule(run: Run, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then half a cosine to zero, a step at a time."""
    if run.schedule != "cosine":
        raise ValueError(f"schedule: {run.schedule!r} is not in the comparison; allowed is cosine")
    warm, total = round(run.warmup_epochs * steps), run.epochs * steps

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _loss(run: Run) -> nn.Module:
    return nn.CrossEntropyLoss(label_smoothing=run.label_smoothing)


def _fit(run: Run, net, optimizer, schedule, train, val, test, channels_last: bool = False) -> dict:
    """The plain loop: train and validate each epoch, test at the end; `schedule` is called with the updates so far."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    criterion, seconds, updates = _loss(run), [], 0
    for _ in range(run.epochs):
        began, total = time.perf_counter(), 0.0
        net.train()
        for images, labels in train:
            loss = criterion(net(images.contiguous(memory_format=layout)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule(updates)
            total += loss.item()
        _top1(net, val, layout)
        seconds.append(time.perf_counter() - began)
    return {
        "top1": _top1(net, test, layout),
        "train_loss": total / len(train),
        "epoch_seconds": seconds,
        "images": len(train) * run.batch_size,
    }


@torch.inference_mode()
def _top1(net: nn.Module, loader, layout: torch.memory_format) -> float:
    net.eval()
    hits = count = 0
    for images, labels in loader:
        hits += (net(images.contiguous(memory_format=layout)).argmax(1) == labels).sum().item()
        count += len(labels)
    return hits / count
