"""What a network costs: parameters, MACs, bytes, latency samples of this machine."""

import contextlib
import functools
import io
import os
import time

import ptflops
import torch
from safetensors.torch import save

from lwnb import models, results


@functools.cache
def cost(model: str, num_classes: int, image_size: int, output_stride: int) -> dict:
    """Parameters, MACs and bytes of a network at the run's true input size.

    Returns
    -------
    `parameters`; `macs` of one image, see `count_macs`; `size_bytes` of its state dict as a fp32 safetensors file.
    """
    net = models.build(model, num_classes, output_stride)
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


def latency(
    model: str,
    num_classes: int,
    image_size: int,
    output_stride: int,
    threads: int = 1,
    batch_size: int = 1,
    warmup: int = 10,
    min_calls: int = 50,
    min_seconds: float = 0.5,
) -> dict:
    """Time forward passes of eager PyTorch on the CPU: fp32, channels_last, inference mode, random weights.

    Returns
    -------
    `setting`, see `lwnb.results.setting`; `samples_ms`, every call after the warm-up, in order, milliseconds a batch,
    at least `min_calls` of them over at least `min_seconds`; `load_1min`, the load average as the timing began.
    """
    setting = results.setting(model, num_classes, image_size, output_stride, threads, batch_size)
    load = os.getloadavg()[0]
    net = models.build(model, num_classes, output_stride).eval().to(memory_format=torch.channels_last)
    images = torch.full((batch_size, 3, image_size, image_size), 0.5).contiguous(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for _ in range(warmup):
                net(images)
            samples = _time(lambda: net(images), min_calls, min_seconds)
    finally:
        torch.set_num_threads(before)
    return {"setting": setting, "samples_ms": samples, "load_1min": load}


def _time(call, min_calls: int, min_seconds: float) -> list[float]:
    samples, began = [], time.perf_counter_ns()
    while len(samples) < min_calls or time.perf_counter_ns() - began < min_seconds * 1e9:
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples
