"""From 8-bit images to what a network takes."""

import torch
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB channels on the scale 0..1, as torchvision's weights expect them."""


def normalise(images: Tensor) -> Tensor:
    """Scale (N, 3, H, W) uint8 to float32 with ImageNet's mean 0 and standard deviation 1 in each channel."""
    std = torch.tensor(STD, device=images.device)[:, None, None]
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize (N, 3, H, W) uint8 to (N, 3, size, size) uint8, bilinear with antialias; as they are if they fit."""
    if images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2.functional import resize as interpolate  # 2 s: only where sizes differ

    return interpolate(images, [size, size], antialias=True)
