"""Where a network lowers its resolution, and how to let it do so later."""

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import nn

from lwnb.base.errors import ParamsError
from lwnb.networks import plain

TRACE_SIZE = 224
"""Image size, in pixels, at which a network's strides are looked up: the usual one of ImageNet."""


class Stage(NamedTuple):
    """One step down in resolution: its stride, and the layers that take it side by side."""

    stride: int
    layers: tuple[str, ...]


@functools.cache
def stages(name: str) -> tuple[tuple[Stage, ...], int]:
    """Where a network lowers its resolution, earliest first, and its published output stride.

    One forward pass without storage finds the convolutions and poolings with a stride. Those with the same input size
    are one stage: a residual block and its shortcut, or the two branches of a ShuffleNet unit. What is lowered
    elsewhere (patch merging in Swin) counts in the published stride, and cannot be changed.
    """
    net, found, pooled = plain.skeleton(name, 2).eval(), {}, [TRACE_SIZE]
    for label, layer in net.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and _side(layer.stride) > 1:
            layer.register_forward_hook(
                lambda layer, inputs, _, label=label: found.setdefault(inputs[0].shape[-1], {}).update({label: layer})
            )
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            layer.register_forward_hook(lambda _, inputs, __: pooled.append(inputs[0].shape[-1]))
    with torch.no_grad():
        net(torch.empty(1, 3, TRACE_SIZE, TRACE_SIZE, device="meta"))
    steps = tuple(
        Stage(max(_side(layer.stride) for layer in found[size].values()), tuple(found[size]))
        for size in sorted(found, reverse=True)
    )
    seen = math.prod(stage.stride for stage in steps)
    elsewhere = TRACE_SIZE // (seen * min(size for size in pooled if size > 1))
    return steps, seen * max(1, elsewhere)


def flattened(name: str, output_stride: int) -> tuple[Stage, ...]:
    """The stages that get stride 1 for this output stride."""
    steps, published = stages(name)
    if published <= output_stride:
        return ()
    reachable = list(itertools.accumulate((s.stride for s in steps), lambda left, s: left // s, initial=published))
    if output_stride not in reachable:
        allowed = ", ".join(map(str, reachable))
        raise ParamsError(f"output_stride: {output_stride} is not possible for {name}, whose stages allow {allowed}")
    return steps[: reachable.index(output_stride)]


def flatten(layer: nn.Module) -> None:
    """Stride 1 and 'same' padding, so that the map keeps its size also where the published layer has no padding."""
    side = _side(layer.kernel_size)
    if isinstance(layer, nn.Conv2d):
        layer.stride = (1, 1)
        layer.padding = (side // 2, side // 2) if side % 2 else "same"  # 'same' pads even kernels on one side
    else:
        side -= 1 - side % 2  # no symmetric padding suits an even pooling window: one narrower
        layer.kernel_size, layer.stride, layer.padding = side, 1, side // 2


def _side(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else max(size)
