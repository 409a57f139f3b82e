"""AutoAugment, RandAugment and TrivialAugment on whole uint8 batches, each image with its own draw."""

import math
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

Chain = tuple[tuple[str, float, float], ...]
"""Steps that one image passes through: name of the operation, probability that it is applied, signed magnitude."""


@cache
def chains(policy: str, size: int) -> list[Chain]:
    """List the chains of a policy; a draw is one of them, all equally likely.

    The operations, their magnitudes and AutoAugment's CIFAR-10 table are read from torchvision: RandAugment with two
    operations at magnitude 9 of 31, TrivialAugmentWide with 31 magnitudes (torchvision's defaults).

    Parameters
    ----------
    policy : "autoaugment" (Cubuk et al. 2019), "randaugment" (Cubuk et al. 2020) or "trivialaugment" (Müller 2021)
    size : side of the images in pixels; the first two policies measure shifts by it
    """
    from torchvision.transforms import autoaugment as tv  # 2 s: only where a policy needs it

    if policy == "trivialaugment":
        space = tv.TrivialAugmentWide()._augmentation_space(31)
        return [(step,) for name in space for index in range(31) for step in _signed(space, name, 1.0, index)]
    if policy == "randaugment":
        space = tv.RandAugment()._augmentation_space(31, (size, size))
        return list(product([step for name in space for step in _signed(space, name, 1.0, 9)], repeat=2))
    table = tv.AutoAugment(tv.AutoAugmentPolicy.CIFAR10)
    space = table._augmentation_space(10, (size, size))
    return [chain for pair in table.policies for chain in product(*(_signed(space, *step) for step in pair))]


def _signed(space: dict, name: str, chance: float, index: int | None) -> list[tuple[str, float, float]]:
    """Both signs of a step; an operation without sign stands there twice, so that all stay equally likely."""
    magnitudes, signed = space[name]
    magnitude = float(magnitudes[index]) if magnitudes.ndim and index is not None else 0.0
    return [(name, chance, -magnitude if signed else magnitude), (name, chance, magnitude)]


def draw(policy: str, number: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw for each image a chain and which of its steps are applied.

    Returns
    -------
    chain : (number,) int64, index into `chains(policy, size)`
    applied : (number, steps) bool
    """
    _, chances, _ = _table(policy, size, generator.device)
    chain = torch.randint(len(chances), (number,), generator=generator, device=generator.device)
    coins = torch.rand(number, chances.shape[1], generator=generator, device=generator.device)
    return chain, coins < chances[chain]


def transform(policy: str, images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment (N, 3, S, S) uint8 images by a policy of `chains`, each by its own draw;
    equals torchvision's bit for bit."""
    codes, _, arguments = _table(policy, images.shape[-1], generator.device)
    chain, applied = draw(policy, len(images), images.shape[-1], generator)
    for step in range(codes.shape[1]):
        code = codes[chain, step] * applied[:, step]  # 0 is Identity
        images = _apply(images, code, arguments[chain, step])
    return images


autoaugment = partial(transform, "autoaugment")
randaugment = partial(transform, "randaugment")
trivialaugment = partial(transform, "trivialaugment")


def _apply(images: Tensor, codes: Tensor, arguments: Tensor) -> Tensor:
    """Sort the batch by operation, run each operation once, undo the sorting."""
    order = codes.argsort()
    counts = codes.bincount(minlength=len(OPERATIONS)).tolist()
    parts = zip(images.index_select(0, order).split(counts), arguments[order].split(counts), strict=True)
    done = [
        operation(part, argument) if len(part) else part
        for operation, (part, argument) in zip(OPERATIONS.values(), parts, strict=True)
    ]
    return torch.cat(done).index_select(0, order.argsort())


@cache
def _table(policy: str, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The chains as tensors: operation (C, steps) int64, chance (C, steps), arguments (C, steps, 6)."""
    rows = chains(policy, size)
    codes = [[CODES[name] for name, _, _ in chain] for chain in rows]
    chances = [[chance for _, chance, _ in chain] for chain in rows]
    arguments = [[_arguments(name, magnitude, size) for name, _, magnitude in chain] for chain in rows]
    return tuple(torch.tensor(column, device=device) for column in (codes, chances, arguments))


def _arguments(name: str, magnitude: float, size: int) -> list[float]:
    """What the operation needs of a magnitude, as six numbers: torchvision's conventions of `_apply_op`."""
    if name in WARPS:
        return _matrix(name, magnitude, size)
    if name in BLENDS:
        factor = 1.0 + magnitude
        return [factor, 1.0 - factor, 0.0, 0.0, 0.0, 0.0]
    if name == "Posterize":
        magnitude = 256 - 2 ** (8 - int(magnitude))  # the bits that stay, as a mask
    if name == "Solarize":
        magnitude = math.ceil(magnitude)  # the first level that is inverted
    return [float(magnitude), 0.0, 0.0, 0.0, 0.0, 0.0]


def _matrix(name: str, magnitude: float, size: int) -> list[float]:
    """The inverse affine matrix (2, 3), row by row; shears keep the upper left corner, rotations the centre."""
    from torchvision.transforms.functional import _get_inverse_affine_matrix

    slope, corner, middle = math.degrees(math.atan(magnitude)), [-0.5 * size] * 2, [0.0, 0.0]
    center, angle, translate, shear = {
        "ShearX": (corner, 0.0, middle, [slope, 0.0]),
        "ShearY": (corner, 0.0, middle, [0.0, slope]),
        "TranslateX": (middle, 0.0, [int(magnitude), 0.0], middle),
        "TranslateY": (middle, 0.0, [0.0, int(magnitude)], middle),
        "Rotate": (middle, -magnitude, middle, middle),
    }[name]
    return _get_inverse_affine_matrix(center, angle, translate, 1.0, shear)


# Operations: (n, 3, S, S) uint8 and (n, 6) arguments to (n, 3, S, S) uint8, each image by its own arguments.


def _identity(images: Tensor, arguments: Tensor) -> Tensor:
    return images


def _warp(images: Tensor, arguments: Tensor) -> Tensor:
    """Nearest neighbour, zeros outside."""
    number, _, size, _ = images.shape
    line = torch.linspace(0.5 - 0.5 * size, 0.5 * size - 0.5, size, device=images.device)
    points = torch.stack([*torch.meshgrid(line, line, indexing="xy"), torch.ones_like(line).expand(size, size)], -1)
    # One matrix product as in torchvision: another order of the sums would round ties between pixels differently.
    inverse = arguments.view(number, 2, 3).transpose(1, 2) / (0.5 * size)
    grid = points.view(1, -1, 3).expand(number, -1, -1).bmm(inverse).view(number, size, size, 2)
    return grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def _blend(images: Tensor, other: Tensor | float, arguments: Tensor) -> Tensor:
    own, rest = arguments[:, :2, None, None, None].unbind(1)
    return (own * images + rest * other).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).to(torch.uint8)


def _brightness(images: Tensor, arguments: Tensor) -> Tensor:
    return _blend(images, 0.0, arguments)


def _color(images: Tensor, arguments: Tensor) -> Tensor:
    return _blend(images, _grey(images), arguments)


def _contrast(images: Tensor, arguments: Tensor) -> Tensor:
    return _blend(images, _grey(images).float().mean(dim=(1, 2, 3), keepdim=True), arguments)


def _sharpness(images: Tensor, arguments: Tensor) -> Tensor:
    """Against a smoothed image: weight 5 for the pixel, 1 for its eight neighbours; the border stays."""
    exact = images.short()
    columns = exact[..., :-2] + exact[..., 1:-1] + exact[..., 2:]
    total = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :] + 4 * exact[..., 1:-1, 1:-1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (total / 13).round_()  # thirteenths never lie half-way: no rounding rule matters
    return _blend(images, smooth, arguments)


def _posterize(images: Tensor, arguments: Tensor) -> Tensor:
    return images & arguments[:, 0, None, None, None].to(torch.uint8)


def _solarize(images: Tensor, arguments: Tensor) -> Tensor:
    return torch.where(images >= arguments[:, 0, None, None, None].to(torch.uint8), 255 - images, images)


def _invert(images: Tensor, arguments: Tensor) -> Tensor:
    return 255 - images


def _autocontrast(images: Tensor, arguments: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value stays."""
    low = images.amin(dim=(2, 3), keepdim=True).float()
    high = images.amax(dim=(2, 3), keepdim=True).float()
    flat = low == high
    low, scale = low.masked_fill(flat, 0), (255 / (high - low)).masked_fill(flat, 1)
    return ((images - low) * scale).clamp_(0, 255).to(torch.uint8)


def _equalize(images: Tensor, arguments: Tensor) -> Tensor:
    """Flatten each channel's histogram by integer arithmetic; a channel with too few values stays."""
    pixels = images.flatten(2).flatten(0, 1).long()
    rows = 256 * torch.arange(len(pixels), device=images.device)[:, None]
    counts = (pixels + rows).flatten().bincount(minlength=256 * len(pixels)).view(-1, 256)
    brightest = counts.gather(1, pixels.amax(1, keepdim=True))
    step = (pixels.shape[1] - brightest) // 255
    before = counts.cumsum(1) - counts
    levels = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    levels = torch.where(step == 0, torch.arange(256, device=images.device), levels)
    return levels.to(torch.uint8).gather(1, pixels).view_as(images)


WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = {
    "Identity": _identity,
    "Warp": _warp,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "Invert": _invert,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
CODES = {name: code for code, name in enumerate(OPERATIONS)} | dict.fromkeys(WARPS, 1)
