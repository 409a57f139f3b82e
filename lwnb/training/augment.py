"""Augmentation of whole uint8 batches, by name; every image has its own draw from the given generator."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from lwnb.base.doors import resolve
from lwnb.networks import preprocessing
from lwnb.plan.facts import POLICIES, Scale
from lwnb.plan.run import policies


def augment(
    policy: str, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator, scale: Scale
) -> tuple[Tensor, Tensor]:
    """Augment and normalise one batch.

    Pixel policies run first, in the order given; then normalisation, erasing, and mixing.

    Parameters
    ----------
    policy : names of `lwnb.plan.facts.POLICIES`, joined by "+", each once, and at most one of mixup and cutmix
    images : (N, 3, S, S) uint8
    labels : (N,) int64
    num_classes : K
    generator : the only source of randomness, on the device of the images
    scale : how the network's images are normalised

    Returns
    -------
    images : (N, 3, S, S) float32, normalised
    targets : (N, K) float32, rows that sum to one; one-hot unless mixed

    Raises
    ------
    ValueError
        The policy is unknown, named twice, or mixes twice.
    """
    pixels, erasing, mixing = (_changes(policy, stage) for stage in ("pixels", "erasing", "mixing"))
    with torch.autocast(images.device.type, enabled=False):  # in bf16 the coordinates of a rotation would be wrong
        for change in pixels:
            images = change(images, generator)
        images = preprocessing.normalise(images, scale)
        for change in erasing:
            images = change(images, generator)
        targets = one_hot(labels, num_classes).float()
        for change in mixing:
            images, targets = change(images, targets, generator)
    return images, targets


@cache
def _changes(policy: str, stage: str) -> list[Callable]:
    """The functions of those parts of a policy that belong to a stage, in the order given."""
    rows = [POLICIES[name] for name in policies(policy)]
    return [resolve(row.work) for row in rows if row.stage == stage]


# Pixel policies: (N, 3, S, S) uint8 and a generator to the same shape and type.


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:
    """No augmentation."""
    return images


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side, zeros outside: 4 pixels of 32 in He et al. 2016, section 4.2."""
    margin = images.shape[-1] // 8
    return windows(images, *_randint(2 * margin + 1, (2, len(images)), generator))


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images, and shift all as `crop` does."""
    margin = images.shape[-1] // 8
    mirrored = _randint(2, (len(images),), generator)
    return windows(images, *_randint(2 * margin + 1, (2, len(images)), generator), mirrored)


def windows(images: Tensor, top: Tensor, left: Tensor, mirrored: Tensor | None = None) -> Tensor:
    """Mirror the marked images, pad all by S // 8 zeros, and cut at (top, left) a window of the old size.

    The lines of all windows are copied in one call that reads them out of the flat padded batch: ten times
    faster than indexing by pixel.

    Parameters
    ----------
    images : (N, 3, S, S) uint8
    top, left : (N,) int64, 0 .. 2 * (S // 8)
    mirrored : (N,) int64, 0 or 1
    """
    size = images.shape[-1]
    padded = pad(images, [size // 8] * 4)
    width = padded.shape[-1]
    line = torch.arange(size, device=images.device)
    plane = torch.arange(padded.shape[0] * padded.shape[1], device=images.device).view(-1, 3, 1)
    start = (plane * width + top[:, None, None] + line) * width + left[:, None, None]
    if mirrored is not None:
        start = start + mirrored[:, None, None] * padded.numel()
        padded = torch.stack([padded, padded.flip(-1)])
    return padded.flatten().unfold(0, size, 1).index_select(0, start.flatten()).view(images.shape)


# Erasing: normalised images and a generator to the same.


def random_erasing(images: Tensor, generator: torch.Generator) -> Tensor:
    """Set a rectangle to the mean colour in half of the images (Zhong et al. 2020; torchvision's default numbers)."""
    return images.masked_fill_(erased(len(images), images.shape[-1], generator), 0)


def erased(number: int, size: int, generator: torch.Generator, tries: int = 10) -> Tensor:
    """Draw rectangles of 2 to 33 % of the area and aspect ratio 0.3 to 3.3 as a mask (number, 1, size, size).

    With probability one half a mask is empty. Of ten draws the first that fits counts, as in torchvision.
    """
    share, shape, place = _rand((3, number, tries), generator)
    area = size**2 * (0.02 + 0.31 * share)
    aspect = 0.3 * (3.3 / 0.3) ** shape
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (height < size) & (width < size)
    first = fits.int().argmax(1, keepdim=True)
    height, width = height.gather(1, first), width.gather(1, first)
    top, left = ((size - side + 1) * place[:, [i]] for i, side in enumerate((height, width)))
    box = _inside(size, top.floor(), left.floor(), height, width)
    hit = fits.any(1) & (_rand((number,), generator) < 0.5)
    return box & hit[:, None, None, None]


# Mixing: normalised images, targets and a generator to the same. The partner comes from one permutation of the batch;
# the share is drawn for each image. Beta(1, 1), the share's distribution, is uniform.


def mixup(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend two images (Zhang et al. 2018, section 3.2: alpha is 1 on CIFAR)."""
    partner = _permutation(len(images), generator)
    share = _rand((len(images), 1, 1, 1), generator)
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share[:, :, 0, 0])


def cutmix(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of another image (Yun et al. 2019, alpha 1); labels count by pixels."""
    partner = _permutation(len(images), generator)
    box = pasted(len(images), images.shape[-1], generator)
    share = box.float().mean(dim=(2, 3))
    return torch.where(box, images[partner], images), torch.lerp(targets, targets[partner], share)


def pasted(number: int, size: int, generator: torch.Generator) -> Tensor:
    """Draw CutMix's rectangles as a mask (number, 1, size, size): uniform centre, cut at the border."""
    half = (0.5 * size * (1 - _rand((number, 1), generator)).sqrt()).floor()
    middle = _randint(size, (2, number, 1), generator)
    return _inside(size, *(middle - half), 2 * half, 2 * half)


def _inside(size: int, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Which pixels lie in the rectangles: (N, 1) each to (N, 1, size, size) bool."""
    line = torch.arange(size, device=top.device)
    rows = (line >= top) & (line < top + height)
    columns = (line >= left) & (line < left + width)
    return rows[:, None, :, None] & columns[:, None, None, :]


def _rand(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _randint(high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(high, shape, generator=generator, device=generator.device)


def _permutation(number: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(number, generator=generator, device=generator.device)
