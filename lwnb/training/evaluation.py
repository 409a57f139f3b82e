"""What a network says about images, and how right that is."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwnb.networks import preprocessing
from lwnb.plan import facts


def evaluate(net: nn.Module, images: Tensor, image_size: int, precision: str = "fp32") -> Tensor:
    """Logits (N, K) float32 of images (N, 3, H, W) uint8 by a network of `build`; leaves it in evaluation mode."""
    net.eval()
    scale = facts.network(net.architecture).scale
    place = next(net.parameters()).device
    with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = [
            net(preprocessing.normalise(preprocessing.resize(batch.to(place), image_size), scale)).float()
            for batch in images.split(512)
        ]
    return torch.cat(logits)


def fit(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """`top1`, 0..1, and `loss`, in nats, of logits (N, K) against labels (N,): what needs no metrics library."""
    right = (logits.argmax(1) == labels).double().mean()
    return {"top1": right.item(), "loss": F.cross_entropy(logits, labels).item()}


def rates(logits: Tensor, labels: Tensor) -> dict:
    """Metrics of logits (N, K) against labels (N,): rates 0..1 (torchmetrics), and the loss in nats.

    `top1`, `top5` (None for five classes or fewer), `macro_f1`, `ece` (15 bins, Guo et al. 2017), `per_class_top1`.
    """
    from torchmetrics.functional import classification as M  # slow to import, and not needed for logits alone

    scores, classes = logits.softmax(1), logits.shape[1]
    top5 = M.multiclass_accuracy(scores, labels, classes, top_k=5, average="micro") if classes > 5 else None
    return {
        "top1": M.multiclass_accuracy(scores, labels, classes, average="micro").item(),
        "top5": None if top5 is None else top5.item(),
        "macro_f1": M.multiclass_f1_score(scores, labels, classes, average="macro").item(),
        "ece": M.multiclass_calibration_error(scores, labels, classes, n_bins=15).item(),
        "per_class_top1": M.multiclass_accuracy(scores, labels, classes, average="none").tolist(),
        "loss": F.cross_entropy(logits, labels).item(),
    }


def predictions(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """What is kept of a split's logits (N, K) beside its labels (N,).

    `labels` (N,), `top5` (N, 5 or K), the likeliest classes in order, `confidence` (N,) of the first, 0..1, and
    `confusion` (K, K), how many images of each class (row) were taken for which (column).
    """
    from torchmetrics.functional import classification as M

    scores, classes = logits.softmax(1), logits.shape[1]
    top = scores.topk(min(5, classes))
    return {
        "labels": labels.numpy().astype(np.uint16),
        "top5": top.indices.numpy().astype(np.uint16),
        "confidence": top.values[:, 0].numpy().astype(np.float16),
        "confusion": M.multiclass_confusion_matrix(scores, labels, classes).numpy().astype(np.uint16),
    }


def guess_top1(train: Tensor, test: Tensor) -> float:
    """The top-1, 0..1, of always guessing the largest class of the labels `train` (N,) on the labels `test` (M,)."""
    return (test == train.bincount().argmax()).double().mean().item()


def constant_loss(labels: Tensor) -> float:
    """The cross-entropy of the best guess that ignores the image: the entropy of the labels, in nats."""
    share = labels.bincount().double() / len(labels)
    return -(share[share > 0] * share[share > 0].log()).sum().item()
