"""Convolutions of maps of a few pixels, computed as the matrix products that they are.

At 32 px and output stride 32 the last stages see maps of one to four pixels, where each output pixel meets every input
pixel. On a processor torch's convolutions are slow at that, forwards and most of all backwards. Sums differ by their
rounding alone.
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4
"""Maps of at most this many pixels take the short way. With sixteen, SqueezeNet loses what ShuffleNetV2 gains.

`python -m benchmarks.smallmaps` measures it. On an accelerator nothing was measured, and torch's own way is taken."""


def shortcut(net: nn.Module) -> nn.Module:
    """The network itself; its convolutions now take the short way wherever a map is small enough."""
    for module in net.modules():
        if type(module) is nn.Conv2d and _plain(module):
            module.__class__ = _Conv2d
    return net


def _plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution pads with zeros, has no gaps in its kernel, and joins all channels or none."""
    joined = conv.groups == 1 or conv.groups == conv.in_channels == conv.out_channels
    return joined and conv.padding_mode == "zeros" and conv.dilation == (1, 1) and not isinstance(conv.padding, str)


class _Conv2d(nn.Conv2d):
    """A convolution with a short way for small maps (N, C, H, W); the shapes below are those of channels last, P
    pixels a map.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] > FEW:
            return super().forward(x)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, P, C), no copy
        if self.groups == 1 and self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0):
            return _map(F.linear(pixels.flatten(0, 1), self.weight.flatten(1), self.bias), len(x), x.shape[2:])
        size, taps = _taps(x.shape[2:], self.kernel_size, self.padding, self.stride)
        if taps is None:
            return super().forward(x)
        out = self._joined(pixels, taps) if self.groups == 1 else self._apart(pixels, taps)
        out = _map(out, len(x), size)
        return out if self.bias is None else out + self.bias[:, None, None]

    def _joined(self, pixels: Tensor, taps: Tensor) -> Tensor:
        """All output pixels and channels (N, Q C') from all input pixels and channels."""
        if taps.numel() == 1:
            weight = self.weight.flatten(2)[:, :, taps.item()]
        else:
            weight = self.weight.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, taps.flatten())  # (C', Q P, C)
            weight = weight.unflatten(1, taps.shape).transpose(0, 1).flatten(2).flatten(0, 1)
        return F.linear(pixels.flatten(1), weight)

    def _apart(self, pixels: Tensor, taps: Tensor) -> Tensor:
        """All output pixels (N, Q, C), each channel from its own input pixels."""
        weight = self.weight.flatten(1).to(pixels.dtype)
        if taps.numel() == 1:
            return pixels * weight[:, taps.item()]
        weight = weight.index_select(1, taps.flatten()).t().unflatten(0, taps.shape)  # (Q, P, C)
        return (pixels[:, None] * weight).sum(2)


def _map(out: Tensor, count: int, size: tuple) -> Tensor:
    """Maps (N, C, H, W), channels last; of one pixel with the strides with which torch's norms are quick."""
    if size == (1, 1):
        return out.reshape(count, -1)[:, :, None, None]
    return out.view(count, *size, -1).permute(0, 3, 1, 2)


@cache
def _taps(size: tuple, kernel: tuple, padding: tuple, stride: tuple) -> tuple[tuple, Tensor | None]:
    """Which weight of the kernel joins an input pixel to an output pixel.

    Parameters
    ----------
    size : height and width of the input map, P pixels in all
    kernel, padding, stride : of the convolution, height and width each

    Returns
    -------
    size : height and width of the output map, Q pixels in all
    taps : (Q, P) int64, the place in the flattened kernel of the weight between output pixel q and input pixel p; None
        where some output pixel does not reach every input pixel
    """
    ways = []
    for side, length, pad, step in zip(size, kernel, padding, stride, strict=True):
        starts = torch.arange(0, max(0, side + 2 * pad - length + 1), step)
        ways.append(torch.arange(side) + pad - starts[:, None])
    rows, columns = ways
    if any(way.numel() == 0 or way.min() < 0 or way.max() >= length for way, length in zip(ways, kernel, strict=True)):
        return (), None
    taps = rows[:, None, :, None] * kernel[1] + columns[None, :, None, :]
    return (len(rows), len(columns)), taps.flatten(2).flatten(0, 1)
