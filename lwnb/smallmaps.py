"""Convolutions of maps of a few pixels, computed as the matrix products that they are.

At 32 px and output stride 32 the last stages see one pixel: of a 3 x 3 kernel only the middle meets anything but padding. On a
processor the library's convolutions are slow there, forwards and most of all backwards: a step of training takes 1.2 (SqueezeNet
1.1, ResNet18) to 1.8 times (EfficientNetV2-S) as long. Sums differ by their rounding alone.
"""

from torch import Tensor, nn
from torch.nn import functional as F

FEW = 4
"""Pixels of a map up to which a 1 x 1 convolution is quicker as a matrix product for all networks (at 64 SqueezeNet loses)."""


def shortcut(net: nn.Module) -> nn.Module:
    """The network itself; its convolutions now take the short way wherever a map is small enough."""
    for module in net.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = _Conv2d
    return net


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        if not _plain(self):
            return super().forward(x)
        if x.shape[2:] == (1, 1) and _one_tap(self):
            weight = self.weight[:, :, self.padding[0], self.padding[1]]
            if self.groups == 1:
                return F.linear(x.flatten(1), weight, self.bias)[:, :, None, None]
            found = x * weight.to(x.dtype)[None, :, :, None]
            return found if self.bias is None else found + self.bias[:, None, None]
        if x.shape[2] * x.shape[3] <= FEW and _pixelwise(self):
            pixels = x.permute(0, 2, 3, 1)  # no copy for channels_last
            return F.linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(x)


def _plain(conv: nn.Conv2d) -> bool:
    """Whether a convolution pads with zeros, has no gaps in its kernel, and joins all channels or none."""
    joined = conv.groups == 1 or conv.groups == conv.in_channels == conv.out_channels
    return joined and conv.padding_mode == "zeros" and conv.dilation == (1, 1) and not isinstance(conv.padding, str)


def _one_tap(conv: nn.Conv2d) -> bool:
    """Whether one pixel becomes one pixel, by a single tap of the kernel: the one as far in as the padding goes."""
    sides = zip(conv.kernel_size, conv.padding, conv.stride, strict=True)
    return all(pad < size and 0 <= 2 * pad - size + 1 < stride for size, pad, stride in sides)


def _pixelwise(conv: nn.Conv2d) -> bool:
    """Whether each pixel becomes one by itself, with all its channels."""
    return conv.groups == 1 and conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0)
