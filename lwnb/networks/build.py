"""A network by name: classes, output stride, BatchNorm momentum and the start of its head."""

import torch
from torch import nn

from lwnb.networks import plain, strides

MOMENTUM = 0.1
"""BatchNorm momentum of every network: torch's default. torchvision's MobileNetV3 has 0.01 and MNASNet 0.0003, and
their running statistics are stale after a short run."""


def build(name: str, num_classes: int, output_stride: int = 32, seed: int = 0) -> nn.Module:
    """A classification network with random weights and BatchNorm momentum 0.1.

    Parameters
    ----------
    name
        Any that `lwnb.plan.facts.network` knows.
    num_classes
        Length of the output: (N, 3, H, W) float32 -> (N, num_classes).
    output_stride
        Image size over the size of the last feature map. The earliest layers with a stride get stride 1 until it
        holds; a network whose published stride is not larger (SqueezeNet: 16) stays as published.
        Names and shapes of the weights do not depend on it.
    seed
        Determines the weights; the caller's random state is left alone.

    Raises
    ------
    ParamsError
        Unknown name, or a stride that the network's stages do not allow.
    """
    net = plain.published(name, num_classes, seed)
    net.architecture = name
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    _start_head(net, seed)
    for stage in strides.flattened(name, output_stride):
        for layer in stage.layers:
            strides.flatten(net.get_submodule(layer))
    return net


def _start_head(net: nn.Module, seed: int) -> None:
    """One start for every head: weights N(0, 0.01²), biases 1, so that a new head guesses all classes alike.

    As published, heads start differently, and EfficientNetV2-S's so wide that its first loss is over twice that of a
    guess. A bias that all classes share changes no softmax; in SqueezeNet, whose head ends in a ReLU, it keeps every
    class's gradient alive at the start, where the published bias of 0 leaves half of them dead.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for key in sorted(plain.head_names(net.architecture)):
            if parameters[key].ndim > 1:
                parameters[key].normal_(0, 0.01, generator=generator)
            else:
                parameters[key].fill_(1.0)
