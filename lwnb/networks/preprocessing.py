"""From 8-bit images to what a network takes."""

import torch
from torch import Tensor

from lwnb.plan.facts import Scale


def normalise(images: Tensor, scale: Scale) -> Tensor:
    """Images (N, 3, H, W) uint8 as float32: in each channel (value / 255 - mean) / std of the network's scale."""
    std = torch.tensor(scale.std, device=images.device)[:, None, None]
    mean = torch.tensor(scale.mean, device=images.device)[:, None, None]
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize (N, 3, H, W) uint8 to (N, 3, size, size) uint8, bilinear with antialias; as they are if they fit."""
    if images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2.functional import resize as interpolate  # 2 s: only where sizes differ

    return interpolate(images, [size, size], antialias=True)
