"""What a network costs wherever it runs: parameters, MACs, bytes."""

import contextlib
import functools
import io

import ptflops
import torch
from safetensors.torch import save

from lwnb.networks import build


@functools.cache
def cost(model: str, num_classes: int, image_size: int, output_stride: int) -> dict:
    """Parameters, MACs and bytes of a network at the run's true input size.

    Returns
    -------
    `parameters`; `macs` of one image, see `count_macs`; `size_bytes` of its state dict as a fp32 safetensors file.
    """
    net = build.build(model, num_classes, output_stride)
    return {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "size_bytes": len(save(net.state_dict())),
        "macs": count_macs(net.to("meta"), image_size),  # shapes are enough: no arithmetic is done
    }


def count_macs(net: torch.nn.Module, image_size: int) -> int:
    """Multiply-accumulates of one (1, 3, image_size, image_size) forward pass; FLOPs = 2 x MACs.

    Counted by ptflops with its `aten` backend: convolutions and matrix products, each bias as one MAC an output;
    normalisation, activation and pooling count nothing. This is what torchvision declares (there without biases); the
    `pytorch` backend counts BatchNorm, activations and pooling too: 1 % more for ResNet18, 11 % for MobileNetV3-Small.
    Attention in one fused kernel (ViT) is not seen.

    Raises
    ------
    ValueError
        The network cannot be run at this image size; ptflops' own message follows.
    """
    said = io.StringIO()
    with torch.no_grad(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        macs, _ = ptflops.get_model_complexity_info(
            net, (3, image_size, image_size), backend="aten", as_strings=False, print_per_layer_stat=False, ost=said
        )
    if macs is None:  # ptflops prints an exception instead of raising it
        raise ValueError(f"image_size: {image_size} is not possible for this network: {said.getvalue().strip()}")
    return int(macs)
